"""Tiers 2 to 4: blocks, whole networks, and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from nfspec import reference
from nfspec.conformance.bounds.bands import bands
from nfspec.conformance.cases.case import DRAWN, FLAT, GAINS, Arrays, Case
from nfspec.conformance.cases.precision import MODES
from nfspec.conformance.cases.reduction import SIDE
from nfspec.conformance.cases.sides import odd_and_even
from nfspec.conformance.cases.target import Target, plan_of
from nfspec.conformance.cases.weights import changed_params, trial_params
from nfspec.conformance.properties.base import (
    Array,
    Expectation,
    Expected,
    Outputs,
    Property,
    all_regimes,
)
from nfspec.errors import InputError
from nfspec.plan import INPUT, Block, Operation, Plan
from nfspec.plan.clipping import ClipRule
from nfspec.plan.initialise import init
from nfspec.reference.rounding import Rounding

SAMPLES = 3  # perturbed runs of blocks and networks, whose rms is over many elements
NETWORK_SIDE = 64  # px of the whole network's images


def case_plan(case: Case) -> Plan:
    """The plan of a case: a network, whole or cut, or one of its blocks."""
    plan = plan_of(case.spec, case.reduced, case.drops)
    return block_plan(plan, case.block) if case.block else plan


def block_plan(plan: Plan, name: str) -> Plan:
    """A block as a plan of its own, which reads the image in place of the block before it."""
    row = next(row for row in plan.blocks if row.name == name)
    own = {op.name: op for op in plan.ops if plan.section(op) == name}
    ops = tuple(
        replace(op, inputs=tuple(at if at in own else INPUT for at in op.inputs))
        for op in own.values()
    )
    return replace(
        plan,
        channels=row.in_channels,
        ops=ops,
        taps=MappingProxyType({"block": plan.taps[name]}),
        blocks=(row,),
    )


def weights(source: str, reduced: bool, seed: int, regime: str = "normal") -> Arrays:
    """Weights of a network, every gain and bias away from its initial value."""
    if regime in (FLAT, GAINS):
        return _changed_weights(source, reduced, seed, regime)
    return _usual_weights(source, reduced, seed)


@lru_cache(maxsize=2)  # of the whole network and of the one that is cut down
def _usual_weights(source: str, reduced: bool, seed: int) -> Arrays:
    return trial_params(plan_of(source, reduced), seed)


@lru_cache(maxsize=2)
def _changed_weights(source: str, reduced: bool, seed: int, regime: str) -> Arrays:
    usual = _usual_weights(source, reduced, seed)
    return changed_params(plan_of(source, reduced), usual, seed, regime)


def case_weights(case: Case) -> Arrays:
    """The weights of a case: of a whole network, also where it is about a block."""
    return weights(case.spec, case.reduced, case.seed, case.regime)


def photographs(case: Case, count: int, side: int) -> np.ndarray[Any, Any]:
    """The images of a case: in the case's own shape if it has one, of another mean and scale where
    gains are.

    Raises:
        InputError: The case's shape is none of such images.
    """
    channels = plan_of(case.spec, case.reduced).channels
    shape = case.shape or (count, side, side, channels)
    if len(shape) != 4 or shape[-1] != channels:
        raise InputError(
            f"shape: expected (images, height, width, {channels}); found {list(shape)}"
        )
    x = case.rng("x").standard_normal(shape)
    return (3.0 + 2.0 * x if case.regime == GAINS else x).astype(np.float32)


@lru_cache(maxsize=2)
def _block_inputs(
    source: str, reduced: bool, seed: int, regime: str, shape: tuple[int, ...]
) -> dict[str, np.ndarray[Any, Any]]:
    """The input of each block of a network, in float32, for images drawn from the seed."""
    plan = plan_of(source, reduced)
    case = Case("BLOCK-01", seed=seed, regime=regime, spec=source, shape=shape, reduced=reduced)
    x = photographs(case, 2, NETWORK_SIDE)
    first = next(op.inputs[0] for op in plan.ops if plan.section(op) == plan.blocks[0].name)
    before = [first, *(plan.taps[row.name] for row in plan.blocks[:-1])]
    taps = {row.name: at for row, at in zip(plan.blocks, before, strict=True)}
    values = reference.forward(plan, case_weights(case), x, taps)
    return {name: value.astype(np.float32) for name, value in values.items()}


def _distinct(plan: Plan) -> Iterable[Block]:
    """The first block of each shape; two that differ in beta alone are one, but for the first two
    of a stage, whose betas come from different rules."""
    seen: dict[Block, Block] = {}
    for row in plan.blocks:
        key = replace(
            row, name="", index=min(row.index, 1), beta=0.0, expected_variance=0.0,
            drop_rate=0.0, residual="",
        )  # fmt: skip
        seen.setdefault(key, row)
    return seen.values()


def _block_cases(target: Target) -> list[Case]:
    """The distinct blocks of the network; those of the reduced network in each regime."""
    whole = Case("BLOCK-01", spec=target.source, digest=target.spec.digest)
    plan = plan_of(target.source, True)
    odd, even = odd_and_even(plan)
    # Of one shape, so that a framework compiles a block once for both.
    shape = (1, odd, even, plan.channels)
    return [
        *(replace(whole, block=row.name) for row in _distinct(target.plan)),
        *(
            replace(whole, reduced=True, block=row.name, regime=regime, shape=shape)
            for regime in (FLAT, GAINS)
            for row in _distinct(plan)
        ),
    ]


def within_bands(
    run: Callable[[Rounding | None], Mapping[str, Array]],
    case: Case,
    samples: int = SAMPLES,
    *,
    elementwise: frozenset[str] = frozenset(),
) -> dict[str, Expectation]:
    """The exact outputs of the reference, each within its Monte-Carlo band: see `bounds.bands`.

    Args:
        run: The reference; exact if it is given None.
        case: The case, which has the mode.
        samples: Number of perturbed runs.
        elementwise: Outputs whose elements have a band each; of the others the rms has one.
    """
    exact = run(None)
    band = bands(run, exact, MODES[case.mode], samples, elementwise=elementwise)
    return {
        name: Expectation(value, {"rounding": band[name]}, rms=name not in elementwise)
        for name, value in exact.items()
    }


@dataclass(frozen=True)
class Network:
    """The network that answers are compared with: that of a case, or another one in its place.

    Attributes:
        plan: The network.
        params: Function of the parameters as a case has them, which returns those in their place.
        rules: Canonical name to rule of clipping; those of the plan if None.
        change: Function that changes outputs of operations, see `nfspec.reference.forward`.
        like: Expectations whose bands are taken for its own; its own are computed if None.
    """

    plan: Plan
    params: Callable[[Arrays], Arrays] | None = None
    rules: Mapping[str, ClipRule] | None = None
    change: Callable[[Operation, Array, Array], Array] | None = None
    like: Mapping[str, Expectation] | None = None

    def forward(self, weights: Arrays, x: Any, noise: Rounding | None = None) -> dict[str, Array]:
        """Its taps, given weights that may be those of a larger network."""
        own = {name: weights[name] for name in self.plan.parameters}
        params = self.params(own) if self.params else own
        return reference.forward(self.plan, params, x, rounding=noise, change=self.change)

    def within(
        self,
        run: Callable[[Rounding | None], Mapping[str, Array]],
        case: Case,
        samples: int = SAMPLES,
        *,
        elementwise: frozenset[str] = frozenset(),
    ) -> dict[str, Expectation]:
        """The exact outputs of a run of it, each within a band: see `within_bands`."""
        if self.like is None:
            return within_bands(run, case, samples, elementwise=elementwise)
        return {name: replace(self.like[name], value=y) for name, y in run(None).items()}


def as_asked(
    of_network: Callable[[Network, Case, list[Arrays]], Expected],
) -> Callable[[Case, list[Arrays]], Expected]:
    """The right outputs of a case's own network, given those of any network."""
    return lambda case, calls: of_network(Network(case_plan(case)), case, calls)


def _block_call(case: Case) -> list[Arrays]:
    inputs = _block_inputs(case.spec, case.reduced, case.seed, case.regime, case.shape)
    return [{"x": inputs[case.block]}]


def _expect_forward(network: Network, case: Case, calls: list[Arrays]) -> Expected:
    weights, x = case_weights(case), calls[0]["x"]
    outputs = network.within(lambda noise: network.forward(weights, x, noise), case)
    return Expected(outputs, frozenset({case.regime}), frozenset(outputs))


BLOCK_01 = Property(
    id="BLOCK-01",
    tier=2,
    title="block, fed with the reference's input",
    request="block",
    method="block",
    cases=_block_cases,
    calls=_block_call,
    sent=True,
    expect=as_asked(_expect_forward),
    of_network=_expect_forward,
    must=all_regimes,
    draws=False,
)


def network(property_id: str, reduced: bool) -> Any:
    return lambda target: [
        Case(property_id, spec=target.source, digest=target.spec.digest, reduced=reduced)
    ]


def _networks(property_id: str, reduced: bool) -> Callable[[Target], list[Case]]:
    """A case in each regime, of which a whole network has the normal one and `FLAT` alone."""

    def cases(target: Target) -> list[Case]:
        (normal,) = network(property_id, reduced)(target)
        # Sides are odd and even, and those of two cases the same: a whole network takes long to
        # compile for another shape, and on XLA four times as long where a conv's kernel is larger
        # than its image.
        odd, even = odd_and_even(plan_of(target.source, reduced), last=1 if reduced else 3)
        channels = target.plan.channels
        normal = replace(normal, shape=(2 if reduced else 1, odd, even, channels))
        flat = replace(normal, regime=FLAT)
        gains = replace(normal, regime=GAINS, shape=(1, even, odd, channels))
        return [normal, flat, gains] if reduced else [normal, flat]

    return cases


NET_01 = Property(
    id="NET-01",
    tier=3,
    title="network: stem, blocks, pool and logits",
    request="network",
    method="forward",
    cases=_networks("NET-01", False),
    calls=lambda case: [{"x": photographs(case, 2, NETWORK_SIDE)}],
    expect=as_asked(_expect_forward),
    of_network=_expect_forward,
    must=all_regimes,
    draws=False,
)


NET_03 = Property(
    id="NET-03",
    tier=3,
    title="network cut to a few narrow blocks: stem, blocks, pool and logits",
    request="network",
    method="forward",
    cases=_networks("NET-03", True),
    calls=lambda case: [{"x": photographs(case, 2, NETWORK_SIDE)}],
    expect=as_asked(_expect_forward),
    of_network=_expect_forward,
    must=all_regimes,
    draws=False,
)


def _alone(case: Case) -> list[Arrays]:
    x = photographs(case, 4, SIDE)
    return [{"x": x}, *({"x": x[i : i + 1]} for i in range(len(x)))]


def _apart(case: Case, calls: list[Arrays], outputs: Outputs) -> Outputs:
    """The logits of images by themselves, less those of their batch."""
    names = [f"{i}/logits" for i in range(len(calls))]
    if not set(names) <= set(outputs):
        return {}
    together, *alone = (outputs[name].astype(np.float64) for name in names)
    return {"difference": np.concatenate(alone) - together}


def _expect_alone(network: Network, case: Case, calls: list[Arrays]) -> Expected:
    wanted = _expect_forward(replace(network, like=None), case, calls[:1]).outputs["logits"]
    # The errors of the two are independent.
    terms = {"together and alone": np.sqrt(2.0) * wanted.terms["rounding"]}
    return Expected({"difference": Expectation(np.zeros(wanted.value.shape), terms, rms=True)})


NET_02 = Property(
    id="NET-02",
    tier=3,
    title="network: an image's logits do not depend on its batch",
    request="network",
    method="forward",
    cases=network("NET-02", True),
    calls=_alone,
    expect=as_asked(_expect_alone),
    of_network=_expect_alone,
    reduce=_apart,
    draws=False,
)


def _weights_cases(target: Target) -> list[Case]:
    """A case of given weights, and one of those that a model is made with."""
    (given,) = network("WEIGHTS-01", True)(target)
    return [given, replace(given, regime=DRAWN)]


def _expect_weights(case: Case, calls: list[Arrays]) -> Expected:
    """The bits of every parameter: as drawn, or through a model, a file and another model."""
    if case.regime == DRAWN:
        wanted = {f"init/{k}": v for k, v in init(case_plan(case)).items()}
    else:
        wanted = {f"file/{k}": v for k, v in weights(case.spec, True, case.seed).items()}
    return Expected({k: Expectation(v.astype(np.float64)) for k, v in wanted.items()})


WEIGHTS_01 = Property(
    id="WEIGHTS-01",
    tier=4,
    title="weights: the same bits from a seed, and through a model, a file and a model",
    request="weights",
    method="through",
    cases=_weights_cases,
    calls=lambda case: [{}],
    expect=_expect_weights,
    modes=("f32",),
    draws=False,
)

PROPERTIES = (BLOCK_01, NET_03, NET_02, NET_01, WEIGHTS_01)
