"""Values put over those of a spec: dicts, and the option --set."""

import numpy as np
import pytest

import nfspec
from nfspec.errors import SpecError
from nfspec.language.loader import load
from nfspec.language.overrides import overriding, parsed

from specs import HEAD, write

NANO = HEAD.replace("nfnet-f0", "nfnet-nano")


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def complaints(source, *over):
    with pytest.raises(SpecError) as error:
        load(source, over)
    return str(error.value).split("\n")


def dumped(spec):
    return spec.model_dump(by_alias=True)


CASES = {
    "stages.alpha": 0.3,
    "stages.depth": [1, 1, 1, 1],
    "head.classes": 10,
    "activation.kind": "silu",
    "agc.enabled": False,
    'agc.names."stem.*"': 0.5,
    "input": {"train": 48, "test": 64},
}
WRITTEN = [
    "stages.alpha=0.3",
    "stages.depth = [1, 1, 1, 1]",
    "head.classes=10",
    "activation.kind=silu",
    "agc.enabled=false",
    'agc.names."stem.*"=0.5',
    "input={train=48, test = 64}",
]


def test_a_dict_changes_what_it_names_and_nothing_else():
    before, after = dumped(load("nfnet-nano")), dumped(load("nfnet-nano", CASES))
    for table in ("stages", "head", "activation", "agc", "input"):
        before.pop(table), after.pop(table)
    assert after == before
    spec = load("nfnet-nano", CASES)
    assert (spec.stages.alpha, spec.head.classes, spec.activation.kind) == (0.3, 10, "silu")
    assert (spec.stages.depth, spec.agc.enabled) == ((1, 1, 1, 1), False)
    assert spec.agc.names == {"stem.*": 0.5}
    assert (spec.input.train, spec.input.test) == (48, 64)


def test_the_option_and_the_dict_say_the_same():
    assert parsed(WRITTEN) == CASES
    over = overriding(parsed(WRITTEN), "--set")
    assert dumped(load("nfnet-nano", over)) == dumped(load("nfnet-nano", CASES))
    assert str(load("nfnet-nano", over).origin(("stages", "alpha"))) == "--set"
    assert str(load("nfnet-nano", CASES).origin(("stages", "alpha"))) == "overrides"


def test_the_last_of_two_counts():
    assert load("nfnet-nano", {"head": {"classes": 3}, "head.classes": 4}).head.classes == 4
    assert load("nfnet-nano", {"head.classes": 4, "head": {"classes": 3}}).head.classes == 3
    assert parsed(["head.classes=3", "head.classes=4"]) == {"head.classes": 4}


def test_numbers_and_arrays_of_numpy_are_taken():
    values = {"stages.depth": np.array([1, 1, 1, 1]), "head.classes": np.int64(3)}
    values |= {"stages.alpha": np.float32(0.5), "stages.kernel": (3, 3, 3, 3)}
    spec = load("nfnet-nano", values)
    assert (spec.stages.depth, spec.head.classes, spec.stages.alpha) == ((1, 1, 1, 1), 3, 0.5)


def test_a_changed_spec_keeps_its_name_and_has_a_digest_of_its_own():
    plain, changed = load("nfnet-nano"), load("nfnet-nano", {"stages.alpha": 0.3})
    assert (changed.name, changed.source) == (plain.name, plain.source)
    assert changed.digest != plain.digest
    same = {"stages.alpha": plain.stages.alpha, "name": "mine", "source": "me"}
    renamed = load("nfnet-nano", same)
    assert (renamed.name, renamed.source, renamed.digest) == ("mine", "me", plain.digest)
    assert str(renamed.origin(("name",))) == "overrides"


def test_a_changed_spec_is_the_one_that_a_file_would_make():
    write(f"{NANO}[stages]\nalpha = 0.3\n[head]\nclasses = 10\n")
    over = {"stages.alpha": 0.3, "head.classes": 10, "name": "x", "source": "own"}
    assert dumped(load("nfnet-nano", over)) == dumped(load("x.toml"))


@pytest.mark.parametrize(
    "label, over",
    [
        ("overrides", lambda values: values),
        ("--set", lambda values: overriding(values, "--set")),
    ],
)
def test_all_that_is_wrong_with_the_values_is_told_at_once(label, over):
    values = {"stages.alhpa": 0.3, "head.classes": -1, "activation.kind": "gelu"}
    values |= {"input.train": 3.5, "extends": "deepmind", "haed": {"classes": 3}}
    with pytest.raises(SpecError) as error:
        load("nfnet-nano", over(values))
    lines = str(error.value).split("\n")
    assert all(line.startswith(f"{label}: ") for line in lines)
    rest = {line.removeprefix(f"{label}: ") for line in lines}
    assert 'stages.alhpa: unknown key; did you mean "alpha"? [SPEC-UNKNOWN-KEY]' in rest
    assert "head.classes: must be at least 1; found -1 [SPEC-VALUE]" in rest
    assert "input.train: expected a whole number; found 3.5 [SPEC-TYPE]" in rest
    assert 'haed: unknown key; did you mean "head"? [SPEC-UNKNOWN-KEY]' in rest
    assert {line.split(":")[0] for line in rest} == {path.split("=")[0] for path in values}


def test_values_that_do_not_resolve_together():
    reason = (
        "96 is wider than the bottleneck of 32 (stage 0, block 0); nearest that works: "
        "stages.group_width = [32, 64, 96, 96], or stages.width_factor = 3 [SPEC-GROUPS]"
    )
    with pytest.raises(SpecError) as error:
        load("nfnet-nano", {"name": "mine", "stages.group_width": 96})
    assert str(error.value) == f"overrides: stages.group_width: {reason}"
    write(f"{NANO}[stages]\ngroup_width = 96\n")
    assert complaints("x.toml", *overriding({"name": "y"})) == [
        f"x.toml:6:1: stages.group_width: {reason}"
    ]


@pytest.mark.parametrize("path", ["", "a..b", "a b", "a=1\nb", "stages.alpha[0]", "a." * 300, "#"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(SpecError, match=r"^overrides: .* is not a path such as stages\.alpha \["):
        load("nfnet-nano", {path: 0.3})


@pytest.mark.parametrize("value", [None, object(), b"x", {"a": None}, [[object()]]])
def test_what_toml_has_not_is_refused(value):
    with pytest.raises(nfspec.InputError, match=r"^overrides: stages\.alpha: expected text, a num"):
        load("nfnet-nano", {"stages.alpha": value})


def test_paths_that_are_no_text_and_nests_without_end_are_refused():
    with pytest.raises(nfspec.InputError, match="expected paths such as"):
        load("nfnet-nano", {("stages", "alpha"): 0.3})
    endless = []
    endless.append(endless)
    with pytest.raises(nfspec.InputError, match=r"stages\.alpha: expected"):
        load("nfnet-nano", {"stages.alpha": endless})


WORDS = {"silu": "silu", "a/b-c.d": "a/b-c.d", '"silu"': "silu", "true": True, "inf": float("inf")}


@pytest.mark.parametrize("text, value", WORDS.items())
def test_words_need_no_quotes(text, value):
    assert parsed([f"x.y={text}"]) == {"x.y": value}


BAD = {
    "stages.alpha": 'expected FIELD=VALUE, such as stages.alpha=0.3; found "stages.alpha"',
    "stages.alpha=": "stages.alpha: not TOML: ",
    "stages.alpha=[1,": "stages.alpha: not TOML: ",
    "stages.alpha=0.3 # a\nb=1": "stages.alpha: expected one value; found ",
    "stages.alpha=a b": "stages.alpha: not TOML: invalid value; a string needs quotes",
    f"stages.alpha={'1' * 5000}": "stages.alpha: a number of too many digits",
    f"stages.alpha={'[' * 5000}": "stages.alpha: n",
    f"stages.alpha={'1.' * 300}": "stages.alpha: too long for a value",
    "a..b=1": '"a..b" is not a path such as stages.alpha',
    "=1": '"" is not a path such as stages.alpha',
}


@pytest.mark.parametrize("text, message", BAD.items(), ids=range(len(BAD)))
def test_texts_that_cannot_be_read_are_named(text, message):
    with pytest.raises(SpecError) as error:
        parsed(["head.classes=3", text, "another"])
    first, second = str(error.value).split("\n")
    assert first.startswith(f"--set: {message}")
    assert second.startswith("--set: expected FIELD=VALUE")


@pytest.mark.parametrize("word", ["3x3", "7x7_pool", "deep_quad"])
def test_names_of_stems_need_no_quotes(word):
    assert parsed([f"stem.type={word}"]) == {"stem.type": word}
