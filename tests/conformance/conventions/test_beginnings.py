"""Networks that begin alike give the same taps as networks by themselves."""

from dataclasses import replace

import numpy as np
import pytest

from nfspec.conformance.cases.reduction import reduced_plan
from nfspec.conformance.cases.weights import trial_params
from nfspec.conformance.conventions.beginnings import Evaluated, cut, evaluate, same_until
from nfspec.conformance.properties.networks import Network
from nfspec.language.loader import load
from nfspec.plan import Activation

PLAN = reduced_plan(load("nfnet-f0"))
WEIGHTS = trial_params(PLAN, 0)
X = np.random.default_rng(0).standard_normal((1, 32, 32, 3))
TAPS = [*PLAN.taps]


def changed(where):
    """The network with another activation at a place."""
    ops = (replace(op, kind="relu") if op.name == where else op for op in PLAN.ops)
    assert any(isinstance(op, Activation) and op.name == where for op in PLAN.ops)
    return Network(replace(PLAN, ops=tuple(ops)))


@pytest.mark.parametrize(
    ("where", "shared"), [("stem.act0", 0), ("stages.1.blocks.0.act1", 2), ("final_act", 6)]
)
@pytest.mark.parametrize("upto", ["", "features"])
def test_the_taps_are_those_of_the_network_by_itself(where, shared, upto, monkeypatch):
    own, other = Network(PLAN), changed(where)
    known = Evaluated(own, own.forward(WEIGHTS, X))
    assert [same_until(own, other, tap) for tap in TAPS] == [i < shared for i in range(len(TAPS))]
    started = []
    right = Network.forward
    monkeypatch.setattr(
        Network, "forward", lambda self, *rest: (started.append(self.plan), right(self, *rest))[1]
    )
    taps = evaluate(other, WEIGHTS, X, upto, [known])
    (rest,) = started
    assert [*rest.taps] == TAPS[shared : TAPS.index(upto) + 1 if upto else None]
    wanted = right(replace(other, plan=cut(other.plan, upto)), WEIGHTS, X)
    assert [*taps] == [*wanted]
    for tap, value in wanted.items():
        np.testing.assert_array_equal(taps[tap], value)


def test_outputs_that_are_changed_have_nothing_in_common():
    own = Network(PLAN)
    assert not same_until(own, replace(own, change=lambda op, x, out: out), "stem")
    assert not same_until(own, replace(own, params=lambda params: params), "stem")
