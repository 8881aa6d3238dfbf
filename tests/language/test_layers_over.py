"""Layers put over a spec: files, and `given`."""

from pathlib import Path

import pytest

import nfspec
from nfspec.errors import SpecError
from nfspec.language.loader import load
from nfspec.language.overrides import given
from nfspec.language.reading import read_layer
from nfspec.language.spec import Origin

from specs import HEAD, write

NANO = HEAD.replace("nfnet-f0", "nfnet-nano")
REFUSED = "a file that replaces values has no name and no parent [SPEC-EXTENDS]"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def file(text, name="over.toml"):
    return read_layer(Path(write(text, name)), name, builtin=False)


def complaints(source, *over):
    with pytest.raises(SpecError) as error:
        load(source, over)
    return str(error.value).split("\n")


def dumped(spec):
    return spec.model_dump(by_alias=True)


# what replaces what


def test_over_nothing_a_spec_is_as_it_is():
    plain = dumped(load("nfnet-nano"))
    for over in ([], [given("nobody", {})], [file("")], [file('schema = "nfspec/1"\n')]):
        assert dumped(load("nfnet-nano", over)) == plain


def test_only_what_is_given_changes():
    before = dumped(load("nfnet-nano"))
    after = dumped(load("nfnet-nano", [given("--batch", {("recipe", "batch"): 32})]))
    assert (before["recipe"].pop("batch"), after["recipe"].pop("batch")) == (64, 32)
    assert after == before


def test_the_strongest_is_last():
    write(f"{NANO}[recipe]\nbatch = 1\nepochs = 1\nwarmup_epochs = 0.1\nmomentum = 0.1\n")
    over = file("[recipe]\nbatch = 2\nepochs = 2\nwarmup_epochs = 0.2\n")
    flags = [given(f"--{n}", {("recipe", "batch"): n}) for n in (3, 4)]
    actual = load("x.toml", [over, given("--epochs", {("recipe", "epochs"): 3}), *flags]).recipe
    assert (actual.batch, actual.epochs, actual.warmup_epochs, actual.momentum) == (4, 3, 0.2, 0.1)
    actual = load("x.toml", [*flags[::-1], over]).recipe
    assert (actual.batch, actual.epochs) == (2, 2)


def test_several_values_at_once_and_of_several_tables():
    values = {
        ("agc", "enabled"): False,
        ("agc", "clipping"): 0.5,
        ("head", "classes"): 10,
        ("stages", "depth"): (1, 2, 1, 1),
        ("agc", "names", "stem.*"): 0.25,
    }
    actual = load("nfnet-nano", [given("anything", values)])
    assert (actual.agc.enabled, actual.agc.clipping, actual.head.classes) == (False, 0.5, 10)
    assert actual.stages.depth == (1, 2, 1, 1)
    assert actual.agc.names == {"stem.*": 0.25}
    assert nfspec.resolve(actual).parameters["head.fc.bias"].shape == (10,)


def test_tables_merge_with_those_of_the_spec():
    write(f"{NANO}[agc.names]\n'stem.*' = 1\n'head.*' = 2\n")
    actual = load("x.toml", [file("[agc.names]\n'stem.*' = 3\n'final*' = 4\n")])
    assert actual.agc.names == {"stem.*": 3.0, "head.*": 2.0, "final*": 4.0}


def test_a_spec_keeps_its_name_and_source():
    write(NANO)
    over = [
        file('schema = "nfspec/1"\n[recipe]\nbatch = 2\n'),
        given("a", {("head", "classes"): 3}),
    ]
    actual = load("x.toml", over)
    assert (actual.name, actual.source) == ("x", "own")
    assert load("nfnet-nano", over).name == "nfnet-nano"


def test_what_is_given_stays_as_it_is_and_serves_again():
    over = given("--batch", {("recipe", "batch"): 7})
    other = file("[recipe]\nepochs = 3\n")
    first = load("nfnet-nano", [other, over])
    assert over.data == {"recipe": {"batch": 7}}
    assert other.data == {"recipe": {"epochs": 3}}
    assert dumped(load("nfnet-nano", [other, over])) == dumped(first)
    assert load("nfnet-f1", [over]).recipe.batch == 7
    assert load("nfnet-nano").recipe.batch == 64


def test_a_recipe_for_a_spec_that_has_none():
    text = Path(nfspec.__file__).parent.joinpath("variants/dialects/deepmind.toml").read_text()
    recipe = text[text.index("[recipe]") : text.index("[finetune]")]
    assert load("timm/test_nfnet").recipe is None
    assert load("timm/test_nfnet", [file(recipe)]).recipe == load("nfnet-f0").recipe


def test_the_spec_still_has_to_resolve():
    """With the new values, whose origin is told."""
    reason = (
        "96 is wider than the bottleneck of 32 (stage 0, block 0); nearest that works: "
        "stages.group_width = [32, 64, 96, 96], or stages.width_factor = 3 [SPEC-GROUPS]"
    )
    assert complaints("nfnet-nano", file("[stages]\ngroup_width = 96\n")) == [
        f"over.toml:2:1: stages.group_width: {reason}"
    ]


def test_what_does_not_resolve_names_the_option():
    reason = (
        "96 is wider than the bottleneck of 32 (stage 0, block 0); nearest that works: "
        "stages.group_width = [32, 64, 96, 96], or stages.width_factor = 3 [SPEC-GROUPS]"
    )
    assert complaints("nfnet-nano", given("--groups", {("stages", "group_width"): 96})) == [
        f"--groups: stages.group_width: {reason}"
    ]


# errors


def test_errors_name_the_option():
    over = [
        given("--batch", {("recipe", "batch"): 0}),
        given("--size", {("input", "train"): 32.5}),
        given("--nothing", {("recipe", "bacth"): 3}),
    ]
    assert complaints("nfnet-nano", *over) == [
        '--nothing: recipe.bacth: unknown key; did you mean "batch"? [SPEC-UNKNOWN-KEY]',
        "--size: input.train: expected a whole number; found 32.5 [SPEC-TYPE]",
        "--batch: recipe.batch: must be at least 1; found 0 [SPEC-VALUE]",
    ]


def test_errors_of_a_file_have_its_line_and_column():
    over = file("[recipe]\nepochs = 2\n  batch = 0\n\n[heads]\n", "mine/over.toml")
    assert complaints("nfnet-nano", over) == [
        "mine/over.toml:3:3: recipe.batch: must be at least 1; found 0 [SPEC-VALUE]",
        'mine/over.toml:5:1: heads: unknown key; did you mean "head"? [SPEC-UNKNOWN-KEY]',
    ]


def test_errors_of_the_spec_beneath_are_told_with_those_above():
    write(f"{NANO}[ws]\nddof = 2\n")
    assert complaints("x.toml", given("--batch", {("recipe", "batch"): 0})) == [
        "--batch: recipe.batch: must be at least 1; found 0 [SPEC-VALUE]",
        "x.toml:6:1: ws.ddof: must be at most 1; found 2 [SPEC-VALUE]",
    ]


def test_a_bad_value_that_is_replaced_is_no_error():
    write(f"{NANO}[recipe]\nbatch = 0\n")
    assert load("x.toml", [given("--batch", {("recipe", "batch"): 8})]).recipe.batch == 8


def test_a_bad_name_is_told_of_where_it_stands():
    write(NANO.replace('"x"', '"no name!"'))
    (alone,) = complaints("x.toml")
    assert alone.startswith("x.toml:2:1: name: ")
    assert complaints("x.toml", given("--batch", {("recipe", "batch"): 8})) == [alone]


def test_a_missing_name_is_missed_in_the_spec():
    write(NANO.replace('name = "x"\n', ""))
    alone = complaints("x.toml")
    assert alone == ["x.toml:1:1: name: missing; every spec has one of its own [SPEC-MISSING]"]
    assert complaints("x.toml", given("--batch", {("recipe", "batch"): 8})) == alone


def test_a_spec_that_cannot_be_read():
    layer = given("--batch", {("recipe", "batch"): 8})
    assert complaints("x.toml", layer)[0].startswith("x.toml: cannot be read: No such file")
    assert complaints("nfnet-nan", layer)[0].startswith('no built-in spec "nfnet-nan"; did you')


@pytest.mark.parametrize("key", ["name", "source", "extends"])
def test_a_name_or_a_parent_is_refused_in_what_replaces_values(key):
    over = file(f'[recipe]\nbatch = 8\n[input]\ntrain = 32\n{key} = "nfnet-f0"\n')
    (line,) = complaints("nfnet-nano", over)
    assert line.startswith(f"over.toml:5:1: input.{key}: unknown key")
    over = file(f'{key} = "nfnet-f0"\n[recipe]\nbatch = 8\n')
    assert complaints("nfnet-nano", over) == [f"over.toml:1:1: {key}: {REFUSED}"]


def test_all_of_what_is_refused_is_told_with_the_rest():
    over = file('extends = "nfnet-f0"\nname = "y"\nsource = "z"\n[recipe]\nbatch = 0\n')
    assert complaints("nfnet-nano", over) == [
        f"over.toml:1:1: extends: {REFUSED}",
        f"over.toml:2:1: name: {REFUSED}",
        f"over.toml:3:1: source: {REFUSED}",
        "over.toml:5:1: recipe.batch: must be at least 1; found 0 [SPEC-VALUE]",
    ]


def test_a_file_of_another_version_is_refused():
    with pytest.raises(SpecError, match=r"over\.toml:1:1: schema: "):
        load("nfnet-nano", [file('schema = "nfspec/2"\n[recipe]\nbatch = 0\n')])


def test_origins_say_which_file_replaced_a_value():
    write(f"{NANO}[recipe]\nepochs = 2\n")
    spec = load("x.toml", [file("\n[recipe]\n  batch = 8\n")])
    assert spec.origin(("recipe", "batch")) == Origin("over.toml", 3, 3)
    assert spec.origin(("recipe", "epochs")) == Origin("x.toml", 6, 1)
    assert spec.origin(("stages", "depth")) == Origin("nfnet-nano.toml", 18, 1)


def test_the_origin_of_a_name_is_where_it_stands():
    write(NANO)
    spec = load("x.toml", [file("[recipe]\nbatch = 8\n")])
    assert spec.origin(("name",)) == load("x.toml").origin(("name",)) == Origin("x.toml", 2, 1)


# finetune and recipe


def test_the_tables_of_fine_tuning_merge_and_are_checked():
    write(f"{NANO}[finetune]\nfreeze = ['stem.*']\nepochs = 3\n")
    spec = load("x.toml")
    assert (spec.finetune.freeze, spec.finetune.epochs, spec.finetune.batch) == (("stem.*",), 3, 64)
    assert spec.recipe.epochs == 15
    over = [file("[finetune]\nepochs = 4\n"), given("a", {("finetune", "learning_rate"): 0.3})]
    actual = load("x.toml", over).finetune
    assert (actual.epochs, actual.learning_rate, actual.freeze) == (4, 0.3, ("stem.*",))
    bad = file("[finetune]\nepochs = 0\nfreeze = 'stem'\nmomentum = 0.9\n")
    assert complaints("x.toml", bad) == [
        "over.toml:2:1: finetune.epochs: must be at least 1; found 0 [SPEC-VALUE]",
        'over.toml:3:1: finetune.freeze: expected an array; found "stem" [SPEC-TYPE]',
        "over.toml:4:1: finetune.momentum: unknown key here; did you mean "
        '"recipe.momentum"? [SPEC-UNKNOWN-KEY]',
    ]


def test_what_fine_tuning_changes_is_a_field_of_the_recipe_of_the_same_kind():
    spec = load("nfnet-nano")
    values = spec.finetune.model_dump(exclude={"freeze"})
    over = given("[finetune]", {("recipe", name): value for name, value in values.items()})
    actual = load("nfnet-nano", [over]).recipe
    assert {name: getattr(actual, name) for name in values} == values
    rest = set(type(actual).model_fields) - set(values)
    assert all(getattr(actual, name) == getattr(spec.recipe, name) for name in rest)


@pytest.mark.parametrize("name", ["nfnet-nano", "nfnet-f0", "nf-regnet-b0", "nf-resnet-50"])
def test_every_spec_of_the_original_says_how_it_is_trained_and_fine_tuned(name):
    spec = load(name)
    assert spec.recipe is not None
    assert spec.finetune is not None


def test_the_digest_is_of_the_graph_alone():
    plain = load("nfnet-nano")
    same = {
        ("recipe", "batch"): 8,
        ("recipe", "crop_area"): 0.5,
        ("recipe", "precision"): "bfloat16",
        ("agc", "enabled"): False,
        ("agc", "names", "stem.*"): 0.5,
        ("finetune", "epochs"): 3,
        ("finetune", "freeze"): ("stem.*",),
    }
    for path, value in same.items():
        changed = load("nfnet-nano", [given("a", {path: value})])
        assert dumped(changed) != dumped(plain)
        assert changed.digest == plain.digest
    other = {("head", "classes"): 10, ("input", "train"): 48, ("stochastic_depth", "rate"): 0.2}
    for path, value in other.items():
        assert load("nfnet-nano", [given("a", {path: value})]).digest != plain.digest


def test_nfnet_nano_is_a_network_with_a_recipe_for_a_minute():
    spec = load("nfnet-nano")
    plan, run = nfspec.resolve(spec), nfspec.recipe(nfspec.resolve(spec))
    assert "nfnet-nano" in nfspec.variants()
    assert (spec.input.train, spec.input.test, spec.input.channels) == (32, 32, 3)
    assert [len([b for b in plan.blocks if b.stage == s]) for s in range(4)] == [1, 1, 2, 1]
    assert sum(parameter.size for parameter in plan.parameters.values()) < 2_000_000
    assert (run.batch, run.learning_rate, run.recipe.epochs) == (64, 0.2, 15)
    assert not spec.recipe.flip  # a mirrored digit is none
    assert spec.finetune.ema_decay == 0.99
    assert spec.finetune.freeze == ()
