"""The cases on which an explanation has to hold."""

import pytest

from nfspec.conformance.cases.regimes import CLIP_REGIMES, CONV_REGIMES
from nfspec.conformance.cases.target import target
from nfspec.conformance.conventions.drawn import MOST_WEIGHTS, UNITS, Draws, cases
from nfspec.conformance.conventions.question import Question
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.running.answers import PreparedCase, ask
from nfspec.plan import WSConv

from . import wrong_subjects as wrong
from .local import SPEC, LocalWorker

GRID = target(None)


@pytest.fixture(scope="module")
def about(tmp_path_factory):
    path = tmp_path_factory.mktemp("asked") / "small.toml"
    path.write_text(SPEC)
    return target(str(path))


@pytest.fixture(scope="module")
def worker():
    return LocalWorker(f"{wrong.__name__}:Right", "f32")


def question(name, about, worker):
    case = next(iter(PROPERTIES[name].cases(about)))
    answer = ask(PreparedCase(case), [worker])[worker]
    return Question(PROPERTIES[name], about, [answer])


def test_every_unit_of_agc_in_every_regime(about, worker):
    drawn = cases(question("AGC-01", about, worker), GRID)
    (convention,) = {(clip.unit, clip.clipping, clip.eps) for clip in about.clips}
    assert {(c.op.role, c.op.shape, c.regime) for c in drawn} == {
        (*unit, regime) for unit in UNITS for regime in CLIP_REGIMES
    }
    assert {(c.op.unit, c.op.clipping, c.op.eps) for c in drawn} == {convention}
    assert len({c.seed for c in drawn}) > 1


def test_the_sizes_of_the_grid_under_the_conventions_of_the_spec(about, worker):
    drawn = cases(question("WS-01", about, worker), GRID)
    own = {(op.eps, op.eps_rule, op.ddof, op.gamma, op.padding) for op in about.of(WSConv)}
    assert {(c.op.eps, c.op.eps_rule, c.op.ddof, c.op.gamma, c.op.padding) for c in drawn} == own
    assert {c.regime for c in drawn} == {*CONV_REGIMES}
    assert {c.op.stride for c in drawn} == {1, *(op.stride for op in about.of(WSConv))}
    kernels = {c.op.kernel for c in drawn}
    assert {1, 3, 5, 7} <= kernels and not any(kernel % 2 == 0 for kernel in kernels)
    assert all(c.op.parameters[0].size <= MOST_WEIGHTS for c in drawn)


def test_arrays_drawn_around_another_eps_are_sent(about, worker):
    """With those around the eps that was asked for, two that are smaller make no difference."""
    asked = question("AGC-01", about, worker)
    few = [case for case in cases(asked, GRID) if case.regime == "tiny"][:1]
    draws = Draws(asked, worker, few)
    (given,) = draws._like({"agc.eps": 1e-6})
    assert given.case == few[0]
    assert abs(given.calls[0]["parameter"]).max() < 1e-5
    assert given.sent is given.calls
    assert not list(draws._like({"attention.gain": 1.0}))
