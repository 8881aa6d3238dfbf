"""Properties: how a reply is judged, what cases are, and that exact results conform."""

import re
from dataclasses import replace

import numpy as np
import pytest

from nfspec.conformance.cases.case import Case, Clip, digest
from nfspec.conformance.cases.precision import MODES
from nfspec.conformance.cases.regimes import parameters
from nfspec.conformance.cases.target import CONV, SE, target
from nfspec.conformance.properties import MODULES, PROPERTIES, training
from nfspec.conformance.properties.base import (
    ALL_MODES,
    Expectation,
    Expected,
    all_regimes,
    judge,
    spread,
)
from nfspec.conformance.running.run import essential_cases
from nfspec.conformance.workers.server import WORK
from nfspec.plan import WSConv

from .exact_replies import expected_of, judged, reply
from .exact_subject import layer

GENERAL = target(None)
OWN = target("timm/test_nfnet")
LARGE = ("BLOCK-01", "NET-01", "TRAIN-01")  # of the general target's network; seconds to minutes
NETWORKS = ("NET-03", "NET-02", "NET-01", "BLOCK-01", "FOLD-01", "TRAIN-01", "STEP-01")
SMALL = [p for p in PROPERTIES.values() if p.id not in LARGE]
COMPUTED = ("call", "vjp", "twice", "network", "block")  # by the reference, in float64


def by_id(asked):
    return asked.id


ONE = Expected({"y": Expectation(np.ones(3), {"a": np.full(3, 0.25), "b": np.array(0.25)})})


def test_the_ratio_is_of_the_worst_element():
    worst = judge({"y": np.array([1.0, 1.25, 0.0])}, ONE).worst
    assert (worst.name, worst.ratio, worst.at, worst.over) == ("y", 2.0, (2,), 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_beyond_every_bound(value):
    worst = judge({"y": np.array([1.0, value, value], np.float32)}, ONE).worst
    assert (worst.ratio, worst.at, worst.over) == (np.inf, (1,), 2)
    assert worst.problem == "2 of 3 values are not finite"


def test_nan_under_an_rms_is_beyond_it():
    wanted = Expected({"y": Expectation(np.ones(3), {"a": np.array(1e30)}, rms=True)})
    assert judge({"y": np.array([1.0, np.nan, 1.0])}, wanted).ratio == np.inf


@pytest.mark.parametrize("shape", [(2,), (3, 1), (1, 3), ()])
def test_another_shape_is_beyond_every_bound(shape):
    worst = judge({"y": np.ones(shape)}, ONE).worst
    assert worst.ratio == np.inf
    assert worst.problem == f"expected shape (3,); found {shape}"


def test_an_output_that_is_not_there():
    worst = judge({"z": np.ones(3)}, ONE).worst
    assert (worst.name, worst.ratio, worst.problem) == ("y", np.inf, "not in the reply")


def test_outputs_that_may_be_left_out():
    wanted = Expected({**ONE.outputs, "z": ONE.outputs["y"]}, optional=frozenset({"y", "z"}))
    assert judge({"z": np.ones(3)}, wanted).ratio == 0.0
    assert judge({}, wanted).worst.problem == "none in the reply"
    assert judge({}, wanted).ratio == np.inf


def test_outputs_that_nobody_asked_for_are_not_judged():
    assert judge({"y": np.ones(3), "z": np.full(9, np.nan)}, ONE).ratio == 0.0


def test_a_bound_of_0_means_the_same_bits():
    wanted = Expected({"y": Expectation(np.array([1.0, 2.0]))})
    assert judge({"y": np.array([1.0, 2.0], np.float32)}, wanted).ratio == 0.0
    off = np.array([1.0, np.nextafter(np.float32(2.0), np.float32(3.0))], np.float32)
    worst = judge({"y": off}, wanted).worst
    assert (worst.ratio, worst.at) == (np.inf, (1,))


def test_a_bound_of_0_for_some_elements():
    wanted = Expected({"y": Expectation(np.zeros(2), {"a": np.array([0.0, 1.0])})})
    assert judge({"y": np.array([0.0, 0.5])}, wanted).ratio == 0.5
    assert judge({"y": np.array([1e-300, 0.5])}, wanted).ratio == np.inf


def test_an_rms_is_of_all_elements():
    wanted = Expected({"y": Expectation(np.zeros(4), {"a": np.array(2.0)}, rms=True)})
    assert judge({"y": np.array([0.0, 0.0, 0.0, 2.0])}, wanted).ratio == 0.5


def test_an_empty_output():
    wanted = Expected({"y": Expectation(np.zeros((0, 3)))})
    assert judge({"y": np.zeros((0, 3), np.float32)}, wanted).ratio == 0.0


def test_the_worst_of_several_outputs():
    wanted = Expected({"a": ONE.outputs["y"], "b": ONE.outputs["y"]})
    judgement = judge({"a": np.ones(3), "b": np.full(3, 1.25)}, wanted)
    assert (judgement.worst.name, judgement.ratio) == ("b", 0.5)


def test_a_case_for_each_operation_and_each_regime():
    cases = spread("X-01", [CONV], ("a", "b", "c"), lambda op: (1,))
    assert [(c.regime, c.seed) for c in cases] == [("a", 0), ("b", 1), ("c", 2)]
    cases = spread("X-01", [CONV, SE, CONV], ("a", "b"), lambda op: (1,))
    assert [(c.regime, type(c.op).__name__) for c in cases] == [
        ("a", "WSConv"),
        ("b", "SqueezeExcite"),
        ("a", "WSConv"),
    ]
    assert all_regimes(cases) == {"a", "b"}
    assert spread("X-01", [], ("a",), lambda op: (1,)) == []


def test_ids_and_titles():
    assert all(re.fullmatch(r"[A-Z]+-\d\d", p.id) for p in PROPERTIES.values())
    assert [p.id for p in PROPERTIES.values()] == list(PROPERTIES)
    assert len({p.title for p in PROPERTIES.values()}) == len(PROPERTIES)
    assert {p.tier for p in PROPERTIES.values()} == {0, 1, 2, 3, 4}
    assert all(set(p.modes) <= set(ALL_MODES) for p in PROPERTIES.values())


def test_ids_are_unique_before_they_are_keys():
    assert len(PROPERTIES) == sum(len(module.PROPERTIES) for module in MODULES)


@pytest.mark.parametrize("asked", PROPERTIES.values(), ids=by_id)
def test_a_worker_knows_the_request(asked):
    assert asked.request in WORK


@pytest.mark.parametrize("asked", SMALL, ids=by_id)
def test_cases_are_pure_and_meet_what_they_must(asked):
    """For each of several seeds, as a run may start from any."""
    about = OWN if asked.id in NETWORKS else GENERAL
    for seed in (0, 1, 1000):
        cases = essential_cases(asked, about, "f32", seed)
        assert cases and cases == essential_cases(asked, about, "f32", seed)
        assert len({case.id for case in cases}) == len(cases)
        met = set()
        for case in cases:
            assert case.property == asked.id
            calls, expected = expected_of(case)
            assert digest(calls) == digest(asked.calls(Case.parse(case.line())))
            assert all(np.isfinite(e.value).all() for e in expected.outputs.values())
            for e in expected.outputs.values():
                assert (e.bound >= 0.0).all() and np.isfinite(e.bound).all()
            met |= expected.met
        assert asked.must(cases) <= met
        if asked.tier >= 3:  # one case, whose seed changes nothing but the arrays
            break


@pytest.mark.parametrize("name", LARGE)
def test_cases_of_a_whole_network_are_pure_and_meet_what_they_must(name, monkeypatch):
    monkeypatch.setattr(training, "SAMPLES", 2)  # enough for a band above 0
    asked = PROPERTIES[name]
    cases = essential_cases(asked, OWN, "f32", 0)
    met = set()
    for case in cases:
        calls, expected = expected_of(case)
        assert digest(calls) == digest(asked.calls(case))
        assert all((e.bound > 0.0).all() for e in expected.outputs.values())
        met |= expected.met
    assert cases and asked.must(cases) <= met


JUDGED = [
    (p, mode) for p in SMALL if p.tier <= 1 for mode in p.modes if mode != "tf32"
]  # fmt: skip


@pytest.mark.parametrize("asked, mode", JUDGED, ids=lambda x: getattr(x, "id", x))
def test_exact_results_rounded_once_conform(asked, mode):
    cases = essential_cases(asked, GENERAL, mode, 0)
    # And every regime of every operation once more, of other seeds.
    regimes = dict.fromkeys(case.regime for case in cases)
    drawn = [replace(c, regime=r, seed=c.seed + 1) for c in cases for r in regimes]
    for case in dict.fromkeys([*cases, *drawn]):
        calls, _ = expected_of(case)
        judgement = judged(case, reply(case, calls))
        assert judgement.ratio <= 1.0, (case.line(), judgement.worst)


@pytest.mark.parametrize("asked", [p for p in SMALL if p.request == "call"], ids=by_id)
def test_a_call_has_the_parameters_of_its_operation(asked):
    for case in essential_cases(asked, GENERAL, "f32", 0):
        if isinstance(case.op, Clip):
            continue
        inputs = ["x", "shortcut"][: len(case.op.inputs)]
        for call in expected_of(case)[0]:
            assert list(call) == [*inputs, *parameters(case.op)]
            assert {n: call[n].shape for n in parameters(case.op)} == parameters(case.op)


def test_a_gradient_clipped_twice_may_move_by_a_bit():
    """A clipped gradient may be over its limit by rounding, and is then clipped again."""
    asked = PROPERTIES["AGC-02"]
    for case in essential_cases(asked, GENERAL, "f32", 0):
        calls, _ = expected_of(case)
        once = reply(case, calls)["y0"]
        clipped = once != calls[0]["gradient"]
        down = np.nextafter(once, np.zeros((), np.float32))
        for moved, kept in ((clipped, True), (~clipped, False)):
            ratio = judged(case, {"y0": once, "y1": np.where(moved, down, once)}).ratio
            assert not moved.any() or (ratio <= 1.0) == kept


# A channel whose n·v is 15 times eps, and below it when its kernel is a quarter.
NEAR_EPS = (
    '{"property":"WS-04","seed":7,"regime":"positive","mode":"tf32","op":{"type":"WSConv",'
    '"in_channels":4,"out_channels":8,"kernel":1,"stride":1,"groups":1,"padding":"same",'
    '"eps":0.0001,"eps_rule":"max","ddof":0,"dtype":"float32","gamma":1.0},"shape":[2,7,6,4]}'
)


def test_channels_near_eps_may_be_scaled():
    case = Case.parse(NEAR_EPS)
    assert judged(case, reply(case, expected_of(case)[0])).ratio <= 1.0


@pytest.mark.parametrize("asked", [p for p in SMALL if p.tier <= 1], ids=by_id)
def test_a_reply_of_zeros_does_not(asked):
    """Not for every case: some units of AGC are 0. And nothing equals itself in vain."""
    if asked.id in ("WS-03", "WS-04", "AGC-02", "AGC-03", "AGC-04"):
        return  # of two results that have to be the same, whatever they are
    ratios = []
    for case in essential_cases(asked, GENERAL, "f32", 0):
        calls, _ = expected_of(case)
        zeros = {n: np.zeros_like(v) for n, v in reply(case, calls).items()}
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios.append(judged(case, zeros).ratio)
    assert max(ratios) > 1.0


@pytest.mark.parametrize("asked", [p for p in SMALL if p.tier <= 1], ids=by_id)
def test_an_empty_reply_does_not(asked):
    case = essential_cases(asked, GENERAL, "f32", 0)[0]
    assert judged(case, {}).ratio == np.inf


@pytest.mark.parametrize("name", [*NETWORKS, "WEIGHTS-01"])
def test_exact_networks_conform(name, monkeypatch):
    monkeypatch.setattr(training, "SAMPLES", 2)
    for case in essential_cases(PROPERTIES[name], OWN, "f32", 0):
        assert judged(case, reply(case, expected_of(case)[0])).ratio <= 0.5


def test_networks_may_have_fewer_taps():
    asked = PROPERTIES["NET-03"]
    case, *_ = essential_cases(asked, OWN, "f32", 0)
    calls, expected = expected_of(case)
    outputs = {"logits": reply(case, calls)["logits"]}
    assert judge(outputs, expected).ratio <= 0.5
    assert judge({}, expected).ratio == np.inf
    assert judge({"logits": outputs["logits"][:1]}, expected).ratio == np.inf


def test_a_networks_bound_is_wider_in_narrow_modes():
    asked = PROPERTIES["NET-03"]
    case, *_ = essential_cases(asked, OWN, "f32", 0)
    calls, _ = expected_of(case)
    widths = [
        asked.expect(replace(case, mode=mode), calls).outputs["logits"].bound.item()
        for mode in ("f32", "tf32", "bf16")
    ]
    assert sorted(widths) == widths and widths[2] > 100 * widths[0]


def test_the_mode_canary_tells_the_modes_apart():
    """1 + 2^-12 enters as it is, or as 1."""
    asked = PROPERTIES["MODE-01"]
    (case,) = essential_cases(asked, GENERAL, "f32", 0)
    calls = asked.calls(case)
    full, *others = (
        asked.expect(replace(case, mode=mode), calls).outputs["sign"].value for mode in MODES
    )
    assert set(np.unique(full)) == {-1.0, 1.0}
    for other in others:
        assert not other.any()


@pytest.mark.parametrize("rule", ["max", "add", "add_to_std"])
def test_probes_of_integers_do_not_depend_on_an_eps_that_is_fixed(rule):
    """They ask for the target's own eps, and have the same bits with any other."""
    convs = [replace(op, eps_rule=rule, eps=1e-3) for op in GENERAL.of(WSConv)]
    asked = PROPERTIES["EXACT-01"]
    cases = list(asked.cases(replace(GENERAL, ops=tuple(convs))))
    assert cases and {case.op.eps for case in cases} == {1e-3}
    for case in cases:
        calls = asked.calls(case)
        for eps in (1e-12, 1.0):
            op = replace(case.op, eps=eps)
            other = {"y": layer(op, *map(np.float64, calls[0].values()))}
            assert judge(other, asked.expect(case, calls)).ratio == 0.0


def test_probes_of_integers_ask_for_no_other_gamma_and_variance():
    ops = [op for op in GENERAL.of(WSConv) if op.gamma != 1.0 or op.ddof]
    assert ops and not list(PROPERTIES["EXACT-01"].cases(replace(GENERAL, ops=tuple(ops))))
    agc = [case.op for case in PROPERTIES["EXACT-04"].cases(GENERAL)]
    assert {clip.eps for clip in agc} == {clip.eps for clip in GENERAL.clips}


@pytest.mark.parametrize(
    "changes", [{"eps_rule": "add", "eps": 1e-2}, {"ddof": 1}, {"gamma": 1.7}, {"gamma": 0.25}]
)
def test_the_mode_canary_is_about_nothing_else(changes):
    asked = PROPERTIES["MODE-01"]
    (case,) = asked.cases(GENERAL)
    calls = asked.calls(case)
    for mode in MODES:
        of_mode = replace(case, mode=mode)
        (x, *values) = map(np.float64, calls[0].values())
        y = layer(replace(case.op, **changes), np.round(x) if mode != "f32" else x, *values)
        seen = asked.reduce(of_mode, calls, {"y": y})
        assert judge(seen, asked.expect(of_mode, calls)).ratio == 0.0
