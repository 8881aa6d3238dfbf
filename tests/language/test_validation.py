"""Single mistakes in a field, each with the whole line it is told in."""

import pytest

from nfspec.language.validation import shown
from nfspec.wording import found_text, printable

from specs import HEAD, complaints, write

KINDS = (
    '"identity", "celu", "elu", "gelu_tanh", "gelu_erf", "leaky_relu", "log_sigmoid", "relu", '
    '"relu6", "selu", "sigmoid", "silu", "soft_sign", "softplus" or "tanh"'
)
TABLES = (
    "schema, name, source, family, input, stem, stages, block, rounding, ws, activation, conv, "
    "attention, se, eca, stochastic_depth, head, agc, recipe or finetune"
)

# What stands from line 5 on, and the line of the error after `x.toml:`.
FIELDS = {
    # keys
    "[stages]\ndepht = [1]": '6:1: stages.depht: unknown key; did you mean "depth"? '
    "[SPEC-UNKNOWN-KEY]",
    "[stagess]\ndepth = [1]": '5:1: stagess: unknown key; did you mean "stages"? '
    "[SPEC-UNKNOWN-KEY]",
    "[a.b.c]\nd = 1": f"5:1: a: unknown key; expected {TABLES} [SPEC-UNKNOWN-KEY]",
    "classes = 10": '5:1: classes: unknown key here; did you mean "head.classes"? '
    "[SPEC-UNKNOWN-KEY]",
    "[head]\neps = 1": '6:1: head.eps: unknown key here; did you mean "ws.eps" or "agc.eps"? '
    "[SPEC-UNKNOWN-KEY]",
    "[conv]\nnorm = 1": "6:1: conv.norm: unknown key; expected padding or init_scale "
    "[SPEC-UNKNOWN-KEY]",
    "[agc.roles]\ngian = 1": '6:1: agc.roles.gian: unknown key; did you mean "gain"? '
    "[SPEC-UNKNOWN-KEY]",
    '[conv]\n"\\u001b[2J" = 1': r'6:1: conv."\u001b[2J": unknown key; expected padding or '
    "init_scale [SPEC-UNKNOWN-KEY]",
    # types
    '[head]\nclasses = "10"': '6:1: head.classes: expected a whole number; found "10" [SPEC-TYPE]',
    "[head]\nclasses = 10.0": "6:1: head.classes: expected a whole number; found 10.0 [SPEC-TYPE]",
    "[head]\nclasses = true": "6:1: head.classes: expected a whole number; found true [SPEC-TYPE]",
    "[head]\ndropout = false": "6:1: head.dropout: expected a number; found false [SPEC-TYPE]",
    "[head]\nclasses = 1979-05-27": "6:1: head.classes: expected a whole number; "
    "found 1979-05-27 [SPEC-TYPE]",
    "[head]\nclasses = {}": "6:1: head.classes: expected a whole number; found a table [SPEC-TYPE]",
    "[head.classes]\nx = 1": "5:1: head.classes: expected a whole number; found a table "
    "[SPEC-TYPE]",
    "[block]\nskip_gain = 1": "6:1: block.skip_gain: expected true or false; found 1 [SPEC-TYPE]",
    "[block]\nconvs = true": "6:1: block.convs: expected a whole number; found true [SPEC-TYPE]",
    "family = 1": '5:1: family: expected "nfnet", "nf_regnet" or "nf_resnet"; found 1 [SPEC-VALUE]',
    "head = 3": "5:1: head: expected a table; found 3 [SPEC-TYPE]",
    "recipe = 3": "5:1: recipe: expected a table; found 3 [SPEC-TYPE]",
    "[[stages]]\ndepth = 1": "5:1: stages: expected a table; found [a table] [SPEC-TYPE]",
    "[stages]\nwidth = 256": "6:1: stages.width: expected an array; found 256 [SPEC-TYPE]",
    "[stages]\ndepth = [1, 2.5, 6, 3]": "6:13: stages.depth[1]: expected a whole number; found 2.5 "
    "[SPEC-TYPE]",
    "[agc]\nexclude = [1]": "6:12: agc.exclude[0]: expected a string; found 1 [SPEC-TYPE]",
    "[agc]\nnames = 1": "6:1: agc.names: expected a table; found 1 [SPEC-TYPE]",
    '[agc.names]\n"a.b" = "x"': '6:1: agc.names."a.b": expected a number; found "x" [SPEC-TYPE]',
    '[agc.names]\n"c\\"[d]" = -1': r'6:1: agc.names."c\"[d]": must be more than 0.0; found -1 '
    "[SPEC-VALUE]",
    "[agc.names]\nlist = -1": "6:1: agc.names.list: must be more than 0.0; found -1 [SPEC-VALUE]",
    # words, and what may be a word or something else
    '[activation]\nkind = "gelu"': f'6:1: activation.kind: expected {KINDS}; found "gelu"; '
    'did you mean "gelu_tanh" or "gelu_erf"? [SPEC-VALUE]',
    '[ws]\neps_rule = "Max"': '6:1: ws.eps_rule: expected "max", "add", "add_to_std", "none" '
    'or an array; found "Max"; did you mean "max"? [SPEC-VALUE]',
    '[stages]\ngroup_width = "full"': '6:1: stages.group_width: expected a whole number, "none" or '
    'an array; found "full" [SPEC-VALUE]',
    '[stages]\ngroup_width = [1, 2, "non", 3]': "6:22: stages.group_width[2]: expected a whole "
    'number or "none"; found "non"; did you mean "none"? [SPEC-VALUE]',
    '[activation]\ngamma = "table"': '6:1: activation.gamma: expected a number, "deepmind" or '
    '"exact"; found "table" [SPEC-VALUE]',
    "[activation]\ngamma = [1]": '6:1: activation.gamma: expected a number, "deepmind" or "exact"; '
    "found [1]; this field is one value, which serves the whole network [SPEC-TYPE]",
    '[stages]\nbeta = "x"': '6:1: stages.beta: expected "auto", a number or an array; found "x" '
    "[SPEC-VALUE]",
    "[stages]\nbeta = [1, [1, true], 1, 1]": "6:16: stages.beta[1][1]: expected a number; "
    "found true [SPEC-TYPE]",
    "[stages]\nalpha = [[1], 1, 1, 1]": "6:10: stages.alpha[0]: expected a number; found [1] "
    "[SPEC-TYPE]",
    "[block]\nfirst_expansion = true": '6:1: block.first_expansion: expected a number or "same"; '
    "found true [SPEC-TYPE]",
    "[eca]\nkernel = 2.5": '6:1: eca.kernel: expected a whole number or "auto"; found 2.5 '
    "[SPEC-TYPE]",
    '[recipe]\nweight_decay_exclude = ["gains"]': "6:25: recipe.weight_decay_exclude[0]: expected "
    '"kernel", "gain", "bias", "skip_gain" or "head"; found "gains"; did you mean "gain"? '
    "[SPEC-VALUE]",
    # sizes
    "[head]\nclasses = 0": "6:1: head.classes: must be at least 1; found 0 [SPEC-VALUE]",
    "[head]\ndropout = 1": "6:1: head.dropout: must be less than 1.0; found 1 [SPEC-VALUE]",
    "[block]\nconvs = 3": "6:1: block.convs: must be at most 2; found 3 [SPEC-VALUE]",
    "[stages]\nwidth = [-1, 1, 1, 1]": "6:10: stages.width[0]: must be at least 1; found -1 "
    "[SPEC-VALUE]",
    "[head]\ndropout = nan": "6:1: head.dropout: must be finite; found nan [SPEC-VALUE]",
    '[ws]\ndtype = ["float32", "compute"]': '6:1: ws.dtype: expected "float32" or "compute"; found '
    '["float32", "compute"]; this field is one value, which serves the whole network [SPEC-VALUE]',
    "[ws]\neps = [1e-4, 2.0]": "6:14: ws.eps[1]: must be at most 1.0; found 2.0 [SPEC-VALUE]",
    "[ws]\neps = inf": "6:1: ws.eps: must be finite; found inf [SPEC-VALUE]",
    f"[head]\nclasses = {'9' * 4000}": "6:1: head.classes: must be at most 1000000; found a whole "
    "number of about 4000 digits [SPEC-VALUE]",
    f"[head]\ndropout = 0x{'f' * 10_000}": "6:1: head.dropout: expected a number; found a whole "
    "number of about 12041 digits [SPEC-TYPE]",
    "[stages]\ndepth = []": "6:1: stages.depth: must have at least 1 entry; has 0 [SPEC-LENGTH]",
    f"[stages]\ndepth = [{'1,' * 17}]": "6:1: stages.depth: must have at most 16 entries; has 17 "
    "[SPEC-LENGTH]",
}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("text", FIELDS, ids=[text[:40] for text in FIELDS])
def test_a_bad_field(text):
    assert complaints(write(f"{HEAD}{text}\n")) == [f"x.toml:{FIELDS[text]}"]


@pytest.mark.parametrize("name", ["x y", "", "-x", "é", "x" * 81, "x\\n", "../x\\u0000"])
def test_a_bad_name(name):
    (line,) = complaints(write(HEAD.replace('"x"', f'"{name}"')))
    rule = "expected letters, digits and . _ + / -, at most 80 and a letter or digit first"
    assert line.startswith(f"x.toml:2:1: name: {rule}; found ")
    assert line.endswith(" [SPEC-VALUE]")


def test_a_source_has_an_end():
    text = HEAD.replace('"own"', '"' + "x" * 501 + '"')
    assert complaints(write(text)) == [
        "x.toml:3:1: source: longer than 500 characters [SPEC-VALUE]"
    ]


def test_values_are_shown_as_toml_writes_them_and_short():
    assert found_text(True) == "true"
    assert found_text('a"\\\n') == '"a\\"\\\\\\n"'
    assert found_text("x" * 61) == '"' + "x" * 57 + '..."'
    assert found_text([1, "a", [2.5, {}]]) == '[1, "a", [2.5, a table]]'
    assert found_text(list(range(21))) == "an array of 21"
    assert found_text(-(10**31)) == "a whole number of about 31 digits"
    assert found_text(10**30) == "1" + "0" * 30


def test_paths_are_shown_as_toml_writes_them_and_short():
    assert shown(("stages", "beta", 1, 0)) == "stages.beta[1][0]"
    assert shown(("agc", "names", "head.*")) == 'agc.names."head.*"'
    assert shown(("",)) == '""'
    assert shown(("x" * 61,)) == '"' + "x" * 57 + '..."'
    assert len(shown(("x",) * 200)) == 200


def test_nothing_shown_acts_on_a_terminal():
    assert printable("a é\t\x1b\x9b\u202e\udcff") == "a é\\t\\x1b\\x9b\\u202e\\udcff"
