"""`load`: names, `extends`, what is inherited, and that all of what is wrong is told at once."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfspec.errors import SpecError
from nfspec.language.loader import VARIANTS, layers, load, merge
from nfspec.language.spec import Origin, Spec
from nfspec.plan.resolver import resolve

from specs import HEAD, complaints, write

ROOT = 'schema = "nfspec/1"\nname = "x"\nsource = "own"\n'
UNKNOWN = "[SPEC-UNKNOWN-KEY]"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def parent(text, file="b.toml", name="nfnet-f0"):
    write(HEAD.replace("nfnet-f0", name) + text, file)


def extending(name, text=""):
    return write(HEAD.replace('"nfnet-f0"', name) + text)


# names


def test_a_built_in_spec_is_loaded_by_name_and_a_file_by_path():
    assert load("nfnet-f0").name == "nfnet-f0"
    assert load("timm/nfnet_f0").name == "timm/nfnet_f0"
    assert load(write(HEAD)).name == load(Path("x.toml")).name == "x"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("nfnet-f10", 'no built-in spec "nfnet-f10"; did you mean "nfnet-f1"? [SPEC-NAME]'),
        ("nfnet-fo", 'no built-in spec "nfnet-fo"; did you mean "nfnet-f0"?'),
        ("timm/nfnet-f0", 'no built-in spec "timm/nfnet-f0"; did you mean "timm/nfnet_f0"?'),
        ("specs/mine", 'no built-in spec "specs/mine"; a file\'s path ends in .toml [SPEC-NAME]'),
        ("", 'no built-in spec ""; a file\'s path ends in .toml [SPEC-NAME]'),
        ("a\x1b\n", r'no built-in spec "a\u001b\n"; a file' + "'s path ends in .toml [SPEC-NAME]"),
        (Path("nfnet-f8"), 'no built-in spec "nfnet-f8"; did you mean "nfnet-f7"? [SPEC-NAME]'),
        ("mine.toml", "mine.toml: cannot be read: No such file or directory [SPEC-READ]"),
    ],
)
def test_a_name_that_is_none(source, line):
    assert complaints(source)[0].startswith(line)


def test_a_dialect_is_no_network():
    lines = complaints("deepmind")
    assert lines[0] == (
        "deepmind.toml:1:1: family: missing; give it here or in a spec that this one extends "
        "[SPEC-MISSING]"
    )
    assert "deepmind.toml:7:1: input.train: missing" in lines[1]


# extends

EXTENDS = {
    '"nfnet-f10"': 'no built-in spec "nfnet-f10"; did you mean "nfnet-f1"?',
    '"mine"': 'no built-in spec "mine"; a file\'s path ends in .toml',
    '"b.toml"': 'no file "b.toml" beside this one',
    '"nfnet-f0.toml"': 'no file "nfnet-f0.toml" beside this one; did you mean "nfnet-f0"?',
    '"folder.toml"': '"folder.toml" cannot be read: a folder, where a regular file was expected',
    '"pipe.toml"': '"pipe.toml" cannot be read: a named pipe, where a regular file was expected',
    '"../outside.toml"': '"../outside.toml" is outside the folder of the spec that was loaded',
    '"folder.toml/../../y.toml"': '"folder.toml/../../y.toml" is outside the folder of the spec '
    "that was loaded",
    '"/etc/b.toml"': '"/etc/b.toml" is not a path relative to this file',
    '"b\\u0000.toml"': r'no file "b\u0000.toml" beside this one',
    f'"{"b" * 300}.toml"': f'no file "{"b" * 57}..." beside this one',
    '"link-out.toml"': '"link-out.toml" is outside the folder of the spec that was loaded',
    '"link-loop.toml"': 'no file "link-loop.toml" beside this one',
    '"x.toml"': "a spec cannot extend itself, nor one that extends it",
    '"./x.toml"': "a spec cannot extend itself, nor one that extends it",
    '"link-self.toml"': "a spec cannot extend itself, nor one that extends it",
    "3": "expected the name of a built-in spec or the path of a .toml file; found 3",
    '["nfnet-f0"]': "expected the name of a built-in spec or the path of a .toml file; "
    'found ["nfnet-f0"]',
}


@pytest.mark.parametrize("name", EXTENDS, ids=[name[:40] for name in EXTENDS])
def test_a_parent_that_cannot_be(name, tmp_path, monkeypatch):
    folder = tmp_path / "inner"
    folder.mkdir()
    monkeypatch.chdir(folder)
    write(HEAD, "../outside.toml")
    Path("folder.toml").mkdir()
    os.mkfifo("pipe.toml")
    for link, target in (("out", "../outside"), ("loop", "link-loop"), ("self", "x")):
        Path(f"link-{link}.toml").symlink_to(f"{target}.toml")
    assert complaints(extending(name)) == [f"x.toml:4:1: extends: {EXTENDS[name]} [SPEC-EXTENDS]"]


def test_a_parent_may_be_in_a_folder_below_and_lead_back_up():
    parent("[head]\nclasses = 10\n", "c.toml")
    parent("", "sub/b.toml", "../c.toml")
    assert load(extending('"sub/b.toml"')).head.classes == 10
    write(Path("x.toml").read_text(), "sub/y.toml")
    parent("", "sub/sub/b.toml", "../../c.toml")
    assert complaints("sub/y.toml") == [
        'sub/sub/b.toml:4:1: extends: "../../c.toml" is outside the folder of the spec that was '
        "loaded [SPEC-EXTENDS]"
    ]


def test_the_folder_is_the_one_that_was_named_be_the_file_a_link():
    parent("[head]\nclasses = 10\n", "here/b.toml")
    extending('"b.toml"')
    Path("here/x.toml").symlink_to("../x.toml")
    assert load("here/x.toml").head.classes == 10
    assert complaints("x.toml") == [
        'x.toml:4:1: extends: no file "b.toml" beside this one [SPEC-EXTENDS]'
    ]


def test_a_ring_of_parents():
    parent("", "b.toml", "c.toml")
    parent("", "c.toml", "b.toml")
    assert complaints(extending('"b.toml"')) == [
        "c.toml:4:1: extends: a spec cannot extend itself, nor one that extends it [SPEC-EXTENDS]"
    ]


def test_a_chain_has_an_end():
    for n in range(14):
        parent("", f"{n}.toml", f"{n + 1}.toml")
    parent("", "14.toml", "nfnet-f0")
    assert complaints("1.toml") == []
    assert complaints("0.toml") == [
        "nfnet-f0.toml:4:1: extends: a chain of more than 16 specs [SPEC-EXTENDS]"
    ]


def test_mistakes_of_a_parent_are_placed_in_its_file():
    parent("[head]\nclasses = 0\ndropuot = 0.1\n", "specs/sub/b.toml")
    write(HEAD.replace("nfnet-f0", "sub/b.toml") + "[ws]\nddof = 2\n", "specs/x.toml")
    assert complaints("specs/x.toml") == [
        "specs/x.toml:6:1: ws.ddof: must be at most 1; found 2 [SPEC-VALUE]",
        "specs/sub/b.toml:6:1: head.classes: must be at least 1; found 0 [SPEC-VALUE]",
        f'specs/sub/b.toml:7:1: head.dropuot: unknown key; did you mean "dropout"? {UNKNOWN}',
    ]


def test_a_file_may_be_called_as_what_it_extends():
    text = f"{HEAD}[head]\nclasses = 10\n[agc.names]\n'stem.*' = 1.0\n"
    spec = load(write(text, "nfnet-f0.toml"))
    assert (spec.head.classes, spec.stages.depth) == (10, (1, 2, 6, 3))
    assert spec.origin(("head", "classes")) == Origin("nfnet-f0.toml", 6, 1)
    assert spec.origin(("stages", "depth")) == Origin("nfnet-f0.toml", 18, 1)
    assert complaints(write(f"{text}[stages]\ndepth = [0]\n", "nfnet-f0.toml")) == [
        "nfnet-f0.toml:10:10: stages.depth[0]: must be at least 1; found 0 [SPEC-VALUE]"
    ]


# all at once

MANY = """\
dropout = 0.1
[stages]
depht = [1]
group_width = 1000
kernel = 2
[head]
classes = 0
dropout = 1.0
[inputs]
train = 3
"""
TOLD = [
    'x.toml:4:1: extends: no built-in spec "nfnet-f10"; did you mean "nfnet-f1"? [SPEC-EXTENDS]',
    f'x.toml:5:1: dropout: unknown key here; did you mean "head.dropout"? {UNKNOWN}',
    f'x.toml:7:1: stages.depht: unknown key; did you mean "depth"? {UNKNOWN}',
    "x.toml:8:1: stages.group_width: 1000 is wider than the bottleneck of 128 (stage 0, block 0); "
    "nearest that works: stages.group_width = [128, 256, 768, 768], or stages.width_factor = 7.813 "
    "[SPEC-GROUPS]",
    "x.toml:9:1: stages.kernel: must be odd; found 2 [SPEC-KERNEL]",
    "x.toml:11:1: head.classes: must be at least 1; found 0 [SPEC-VALUE]",
    "x.toml:12:1: head.dropout: must be less than 1.0; found 1.0 [SPEC-VALUE]",
    f'x.toml:13:1: inputs: unknown key; did you mean "input"? {UNKNOWN}',
]


def test_all_mistakes_are_told_in_the_order_of_the_file():
    assert complaints(write(HEAD + MANY)) == TOLD[1:]


def test_a_parent_that_cannot_be_does_not_hide_the_rest():
    lines = complaints(extending('"nfnet-f10"', MANY))
    assert lines == [*TOLD[:3], *TOLD[5:]]  # but for what takes the parent's values to see


def test_a_parent_that_is_no_toml_does_not_hide_the_rest():
    write("x = ", "b.toml")
    assert complaints(extending('"b.toml"', "[head]\nclasses = 0\n")) == [
        "x.toml:6:1: head.classes: must be at least 1; found 0 [SPEC-VALUE]",
        "b.toml:1:5: not TOML: invalid value; a string needs quotes [SPEC-TOML]",
    ]


def test_a_missing_version_is_told_of_every_file_and_hides_nothing():
    write('name = "b"\nextends = "nfnet-f0"\n', "b.toml")
    text = 'name = "x"\nsource = "own"\nextends = "b.toml"\nhead = 1\n'
    missing = 'missing; the first line of a spec is schema = "nfspec/1" [SPEC-SCHEMA]'
    assert complaints(write(text)) == [
        f"x.toml:1:1: schema: {missing}",
        "x.toml:4:1: head: expected a table; found 1 [SPEC-TYPE]",
        f"b.toml:1:1: schema: {missing}",
    ]


def test_a_parents_value_stands_in_for_a_bad_one_however_bad_it_is():
    parent("[head]\nclasses = 0\n[stages]\nkernel = 2\n")
    text = "[head]\nclasses = 'x'\n[agc.roles]\ngain = true\n"
    assert complaints(extending('"b.toml"', text)) == [
        'x.toml:6:1: head.classes: expected a whole number; found "x" [SPEC-TYPE]',
        "x.toml:8:1: agc.roles.gain: expected a number; found true [SPEC-TYPE]",
        "b.toml:8:1: stages.kernel: must be odd; found 2 [SPEC-KERNEL]",
    ]


def test_no_more_than_a_hundred_are_listed():
    text = "".join(f"key{n} = 1\n" for n in range(101))
    lines = complaints(write(HEAD + text))
    assert lines[0] == "x.toml:1:1: 101 problems, of which 100 are listed [SPEC-LIMIT]"
    assert len(lines) == 101
    assert len(complaints(write(HEAD + text.replace("key7 = 1\n", "")))) == 100


# missing


def test_every_file_has_a_name_and_may_have_a_source():
    assert complaints(write('schema = "nfspec/1"\nextends = "nfnet-f0"\n')) == [
        "x.toml:1:1: name: missing; every spec has one of its own [SPEC-MISSING]",
    ]
    assert load(write(HEAD.replace('source = "own"', ""))).source == ""


def test_fields_that_no_parent_has_are_missed_where_they_would_stand():
    missing = "missing; give it here or in a spec that this one extends [SPEC-MISSING]"
    at = {"stages": 6, "head": 8}
    fields = (
        *("family", "input.train", "input.test", "stem.width", "stem.kernel", "stem.stride"),
        *("block.convs", "activation.kind"),
        *("stages.depth", "stages.width", "stages.stride", "stages.expansion"),
        *("stages.group_width", "head.conv", "head.dropout"),
    )
    assert complaints(write(f'{ROOT}extends = "deepmind"\n\n[stages]\n\n[head]\n')) == [
        f"x.toml:{at.get(field.split('.')[0], 1)}:1: {field}: {missing}" for field in fields
    ]


@pytest.mark.parametrize(("text", "count"), [("", 71), ('family = "nfnet"\nstem = {}\n', 70)])
def test_a_spec_of_nothing_is_advised_to_extend(text, count):
    assert complaints(write(ROOT + text)) == [
        f"x.toml:1:1: {count} fields are missing; start from a base, such as "
        'extends = "deepmind" [SPEC-MISSING]'
    ]


def test_an_empty_file_is_told_how_to_begin():
    assert complaints(write("")) == [
        'x.toml:1:1: schema: missing; the first line of a spec is schema = "nfspec/1" '
        "[SPEC-SCHEMA]",
        "x.toml:1:1: name: missing; every spec has one of its own [SPEC-MISSING]",
        'x.toml:1:1: 71 fields are missing; start from a base, such as extends = "deepmind" '
        "[SPEC-MISSING]",
    ]


# what is inherited


def test_tables_merge_and_everything_else_replaces():
    parent(
        "[stages]\nalpha = [0.1, 0.2, 0.3, 0.4]\n[agc]\nexclude = ['head.*', '*.gain']\n"
        "[agc.names]\n'stem.*' = 0.1\n'*.bias' = 0.2\n[agc.roles]\ngain = 0.3\n"
    )
    text = (
        "stages.kernel = 5\nagc.exclude = ['*.se.*']\n"
        "agc.names = {'stem.*' = 1, 'final*' = 2}\nagc.roles = {}\n"
    )
    spec = load(extending('"b.toml"', text))
    assert spec.stages.alpha == (0.1, 0.2, 0.3, 0.4)
    assert spec.stages.kernel == 5
    assert spec.agc.exclude == ("*.se.*",)
    assert spec.agc.names == {"stem.*": 1.0, "*.bias": 0.2, "final*": 2.0}
    assert spec.agc.roles == {"gain": 0.3}


def test_name_and_source_are_not_inherited_nor_extends_kept():
    merged, _ = merge(layers(extending('"nfnet-f1"')))
    assert (merged["name"], merged["source"]) == ("x", "own")
    assert "extends" not in merged


def test_merging_leaves_the_layers_as_they_are():
    chain = layers(extending('"nfnet-f0"', "[agc.names]\na = 1\n"))
    assert merge(chain)[0]["agc"]["names"] == {"a": 1}
    assert merge(chain[:-1])[0]["agc"]["names"] == {}


def test_origins_say_which_file_wrote_what():
    parent("[stages]\nalpha = [0.1, 0.2, 0.3, 0.4]\nkernel = 5\nbeta = [1, 1, 1, 1]\n")
    text = "stages.kernel = [3, 3,\n5, 5]\nstages.beta = 1\n[head]\n"
    spec = load(extending('"b.toml"', text))
    assert spec.origin(("stages", "beta", 2)) == Origin("x.toml", 7, 1)
    assert spec.origin(("stages", "alpha", 2)) == Origin("b.toml", 6, 20)
    assert spec.origin(("stages", "kernel", 3)) == Origin("x.toml", 6, 4)
    assert spec.origin(("stages", "depth")) == Origin("nfnet-f0.toml", 18, 1)
    assert spec.origin(("ws", "eps")) == Origin("deepmind.toml", 43, 1)
    assert spec.origin(("name",)) == Origin("x.toml", 2, 1)
    assert spec.origin(("nothing",)) is None


def test_layers_are_the_files_of_a_chain_base_first():
    parent("", "b.toml", "nfnet-f1")
    actual = [layer.label for layer in layers(extending('"b.toml"'))]
    assert actual == ["deepmind.toml", "nfnet-f0.toml", "nfnet-f1.toml", "b.toml", "x.toml"]
    assert [layer.label for layer in layers("timm-dm")] == ["deepmind.toml", "timm-dm.toml"]
    with pytest.raises(SpecError, match="no built-in spec"):
        layers(extending('"nfnet-f10"'))


# anything else

NASTY = [
    *("1", "-1", "0", "1e400", "nan", "0x7fffffffffffffffffff", "true", '"auto"', '"none"', '""'),
    *("[]", "[1]", "[[1], [1, 1]]", "{}", "{ a = 1 }", "1979-05-27", "'''x'''", '"\\u0000"', "="),
    *(
        "[head]\n",
        "[[stages]]\n",
        "[agc.names]\n",
        "\n",
        "#",
        '"',
        "extends = ",
        "\\",
        "é",
        "\ufeff",
    ),
]
GOOD = [(VARIANTS / f"{name}.toml").read_text() for name in ("nfnet-f0", "nf-regnet-b0")]
GOOD += [HEAD + MANY, f"{HEAD}[stages]\nbeta = [1, 1, 1, [1, 1, 1]]\n[agc.roles]\ngain = 1\n"]


@st.composite
def mutated(draw):
    """A text with values replaced, and pieces cut out, doubled or put in."""
    lines = draw(st.sampled_from(GOOD)).split("\n")
    for n in draw(st.lists(st.integers(0, len(lines) - 1), max_size=4)):
        key, equals, value = lines[n].partition(" = ")
        lines[n] = key + equals + (draw(st.sampled_from(NASTY)) if equals else value)
    text = "\n".join(lines)
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 40))
        put = draw(st.sampled_from(["", text[start:end] * 2, *NASTY]))
        text = text[:start] + put + text[end:]
    return text.encode()


@settings(derandomize=True, max_examples=400, deadline=2_000)
@given(mutated() | st.binary(max_size=200))
def test_whatever_a_file_holds_it_is_a_spec_or_a_spec_error(raw):
    try:
        spec = load(write(raw))
    except SpecError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.file.endswith(".toml")
            assert problem.message.isprintable()
            assert 0 <= problem.line <= raw.count(b"\n") + 1 or problem.file != "x.toml"
    else:
        assert isinstance(spec, Spec)
        assert resolve(spec).ops
