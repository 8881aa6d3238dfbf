"""Properties of networks that drop at random in training: their blocks, dropout, and a step.

See `drops` for how frequencies are judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np

from nfspec import plan as p
from nfspec import reference
from nfspec.conformance.bounds.chance import UNLIKELY, chance
from nfspec.conformance.cases.case import DROPS, Arrays, Case
from nfspec.conformance.cases.precision import MODES
from nfspec.conformance.cases.reduction import CLASSES, SIDE
from nfspec.conformance.cases.target import Target, plan_of
from nfspec.conformance.properties.base import (
    FULL_MODES,
    Array,
    Expectation,
    Expected,
    Outputs,
    Property,
)
from nfspec.conformance.properties.drops import (
    Mask,
    Statistics,
    add_event,
    add_exact,
    add_pairs,
    values_of,
)
from nfspec.conformance.properties.networks import (
    block_plan,
    case_plan,
    photographs,
    weights,
    within_bands,
)
from nfspec.conformance.properties.training import by_role, first_step
from nfspec.plan import Plan

IMAGES = 512  # in a batch given to a network in training; it is called twice
FEW = 16  # images from which the bands of a network are computed
TRAINED = 8  # images in a step of training, at least
WAYS = ("training", "mode")
LAST = "head.fc"


def _drops(plan: Plan) -> bool:
    return any(isinstance(op, p.StochasticDepth | p.Dropout) and op.rate for op in plan.ops)


def _networks(property_id: str) -> Callable[[Target], list[Case]]:
    """One case: the reduced network, with the drop rates of its spec. None if it drops nothing."""

    def cases(target: Target) -> list[Case]:
        case = Case(
            property_id,
            regime=DROPS,
            spec=target.source,
            digest=target.spec.digest,
            reduced=True,
        )
        return [case] if _drops(target.plan) else []

    return cases


def shown(plan: Plan, params: Arrays) -> Arrays:
    """Weights with which the logits are the first features as dropout leaves them."""
    kernel = np.eye(*plan.parameters[f"{LAST}.kernel"].shape, dtype=np.float32)
    bias = np.zeros(plan.parameters[f"{LAST}.bias"].shape, np.float32)
    return {**params, f"{LAST}.kernel": kernel, f"{LAST}.bias": bias}


def _rate(plan: Plan, name: str) -> tuple[float, bool]:
    """The rate at which a block's branch is dropped, and whether what is kept is rescaled."""
    for op in plan.ops:
        if isinstance(op, p.StochasticDepth) and plan.section(op) == name:
            return op.rate, op.rescale
    return 0.0, False


def _scaled(plan: Plan, factor: Callable[[str], float]) -> Plan:
    """A plan in which each residual branch is multiplied by `factor(name of its block)`."""
    return replace(
        plan,
        ops=tuple(
            replace(op, alpha=op.alpha * factor(op.block)) if isinstance(op, p.Residual) else op
            for op in plan.ops
        ),
    )


def _factor(plan: Plan, name: str) -> float:
    rate, rescale = _rate(plan, name)
    return 1.0 / (1.0 - rate) if rescale else 1.0


def _nearest(plan: Plan, params: Arrays, name: str, x: Array, y: Array) -> tuple[Array, Mask]:
    """The error of a block's output, and a mask of the images whose branch the block dropped.

    There are two right outputs for an image: with the branch, and the shortcut alone. The error is
    the distance to the nearer one, which also says whether the branch was dropped.
    """
    block = _scaled(block_plan(plan, name), lambda _: _factor(plan, name))
    (add,) = (op for op in block.ops if isinstance(op, p.Residual))
    block = replace(block, taps={**block.taps, "shortcut": add.inputs[1]})
    taps = reference.forward(block, {k: params[k] for k in block.parameters}, x)
    errors = [y - taps[tap] for tap in ("block", "shortcut")]
    kept, gone = (np.sqrt((error**2).mean(axis=(1, 2, 3))) for error in errors)
    dropped = gone < kept
    return np.where(dropped[:, None, None, None], errors[1], errors[0]), dropped


@dataclass(frozen=True)
class Seen:
    """The results of two calls of a network in training.

    Attributes:
        errors: Block name to the errors of its output, (2, N, H, W, C): see `_nearest`.
        gone: Block name to a mask of the images whose branch it dropped, (2, N).
        features: Mask of the features that dropout set to 0, (2, N, F).
        known: Mask of the features that were not 0 before dropout, (2, N, F).
        error: The largest relative error of a feature that is kept.
    """

    errors: dict[str, Array]
    gone: dict[str, Mask]
    features: Mask
    known: Mask
    error: float


def _seen(case: Case, taps: list[dict[str, Array]]) -> Seen:
    plan = case_plan(case)
    params = shown(plan, weights(case.spec, True, case.seed))
    errors, gone, before = {}, {}, "stem"
    for row in plan.blocks:
        pairs = [_nearest(plan, params, row.name, t[before], t[row.name]) for t in taps]
        errors[row.name] = np.stack([error for error, _ in pairs])
        gone[row.name] = np.stack([mask for _, mask in pairs])
        before = row.name
    y = np.stack([t["logits"] for t in taps])
    x = np.stack([t["pool"] for t in taps])[..., : y.shape[-1]] / (1.0 - _head_rate(plan))
    features, known = (y == 0.0) & (x != 0.0), x != 0.0
    error = np.where(known & ~features, y / np.where(known, x, 1.0) - 1.0, 0.0)
    return Seen(errors, gone, features, known, float(np.abs(error).max()))


def _head_rate(plan: Plan) -> float:
    return next((op.rate for op in plan.ops if isinstance(op, p.Dropout)), 0.0)


def _among(statistics: Statistics, name: str, mask: Mask, known: Mask, probability: float) -> None:
    """Add the frequency of an event among the features that are known.

    It counts as right where less than an eighth of them are known, because an activation made the
    others 0.
    """
    count = mask.size // 8
    share = mask[known].mean() if known.sum() >= count else probability
    terms = {"chance": np.asarray(chance(count, probability))}
    statistics[name] = np.asarray(share), Expectation(np.asarray(probability), terms)


def _network(case: Case, way: str, seen: Seen) -> Statistics:
    """The statistics of a network in training, called twice in one way."""
    plan, statistics = case_plan(case), Statistics()
    for name, gone in seen.gone.items():
        rate = _rate(plan, name)[0]
        errors = seen.errors[name]
        statistics[f"{way}/{name}"] = errors, Expectation(np.zeros(errors.shape), rms=True)
        add_event(statistics, f"{way}/{name} dropped", gone, rate)
        add_pairs(statistics, f"{way}/{name} dropped", gone[0], rate)
        add_event(statistics, f"{way}/{name} dropped in both calls", gone[0] & gone[1], rate**2)
    for one, other in combinations(seen.gone, 2):
        product = _rate(plan, one)[0] * _rate(plan, other)[0]
        both = seen.gone[one] & seen.gone[other]
        add_event(statistics, f"{way}/both {one} and {other} dropped", both, product)
    return {**statistics, **_features(way, seen, _head_rate(plan))}


def _features(way: str, seen: Seen, rate: float) -> Statistics:
    """The statistics of the features that dropout sets to 0 before the classifier."""
    statistics: Statistics = {}
    gone, known = seen.features, seen.known
    # Three results are rounded: the factor, the product, and the classifier's sum.
    add_exact(statistics, f"{way}/features kept", seen.error, 4.0 * MODES["f32"].store)
    _among(statistics, f"{way}/features dropped", gone, known, rate)
    twice = gone[0] & gone[1], known[0] & known[1]
    _among(statistics, f"{way}/features dropped in both calls", *twice, rate**2)
    for axis, size in enumerate(gone.shape[1:]):
        if size > 1:
            pairs = [
                [np.take(mask[0], range(i, size - size % 2, 2), axis) for i in range(2)]
                for mask in (gone, known)
            ]
            both, of = (first & second for first, second in pairs)
            name = f"{way}/features dropped, both of neighbours along axis {axis}"
            _among(statistics, name, both, of, rate**2)
    return statistics


def _reduced_network(case: Case, calls: list[Arrays], outputs: Outputs) -> Outputs:
    reduced: dict[str, Any] = {}
    names = ("stem", *(row.name for row in case_plan(case).blocks), "pool", "logits")
    shapes = _shapes(case, IMAGES)
    for way in WAYS:
        taps = [{n: outputs.get(f"{way}/{call}/{n}") for n in names} for call in range(2)]
        if all(v is not None and v.shape == shapes[n] for t in taps for n, v in t.items()):
            wide = [{n: v.astype(np.float64) for n, v in t.items() if v is not None} for t in taps]
            reduced |= values_of(_network(case, way, _seen(case, wide)))
    return reduced


@lru_cache(maxsize=2)
def _forward(case: Case) -> dict[str, Expectation]:
    """The taps of a few images where every branch is kept."""
    plan = case_plan(case)
    plan = _scaled(plan, lambda name: _factor(case_plan(case), name))
    params = weights(case.spec, True, case.seed)
    x = photographs(case, FEW, SIDE)
    return within_bands(lambda noise: reference.forward(plan, params, x, rounding=noise), case)


def _shapes(case: Case, count: int) -> dict[str, tuple[int, ...]]:
    return {name: (count, *wanted.value.shape[1:]) for name, wanted in _forward(case).items()}


def _expect_network(case: Case, calls: list[Arrays]) -> Expected:
    shapes, taps = _shapes(case, IMAGES), _forward(case)
    blocks = [row.name for row in case_plan(case).blocks]
    features = np.zeros((2, *shapes["logits"]), np.bool_)
    nothing = Seen(
        {name: np.zeros((2, *shapes[name])) for name in blocks},
        {name: np.zeros((2, IMAGES), np.bool_) for name in blocks},
        features,
        ~features,
        0.0,
    )
    outputs = {}
    for way in WAYS:
        for name, (_, wanted) in _network(case, way, nothing).items():
            if wanted.rms:
                wanted = replace(wanted, terms=taps[name.removeprefix(f"{way}/")].terms)
            outputs[name] = wanted
    optional = frozenset(name for name in outputs if name.startswith(f"{WAYS[1]}/"))
    return Expected(outputs, frozenset({DROPS}), optional)


DROP_03 = Property(
    id="DROP-03",
    tier=3,
    title="network in training: each block drops whole images at its rate, dropout features",
    request="ways",
    method="ways",
    cases=_networks("DROP-03"),
    calls=lambda case: [{"x": photographs(case, IMAGES, SIDE)}],
    expect=_expect_network,
    modes=FULL_MODES,
    reduce=_reduced_network,
    draws=False,
)


def _trained_images(case: Case) -> int:
    """The number of images in a step of training: enough for a step that drops nothing to have a
    probability of at most UNLIKELY."""
    plan = case_plan(case)
    width = plan.parameters[f"{LAST}.kernel"].shape[0]
    rates = [_rate(plan, row.name)[0] for row in plan.blocks] + [_head_rate(plan)] * width
    return max(TRAINED, math.ceil(math.log(UNLIKELY) / sum(math.log1p(-rate) for rate in rates)))


@lru_cache(maxsize=2)
def _undropped(case: Case) -> dict[str, Expectation]:
    """Parameters by role after a step in which nothing is dropped."""
    plan, call = plan_of(case.spec, True), _batch(case)[0]
    params = weights(case.spec, True, case.seed)
    return within_bands(lambda noise: first_step(plan, params, call, noise), case)


def _batch(case: Case) -> list[Arrays]:
    count = _trained_images(case)
    labels = case.rng("labels").integers(0, CLASSES, count)
    x = photographs(case, count, SIDE)
    return [{"x": x, "labels": np.eye(CLASSES, dtype=np.float32)[labels]}]


def _as_if(case: Case, calls: list[Arrays], outputs: Outputs) -> Outputs:
    """1 if the step is the one that the network takes when nothing is dropped, 0 otherwise."""
    names = {name: f"first/{name}" for name in case_plan(case).parameters}
    if not set(names.values()) <= set(outputs):
        return {}
    step = by_role(case_plan(case), {k: outputs[v] for k, v in names.items()}, "first")
    same = all(
        np.sqrt(((step[name] - wanted.value) ** 2).mean()) <= wanted.bound
        for name, wanted in _undropped(case).items()
    )
    finite = all(np.isfinite(value).all() for value in step.values())
    return {"a step as if nothing were dropped": np.asarray(float(same) if finite else np.nan)}


DROP_04 = Property(
    id="DROP-04",
    tier=3,
    title="training of a network: a step is not what it is if nothing is dropped",
    request="train",
    method="train",
    cases=_networks("DROP-04"),
    calls=_batch,
    expect=lambda case, calls: Expected(
        {"a step as if nothing were dropped": Expectation(np.zeros(()))}, frozenset({DROPS})
    ),
    modes=("f32",),
    reduce=_as_if,
    draws=False,
)

PROPERTIES = (DROP_03, DROP_04)
