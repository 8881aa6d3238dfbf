"""A network folded for inference whose weights change after it has been used.

What was made of the weights for speed, such as a kernel packed for a library, has to follow.
"""

from __future__ import annotations

from nfspec import reference
from nfspec.conformance.bounds.bands import bands
from nfspec.conformance.case import Arrays, Case
from nfspec.conformance.precision import MODES
from nfspec.conformance.properties.base import Array, Expectation, Expected, Property
from nfspec.conformance.properties.networks import (
    SAMPLES,
    case_plan,
    network,
    photographs,
    weights,
)
from nfspec.conformance.reduction import SIDE
from nfspec.reference.rounding import Rounding

IMAGES = 2

# Ways in which users change weights, in the order in which they are tried.
WAYS = (
    "assign",  # each variable, Keras's way
    "set_weights",
    "load_weights",  # from Keras's file
    "optimizer",  # a step of one
    "load_state_dict",  # PyTorch's from here
    "in place",
    "data",  # other tensors in the place of the parameters' own
    "torch optimizer",
)


def folded_weights(case: Case) -> list[Arrays]:
    """The network's weights, and those that each way sets."""
    return [weights(case.spec, True, case.seed + i) for i in range(1 + len(WAYS))]


def _expect(case: Case, calls: list[Arrays]) -> Expected:
    """The network's own logits: folding changes them by rounding alone."""
    plan, x = case_plan(case), calls[0]["x"]
    outputs = {}
    for name, params in zip(("before", *WAYS), folded_weights(case), strict=True):

        def run(noise: Rounding | None = None, params: Arrays = params) -> dict[str, Array]:
            return {"logits": reference.forward(plan, params, x, rounding=noise)["logits"]}

        exact = run()
        band = bands(run, exact, MODES[case.mode], SAMPLES)["logits"]
        outputs[name] = Expectation(exact["logits"], {"rounding": band}, rms=True)
    return Expected(outputs, optional=frozenset(WAYS[1:]))


FOLD_01 = Property(
    id="FOLD-01",
    tier=3,
    title="folded network: logits follow its weights, in whichever way they are changed",
    request="folded",
    method="folded",
    cases=network("FOLD-01", True),
    calls=lambda case: [{"x": photographs(case, IMAGES, SIDE)}],
    expect=_expect,
    modes=("f32",),
    draws=False,
)

PROPERTIES = (FOLD_01,)
