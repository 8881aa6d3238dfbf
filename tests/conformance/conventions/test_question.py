"""A subject's answers under other conventions, one answer at a time."""

import math
from dataclasses import replace

import pytest

from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.target import CONV, target
from nfspec.conformance.conventions.question import CLOSE, CLOSE_BY_EPS, Question
from nfspec.conformance.running.answers import PreparedCase, ask
from nfspec.plan import Pool

from . import wrong_networks
from . import wrong_subjects as wrong
from .local import SPEC, LocalWorker

GENERAL = target(None)


@pytest.fixture(scope="module")
def worker():
    return LocalWorker(f"{wrong.__name__}:Exact", "f32")


def question(worker, case):
    prepared = PreparedCase(case)
    answer = ask(prepared, [worker])[worker]
    return Question(prepared.asked, GENERAL, [answer])


VALID = replace(CONV, padding="valid", in_channels=4, out_channels=2)
MAX_POOL = Pool("op", ("x",), "max", 2, 2, "same")


@pytest.mark.parametrize(
    ("name", "op", "shape"),
    [
        ("WS-01", VALID, (2, 7, 6, 4)),
        ("WS-02", VALID, (2, 7, 6, 4)),
        ("POOL-01", MAX_POOL, (2, 6, 6, 3)),
        ("POOL-02", MAX_POOL, (2, 6, 6, 3)),
    ],
)
def test_another_shape_is_an_infinite_ratio(worker, name, op, shape):
    """A gradient's dy has the shape of the output as it was asked for."""
    asking = question(worker, Case(name, regime="normal", op=op, shape=shape))
    assert asking.ratio({}) <= 1.0
    assert asking.ratio({"conv.padding": "symmetric"}) == math.inf


def test_the_bands_of_a_part_of_a_network_are_not_those_of_the_rest(tmp_path):
    """With another eps flat channels are louder, and so is their rounding, so that the bands of the
    network asked for are too narrow; those of the stem, which is searched first, are its own."""
    spec = tmp_path / "small.toml"
    spec.write_text(SPEC)
    about, eps = target(str(spec)), {"ws.eps": 1e-5}
    case = Case("NET-03", spec=str(spec), digest=about.spec.digest, reduced=True)
    prepared = PreparedCase(case)
    worker = LocalWorker(f"{wrong_networks.__name__}:SmallEpsNetwork", "f32")
    answer = ask(prepared, [worker])[worker]
    asking = Question(prepared.asked, about, [answer])
    asking.ratios(answer, eps, exact=True, upto="stem")
    assert asking._close(answer, eps, "stem") == CLOSE
    assert asking._close(answer, eps, "") == CLOSE_BY_EPS
    asking.ratios(answer, eps, exact=True)
    assert asking._close(answer, eps, "") == CLOSE
