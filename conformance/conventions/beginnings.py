"""Networks that begin alike: what they have in common is evaluated once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from nfspec.conformance.cases.case import Arrays
from nfspec.conformance.properties.base import Array
from nfspec.conformance.properties.networks import Network
from nfspec.plan import INPUT, Plan


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A network, and the values of its taps for the images of a case."""

    network: Network
    taps: dict[str, Array]


def cut(plan: Plan, upto: str) -> Plan:
    """A plan as far as one of its taps; the whole plan if the tap is empty."""
    if upto not in plan.taps:
        return plan
    taps = [*plan.taps]
    kept = {tap: plan.taps[tap] for tap in taps[: taps.index(upto) + 1]}
    last = max(i for i, op in enumerate(plan.ops) if op.name in kept.values())
    return replace(plan, ops=plan.ops[: last + 1], taps=kept)


def same_until(one: Network, other: Network, tap: str) -> bool:
    """True if two networks are known to compute the same as far as a tap."""
    if any(network.params or network.change for network in (one, other)):
        return False
    plans = one.plan, other.plan
    if any(tap not in plan.taps for plan in plans):
        return False
    return cut(plans[0], tap).ops == cut(plans[1], tap).ops


def evaluate(
    network: Network, weights: Arrays, x: NDArray[Any], upto: str, several: Iterable[Evaluated]
) -> dict[str, Array]:
    """The taps of a network as far as one, by way of a network that begins alike if there is one.

    Args:
        network: The network.
        weights: Its weights, or those of a larger network.
        x: Images, (N, H, W, channels).
        upto: The last tap; all taps if it is empty.
        several: Networks that were evaluated for the same images and weights.
    """
    plan = cut(network.plan, upto)
    taps: dict[str, Array] = {}
    for each in several:
        known = _in_common(replace(network, plan=plan), each)
        taps = known if len(known) > len(taps) else taps
    if not taps:
        return replace(network, plan=plan).forward(weights, x)
    *_, last = taps
    if last == [*plan.taps][-1]:
        return taps
    rest = _after(plan, last)
    return {**taps, **replace(network, plan=rest).forward(weights, taps[last])}


def _in_common(network: Network, known: Evaluated) -> dict[str, Array]:
    """The taps that a network has in common with one that was evaluated, as far as an image that
    nothing after it bypasses."""
    common: dict[str, Array] = {}
    taken: dict[str, Array] = {}
    for tap in network.plan.taps:
        if tap not in known.taps or not same_until(network, known.network, tap):
            break
        common[tap] = known.taps[tap]
        if common[tap].ndim == 4 and _is_passage(network.plan, tap):
            taken = dict(common)
    return taken


def _is_passage(plan: Plan, tap: str) -> bool:
    """True if whatever comes after a tap reads nothing that was before it."""
    at, names = plan.taps[tap], [op.name for op in plan.ops]
    before = {INPUT, *names[: names.index(at)]}
    return not any(before & {*op.inputs} for op in plan.ops[names.index(at) + 1 :])


def _after(plan: Plan, tap: str) -> Plan:
    """The rest of a network after a tap, as a plan that reads it in place of the image."""
    at = plan.taps[tap]
    start = next(i for i, op in enumerate(plan.ops) if op.name == at) + 1
    ops = tuple(
        replace(op, inputs=tuple(INPUT if name == at else name for name in op.inputs))
        for op in plan.ops[start:]
    )
    own = {op.name for op in ops}
    return replace(
        plan,
        channels=plan.tap_info[tap].channels,
        ops=ops,
        taps={name: op for name, op in plan.taps.items() if op in own},
    )
