"""Properties of a folded network whose weights change after its first use.

Some frameworks keep a second copy of the weights for speed, such as a kernel packed for a library.
That copy has to follow the weights.
"""

from __future__ import annotations

from dataclasses import replace

from nfspec.conformance.cases.case import Arrays, Case
from nfspec.conformance.cases.reduction import SIDE
from nfspec.conformance.properties.base import Array, Expected, Property
from nfspec.conformance.properties.networks import (
    Network,
    as_asked,
    case_plan,
    network,
    photographs,
    weights,
    within_bands,
)
from nfspec.plan import Plan, WSConv
from nfspec.reference.rounding import Rounding

IMAGES = 2

# The ways in which users change weights, in the order in which they are tried.
WAYS = (
    "assign",  # by Keras, each variable by itself
    "set_weights",
    "load_weights",  # from a file that Keras saved
    "optimizer",  # a step of a Keras optimizer
    "load_state_dict",  # this and the following are PyTorch's
    "in place",
    "data",  # a new tensor is assigned to `parameter.data`
    "torch optimizer",
)


def folded_weights(case: Case) -> list[Arrays]:
    """The weights to begin with, then one set of new weights for each of `WAYS`."""
    return [weights(case.spec, True, case.seed + i) for i in range(1 + len(WAYS))]


def _with_new_weights(network: Network, plan: Plan) -> Network:
    """A network after its weights were changed to those of a worker, which folds them by the
    conventions of the case's plan, whatever those of the network are."""
    convs = {op.name: op for op in plan.ops if isinstance(op, WSConv)}
    ops = (
        replace(convs[op.name], inputs=op.inputs, padding=op.padding)
        if isinstance(op, WSConv)
        else op
        for op in network.plan.ops
    )
    return replace(network, plan=replace(network.plan, ops=tuple(ops)))


def _expect(network: Network, case: Case, calls: list[Arrays]) -> Expected:
    """The logits of the network that is not folded; folding changes them by rounding alone."""
    if network.params:
        return Expected({})  # weights that are folded have no parameters left to change
    x, changed = calls[0]["x"], _with_new_weights(network, case_plan(case))
    outputs = {}
    for name, params in zip(("before", *WAYS), folded_weights(case), strict=True):

        def run(
            noise: Rounding | None = None,
            params: Arrays = params,
            present: Network = network if name == "before" else changed,
        ) -> dict[str, Array]:
            return {"logits": present.forward(params, x, noise)["logits"]}

        outputs[name] = within_bands(run, case)["logits"]
    return Expected(outputs, optional=frozenset(WAYS[1:]))


FOLD_01 = Property(
    id="FOLD-01",
    tier=3,
    title="folded network: logits follow its weights, in whichever way they are changed",
    request="folded",
    method="folded",
    cases=network("FOLD-01", True),
    calls=lambda case: [{"x": photographs(case, IMAGES, SIDE)}],
    expect=as_asked(_expect),
    of_network=_expect,
    modes=("f32",),
    draws=False,
)

PROPERTIES = (FOLD_01,)
