"""Stems and heads by name."""

import inspect
import re

import pytest

import nfspec
from nfspec.language.loader import VARIANTS, load
from nfspec.language.named import HEADS, STEMS

from specs import HEAD, complaints, write
from standin import timm

QUAD = '[stem]\ntype = "deep_quad"\n'
FIELDS = ("width", "kernel", "stride", "pool")


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def stem(source, over=()):
    table = load(source, over).stem
    return tuple(getattr(table, field) for field in FIELDS)


# the names


def convs_of(name, width):
    """Channels, kernel and stride of each conv of timm's stem, and its pool."""
    from torch import nn

    made, _, _ = timm.models.nfnet.create_stem(3, width, name, nn.Conv2d, nn.ReLU)
    convs = [layer for layer in made if isinstance(layer, nn.Conv2d)]
    return (
        tuple(conv.out_channels for conv in convs),
        {conv.kernel_size[0] for conv in convs},
        tuple(conv.stride[0] for conv in convs),
        "max" if any(isinstance(layer, nn.MaxPool2d) for layer in made) else "none",
    )


@pytest.mark.parametrize("width", [128, 100, 3])
@pytest.mark.parametrize("name", STEMS)
def test_a_name_is_timms(name, width):
    if width < STEMS[name].least:
        return
    write(f'{HEAD}[stem]\ntype = "{name}"\nwidth = {width}\n')
    widths, kernel, stride, pool = stem("x.toml")
    strides = stride if isinstance(stride, tuple) else (stride,)
    plain = name.replace("tiered_pool", "tiered")  # timm has all but this one
    theirs = convs_of(plain, width)
    assert (widths, {kernel}, strides) == theirs[:3]
    assert pool == ("max" if name.endswith("_pool") else "none")
    assert plain != name or pool == theirs[3]


def test_all_names_of_timm_are_here():
    source = inspect.getsource(timm.models.nfnet.create_stem)
    theirs = re.findall(r"'(\w+)'", re.search(r"assert stem_type in \((.*)\)", source)[1])
    assert {*STEMS} - {"deep_tiered_pool"} == {*theirs}


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("nfnet-f0", "deep_quad"),
        ("nf-resnet-50", "7x7_pool"),
        ("nf-regnet-b0", "3x3"),
        ("timm/nfnet_l0", "deep_quad"),
        ("timm/nf_resnet26", "7x7_pool"),
        ("timm/test_nfnet", "deep_quad"),
    ],
)
def test_a_named_stem_is_the_one_that_is_listed(network, name):
    """To the digest, from a stem of another kind."""
    listed = load(network)
    other = {"stem.width": [8, 16], "stem.kernel": 5, "stem.stride": [1, 2], "stem.pool": "max"}
    named = {"stem.type": name, "stem.width": listed.stem.width[-1]}
    write(
        HEAD.replace("nfnet-f0", network) + "[stem]\nwidth = [8, 16]\nkernel = [5, 3]\n"
        'stride = [1, 2]\npool = "max"\n',
        "other.toml",
    )
    assert load(network, other).digest != listed.digest
    assert load("other.toml", named).digest == listed.digest


@pytest.mark.parametrize(
    ("family", "networks"),
    [
        ("nfnet", ["nfnet-f0", "nfnet-f7+"]),
        ("nf_regnet", [f"nf-regnet-b{n}" for n in range(9)]),
        ("nf_resnet", ["nf-resnet-50", "nf-resnet-600"]),
    ],
)
def test_a_named_head_is_that_of_its_family(family, networks):
    for network in networks:
        over = {"head.type": family}
        other = {"head.conv": "width", "head.conv_width": 7, "head.init_std": 0.5}
        plain, named = (nfspec.resolve(load(network, each)) for each in ({}, over))
        assert nfspec.resolve(load(network, other)).parameters != plain.parameters
        assert named.parameters == plain.parameters, network
        assert load(network, over).head.dropout == load(network).head.dropout


def test_the_heads_are_of_the_families_that_weights_have():
    assert {*HEADS} == {"nfnet", "nf_regnet", "nf_resnet"}


# what is stronger


def test_a_name_replaces_the_fields_below_it():
    write(HEAD.replace("nfnet-f0", "nf-resnet-50") + QUAD)
    assert stem("x.toml") == ((8, 16, 32, 64), 3, (2, 1, 1, 2), "none")
    write(HEAD.replace("nfnet-f0", "x.toml") + '[stem]\ntype = "7x7_pool"\n', "y.toml")
    assert stem("y.toml") == ((64,), 7, 2, "max")
    write(HEAD + QUAD + "width = 80\n")
    assert stem("y.toml") == ((80,), 7, 2, "max")


def test_a_field_beside_the_name_is_stronger():
    write(HEAD + QUAD + 'pool = "max"\nwidth = [16, 32, 64, 192]\nkernel = [5, 3, 3, 3]\n')
    assert stem("x.toml") == ((16, 32, 64, 192), (5, 3, 3, 3), (2, 1, 1, 2), "max")
    write(f'{HEAD}[head]\ninit_std = 0.5\ntype = "nf_resnet"\n')
    assert (load("x.toml").head.conv, load("x.toml").head.init_std) == ("none", 0.5)


def test_fields_of_a_child_are_stronger_and_its_number_is_for_the_parents_name():
    write(HEAD + QUAD + "width = 64\n", "parent.toml")
    child = HEAD.replace("nfnet-f0", "parent.toml")
    write(child + "[stem]\nwidth = 256\n")
    assert stem("x.toml") == ((32, 64, 128, 256), 3, (2, 1, 1, 2), "none")
    write(child + "[stem]\nwidth = [8, 8, 8, 8]\nstride = 1\n")
    assert stem("x.toml") == ((8, 8, 8, 8), 3, 1, "none")
    write(HEAD.replace("nfnet-f0", "x.toml") + "[stem]\nwidth = 80\n", "y.toml")
    assert stem("y.toml") == ((10, 20, 40, 80), 3, 1, "none")
    write(child + "[head]\nclasses = 7\n")
    assert stem("x.toml") == stem("parent.toml")


@pytest.mark.parametrize("own", ["", 'type = "3x3"\n'])
def test_a_list_with_another_number_of_convs_ends_the_name(own):
    """A number below it would change how many there are, or not fit their strides."""
    write(HEAD + "[stem]\ntype = '3x3'\n", "parent.toml")
    child = HEAD.replace("nfnet-f0", "parent.toml")
    write(f"{child}[stem]\n{own}width = [16, 32]\n", "child.toml")
    assert stem("child.toml") == ((16, 32), 3, 2, "none")
    with pytest.raises(nfspec.SpecError, match="expected an array, with the channels of each conv"):
        load("child.toml", {"stem.width": 64})
    named = {"stem.type": "deep", "stem.width": 64}
    assert stem("child.toml", named)[0] == (32, 32, 64)
    assert stem("child.toml", {"stem.type": "deep"})[0] == (16, 16, 32)


def test_the_order_of_values_over_a_spec_is_no_matter():
    values = {"stem.type": "deep_quad", "stem.pool": "max", "stem.width": 32}
    expected = ((4, 8, 16, 32), 3, (2, 1, 1, 2), "max")
    assert stem("nf-regnet-b0", values) == expected
    assert stem("nf-regnet-b0", dict(reversed(values.items()))) == expected
    assert stem("nf-regnet-b0", {"stem": {"type": "deep_quad", "pool": "max", "width": 32}}) == (
        expected
    )


def test_origins_are_the_lines_of_the_name_and_of_the_width():
    write(HEAD + "[stem]\nwidth = 64\npadding = 'valid'\ntype = '3x3'\n")
    origins = {field: str(load("x.toml").origin(("stem", field))) for field in FIELDS}
    assert origins == {"width": "x.toml:6"} | dict.fromkeys(FIELDS[1:], "x.toml:8")
    write(HEAD.replace("nfnet-f0", "x.toml") + "[stem]\nwidth = 32\n", "y.toml")
    origins = {field: str(load("y.toml").origin(("stem", field))) for field in FIELDS}
    assert origins == {"width": "y.toml:6"} | dict.fromkeys(FIELDS[1:], "x.toml:8")


def test_a_spec_knows_no_names():
    write(HEAD + QUAD + '[head]\ntype = "nfnet"\n')
    spec = load("x.toml")
    assert "type" not in str(spec.model_dump()["stem"] | spec.model_dump()["head"])
    assert spec.digest == load("nfnet-f0").digest


# what is wrong


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[stem]\ntype = "deep_qaud"\n',
            ['6:1: stem.type: expected "3x3", "3x3_pool", "7x7", "7x7_pool", "deep", "deep_pool", '
             '"deep_tiered", "deep_tiered_pool" or "deep_quad"; found "deep_qaud"; did you mean '
             '"deep_quad"? [SPEC-VALUE]'],
        ),
        (
            "[head]\ntype = 3\n",
            ['6:1: head.type: expected "nfnet", "nf_regnet" or "nf_resnet"; found 3 [SPEC-VALUE]'],
        ),
        (
            f"{QUAD}width = 7\n",
            ["7:1: stem.width: must be at least 8 for this stem; found 7 [SPEC-VALUE]"],
        ),
        (
            f"{QUAD}width = 70000\n",
            ["7:1: stem.width: must be at most 65536 for this stem; found 70000 [SPEC-VALUE]"],
        ),
        (
            f"{QUAD}width = true\n",
            ["7:1: stem.width: expected a whole number, the channels of the last conv, or an "
             "array; found true [SPEC-TYPE]"],
        ),
        (
            f"{QUAD}width = [1, 2]\n",
            ["6:1: stem.stride: has 4 entries, but the length of stem.width is 2 [SPEC-LENGTH]"],
        ),
        (
            "[stem]\nwidth = 64\n",
            ['6:1: stem.width: expected an array, with the channels of each conv; found 64; a '
             'number is for a stem with a name, such as stem.type = "deep_quad" [SPEC-TYPE]'],
        ),
        (
            "[stem]\ntipe = '3x3'\n",
            ['6:1: stem.tipe: unknown key; did you mean "type"? [SPEC-UNKNOWN-KEY]'],
        ),
        (
            "[stem]\nwidth = [1, 2, 3]\nkernel = 4\ntype = 'x'\n[head]\ndropout = 2\n",
            [
                '8:1: stem.type: expected "3x3", "3x3_pool", "7x7", "7x7_pool", "deep", '
                '"deep_pool", "deep_tiered", "deep_tiered_pool" or "deep_quad"; found "x" '
                "[SPEC-VALUE]",
                "10:1: head.dropout: must be less than 1.0; found 2 [SPEC-VALUE]",
            ],
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_once(text, expected):
    assert complaints(write(HEAD + text)) == [f"x.toml:{line}" for line in expected]


def test_a_stem_below_that_is_too_narrow_is_named():
    write(HEAD + "[stem]\nwidth = [4]\nstride = 2\n", "y.toml")
    assert complaints(write(HEAD.replace("nfnet-f0", "y.toml") + QUAD)) == [
        "x.toml:6:1: stem.type: stem.width must be at least 8 for this stem; found 4 [SPEC-VALUE]"
    ]


def test_a_name_without_a_width_anywhere_lacks_the_width():
    text = (VARIANTS / "nfnet-f0.toml").read_text()
    named = re.sub(r"\[stem\]\n(.+\n)+", QUAD, text)
    assert complaints(write(named)) == [
        "x.toml:12:1: stem.width: missing; give it here or in a spec that this one extends "
        "[SPEC-MISSING]"
    ]


def test_a_number_is_no_mistake_of_its_own_where_its_name_is_one_or_is_not_there():
    (problem,) = complaints(write(HEAD + "[stem]\ntype = 'x'\nwidth = 64\n"))
    assert "stem.type" in problem
    (problem,) = complaints(write(HEAD.replace("nfnet-f0", "no.toml") + "[stem]\nwidth = 64\n"))
    assert "SPEC-EXTENDS" in problem


@pytest.mark.parametrize("text", ["stem = 3\n", "[[stem]]\ntype = '3x3'\n", "[stem.type]\na = 1\n"])
def test_tables_of_another_shape_are_told(text):
    assert complaints(write(HEAD + text))


def test_widths_in_python_are_a_list_or_a_tuple():
    for given in ([16, 32, 64], (16, 32, 64)):
        over = {"stem.type": "deep", "stem.width": given}
        assert stem("nf-resnet-50", over)[0] == (16, 32, 64)
