"""A plan up to the outputs that are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from nfspec.plan import Plan


def cut(plan: Plan, outputs: Iterable[str]) -> Plan:
    """The plan of some taps, without what none of them depends on.

    Args:
        plan: A plan, folded or not.
        outputs: Names of its taps.
    """
    taps = {name: plan.taps[name] for name in outputs}
    needed = {*taps.values()}
    for op in reversed(plan.ops):
        if op.name in needed:
            needed |= {*op.inputs}
    ops = tuple(op for op in plan.ops if op.name in needed)
    blocks = tuple(block for block in plan.blocks if block.residual in needed)
    return replace(plan, ops=ops, taps=taps, blocks=blocks)
