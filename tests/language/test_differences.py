"""Fields of specs, and which of them differ."""

import pytest

import nfspec
from nfspec.errors import SpecError
from nfspec.language.differences import Difference, differences, read, spec_fields
from nfspec.language.spec import Spec

HEAD = 'schema = "nfspec/1"\nname = "mine"\nsource = "a test"\n'


def saved(folder, text, name="mine.toml"):
    file = folder / name
    file.write_text(HEAD + text)
    return str(file)


def test_fields_are_flat_and_in_the_order_of_the_language():
    fields = spec_fields(nfspec.load("nfnet-f0"))
    assert list(fields)[:6] == [
        ("schema",),
        ("name",),
        ("source",),
        ("family",),
        ("input", "channels"),
        ("input", "train"),
    ]
    assert fields["stages", "depth"] == (1, 2, 6, 3)
    assert fields["agc", "roles"] == {}


def test_a_recipe_that_is_not_there_is_no_field():
    assert not [p for p in spec_fields(nfspec.load("timm/nfnet_f0")) if p[0] == "recipe"]


def test_a_column_at_full_length_is_the_same_as_one_value(tmp_path):
    text = """
extends = "nfnet-f0"
[stem]
kernel = [3, 3, 3, 3]
[stages]
alpha = [0.2, 0.2, 0.2, 0.2]
expansion = [0.5, 0.5, 0.5, 0.5]
[ws]
eps = [1e-4, 1e-4, 1e-4, 1e-4]
"""
    mine, _ = read(saved(tmp_path, text))
    assert differences(mine, read("nfnet-f0")[0]) == []


def test_betas_of_blocks_and_of_stages_are_the_same_where_they_are(tmp_path):
    by_stage, _ = read(
        saved(tmp_path, 'extends = "nfnet-f0"\nstages.beta = [1, 1, 0.5, 1]\n', "a.toml")
    )
    betas = "[[1.0], [1, 1.0], [0.5, 0.5, 0.5, 0.5, 0.5, 0.5], 1]"
    by_block, _ = read(saved(tmp_path, f'extends = "nfnet-f0"\nstages.beta = {betas}\n', "b.toml"))
    assert differences(by_stage, by_block) == []


def test_lists_that_are_no_columns_are_compared_as_they_are(tmp_path):
    text = (
        'extends = "nfnet-f0"\nstages.width = [512, 512, 512, 512]\ninput.std = [0.5, 0.5, 0.5]\n'
    )
    actual = differences(read("nfnet-f0")[0], read(saved(tmp_path, text))[0])
    assert actual == [
        Difference(("input", "std"), (0.229, 0.224, 0.225), (0.5, 0.5, 0.5)),
        Difference(("stages", "width"), (256, 512, 1536, 1536), (512, 512, 512, 512)),
    ]


def test_lists_of_one_value_and_of_two_lengths_are_different():
    path = ("stages", "depth")
    assert differences({path: (2, 2)}, {path: (2, 2, 2)}) == [Difference(path, (2, 2), (2, 2, 2))]


def test_tables_stay_together_in_the_order_of_the_language():
    actual = [d.path[0] for d in differences(read("deepmind")[0], read("timm")[0])]
    assert actual == sorted(actual, key=list(Spec.model_fields).index)


def test_a_field_of_one_side_only_has_none_on_the_other(tmp_path):
    text = 'extends = "nfnet-f0"\n[agc.roles]\ngain = 0.1\n[agc.names]\n"stem.*" = 0.2\n'
    mine, _ = read(saved(tmp_path, text))
    assert differences(mine, read("nfnet-f0")[0]) == [
        Difference(("agc", "roles", "gain"), 0.1, None),
        Difference(("agc", "names", "stem.*"), 0.2, None),
    ]


def test_name_and_source_are_left_out():
    a, b = read("nfnet-f0")[0], read("nfnet-f1")[0]
    assert a["name",] != b["name",] and a["source",] != b["source",]
    assert not {d.path for d in differences(a, b)} & {("name",), ("source",), ("schema",)}


def test_a_base_spec_is_what_it_states_and_no_network(tmp_path):
    fields, spec = read("timm-dm")
    assert spec is None
    assert fields["ws", "eps"] == 1e-5  # its own
    assert fields["conv", "padding"] == "same"  # of what it extends
    assert ("stages", "depth") not in fields
    own, spec = read(saved(tmp_path, 'extends = "timm-dm"\n'))
    assert spec is None
    assert differences(fields, own) == []


def test_a_mistake_is_still_an_error_where_fields_are_missing(tmp_path):
    file = saved(tmp_path, 'extends = "deepmind"\n[ws]\neps = -1.0\n')
    with pytest.raises(SpecError) as caught:
        read(file)
    assert "ws.eps" in [problem.path for problem in caught.value.problems]


def test_weight_standardisation_of_one_stage_makes_another_network():
    changes = {"ws.eps": [1e-4, 1e-4, 1e-4, 1e-6]}
    ours, theirs = nfspec.load("nfnet-f0", changes), nfspec.load("nfnet-f0")
    assert ours.digest != theirs.digest
    (found,) = differences(spec_fields(ours), spec_fields(theirs))
    one = nfspec.load(
        "nfnet-f0", {"ws.eps": [1e-4] * 4, "ws.eps_rule": ["max"] * 4, "ws.gain": True}
    )
    assert one.digest == theirs.digest
    assert found == Difference(("ws", "eps"), (1e-4, 1e-4, 1e-4, 1e-6), 1e-4)
