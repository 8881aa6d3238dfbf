"""Cases: one line of JSON there and back, and arrays that follow from it alone."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfspec import plan as p
from nfspec.conformance.cases import regimes
from nfspec.conformance.cases.case import KINDS, Case, Clip, digest, neutral
from nfspec.conformance.cases.target import CONV, target
from nfspec.conformance.properties import PROPERTIES
from nfspec.errors import InputError

OPS = {type(op).__name__: op for op in (*target(None).ops, *target(None).clips)}
POOL = {"type": "Pool", "kind": "avg", "window": 2, "stride": 2, "padding": "same"}
CLIP = {"type": "Clip", "role": "gain", "shape": [3], "unit": "tensor", "clipping": 0.1, "eps": 0.1}

numbers = st.integers(1, 4096)
floats = st.floats(1e-30, 1e30)
texts = st.text(max_size=8)
cases = st.builds(
    Case,
    property=texts,
    seed=st.integers(0, 2**40),
    regime=texts,
    mode=st.sampled_from(["f32", "tf32", "bf16", "f16"]),
    op=st.none()
    | st.sampled_from(list(OPS.values()))
    | st.builds(
        dataclasses.replace,
        st.just(CONV),
        in_channels=numbers,
        kernel=st.integers(1, 15),
        eps=floats,
        eps_rule=st.sampled_from(["max", "add", "add_to_std"]),
        padding=st.sampled_from(["same", "symmetric", "valid"]),
    )
    | st.builds(
        Clip,
        role=st.sampled_from(["kernel", "gain", "bias", "skip_gain"]),
        shape=st.lists(st.integers(1, 64), max_size=4).map(tuple),
        unit=st.sampled_from(["squeeze", "timm", "tensor"]),
        clipping=floats,
        eps=floats,
    ),
    shape=st.lists(st.integers(1, 16), max_size=4).map(tuple),
    spec=texts,
    digest=texts,
    block=texts,
    reduced=st.booleans(),
)


@given(cases)
@settings(max_examples=200, database=None, derandomize=True, deadline=None)
def test_a_line_there_and_back(case):
    line = case.line()
    assert "\n" not in line
    again = Case.parse(line)
    assert again == case
    assert (again.line(), again.id) == (line, case.id)
    assert Case.parse(case.fields()) == case


def test_every_kind_of_operation_is_in_the_grid():
    assert set(OPS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_operation(kind):
    case = Case("X-01", op=OPS[kind], shape=(2, 7, 6, 3))
    assert Case.parse(case.line()) == case
    assert json.loads(case.line())["op"]["type"] == kind


def test_what_is_at_its_default_is_left_out():
    assert Case("X-01").fields() == {"property": "X-01"}


def test_names_wiring_and_initial_values_are_left_out():
    """Convs of a network that differ in nothing else are the same case."""
    named = dataclasses.replace(
        CONV,
        name="stages.0.blocks.1.conv1",
        inputs=("stem",),
        kernel_init=p.Init("normal", 0.1),
        gain_init=2.0,
    )
    assert Case("X-01", op=neutral(named)) == Case("X-01", op=CONV)
    assert Case("X-01", op=named).line() == Case("X-01", op=CONV).line()


def test_equal_cases_have_equal_arrays():
    case = Case("WS-01", seed=3, op=CONV, shape=(2, 7, 6, 16))
    again = Case.parse(case.line())
    assert digest([regimes.conv(case)]) == digest([regimes.conv(again)])


@pytest.mark.parametrize("change", [{"seed": 4}, {"regime": "positive"}, {"mode": "bf16"}])
def test_other_cases_have_other_arrays(change):
    case = Case("WS-01", seed=3, op=CONV, shape=(2, 7, 6, 16))
    other = dataclasses.replace(case, **change)
    assert other.id != case.id
    assert digest([regimes.conv(other)]) != digest([regimes.conv(case)])


def test_streams_differ():
    case = Case("X-01")
    draws = {stream: case.rng(stream).integers(2**60) for stream in ("", "dy", "shift")}
    assert len(set(draws.values())) == 3
    assert draws["dy"] == case.rng("dy").integers(2**60)


def test_the_arrays_of_today_are_those_of_tomorrow():
    """Cases in reports of older versions can be replayed."""
    line = f'{{"property":"X-01","seed":1,"op":{json.dumps(POOL, separators=(",", ":"))}}}'
    case = Case.parse(line)
    assert case.line() == line
    assert case.rng("x").bit_generator.random_raw(2).tolist() == [
        10915191652805727882,
        9605847231987637568,
    ]


def test_a_digest_is_of_names_shapes_and_bits():
    x = np.zeros((2, 3), np.float32)
    same = digest([{"x": x}])
    assert same == digest([{"x": np.zeros((3, 2), np.float32).T.copy()}])
    others = [{"y": x}], [{"x": x.T}], [{"x": x.astype(np.float64)}], [{"x": -x}], [{"x": x}] * 2
    assert len({same, *map(digest, others)}) == 6


BAD = {
    "nothing": "",
    "half a line": '{"property":"X-01"',
    "a list": "[]",
    "a number": "1",
    "null": "null",
    "text": '"op"',
    "no property": "{}",
    "an unknown field": '{"property":"X-01","colour":1}',
    "an operation without a type": '{"property":"X-01","op":{}}',
    "an operation that is a number": '{"property":"X-01","op":5}',
    "an operation that is null": '{"property":"X-01","op":null}',
    "an unknown type": '{"property":"X-01","op":{"type":"Nope"}}',
    "a type that is a list": '{"property":"X-01","op":{"type":["WSConv"]}}',
    "an operation without its fields": '{"property":"X-01","op":{"type":"WSConv"}}',
    "a field twice": json.dumps({"property": "X-01", "op": {**POOL, "name": "x"}}),
    "a shape that is a number": '{"property":"X-01","shape":5}',
    "a shape of words": '{"property":"X-01","shape":"ab"}',
    "a shape that is not a number": '{"property":"X-01","shape":[NaN]}',
    "an integer of 5000 digits": '{"property":"X-01","seed":' + "9" * 5000 + "}",
}
# Refused with a traceback, or not before something else trips over them.
BAD_BUT_NOT_REFUSED = {
    "an infinite shape": '{"property":"X-01","shape":[Infinity]}',
    "lists in lists": "[" * 100_000,
    "tables in tables": '{"a":' * 100_000,
    "a property that is a number": '{"property":1}',
    "a property that is a list": '{"property":["X-01"]}',
    "a seed that is text": '{"property":"X-01","seed":"x"}',
    "a regime that is a list": '{"property":"X-01","regime":["normal"]}',
    "a field that is a table": json.dumps({"property": "X-01", "op": {**POOL, "kind": {}}}),
    "a unit that there is not": json.dumps({"property": "X-01", "op": {**CLIP, "unit": "x"}}),
}


# Refused before an array is made of them.
CONV_LINE = {"type": "WSConv", **Case("X-01", op=CONV).fields()["op"]}
LARGE = {
    "shape [2000, 2000, 100, 16]": {"op": CONV_LINE, "shape": [2000, 2000, 100, 16]},
    "windows": {"op": {**CONV_LINE, "kernel": 15}, "shape": [8, 99, 99, 16]},
    "shape": {"op": POOL, "shape": [2**40, 2**40, 1, 3]},
    "padded input": {"op": {**POOL, "window": 2**20}, "shape": [1, 8, 8, 3]},
    "op.kernel": {"op": {**CONV_LINE, "in_channels": 2**30}, "shape": [1, 8, 8, 16]},
    "output": {"op": {**CONV_LINE, "kernel": 1, "out_channels": 2**20}, "shape": [1, 99, 99, 1]},
    "shape [1000": {"shape": [10**400]},
    "shape [": {"op": {**CLIP, "shape": [2**20, 2**20]}},
    "at least 1": {"op": POOL, "shape": [2, -3, 8, 3]},
    "at least 1; found": {"op": CONV_LINE, "shape": [2, 0, 8, 16]},
    "ZeroDivisionError": {"op": {**CONV_LINE, "stride": 0}, "shape": [1, 8, 8, 16]},
    "ZeroDivisionError: ": {"op": {**CONV_LINE, "groups": 0}, "shape": [1, 8, 8, 16]},
}


@pytest.mark.parametrize("what", LARGE)
def test_what_is_too_large_is_refused(what):
    with pytest.raises(InputError, match="not a case: ") as caught:
        Case.parse(json.dumps({"property": "WS-01", **LARGE[what]}))
    message = str(caught.value)
    assert what in message and len(message) < 300 and "\n" not in message


def test_a_line_without_an_end_is_refused():
    with pytest.raises(InputError, match="a line of 1,000,029 characters; at most 65,536"):
        Case.parse('{"property":"X-01","spec":"' + "x" * 1_000_000 + '"}')


def refused(text):
    with pytest.raises(InputError, match="not a case: "):
        Case.parse(text)


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_case_is_refused(what):
    refused(BAD[what])


@pytest.mark.parametrize("what", BAD_BUT_NOT_REFUSED)
def test_what_should_be_refused_and_is_not(what):
    refused(BAD_BUT_NOT_REFUSED[what])


def test_every_essential_case_is_a_line():
    for asked in PROPERTIES.values():
        for case in asked.cases(target(None)):
            assert Case.parse(case.line()) == case
