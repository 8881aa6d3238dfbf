"""Mistakes in the wiring of a network and in its betas, as functions of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from nfspec.plan import INPUT, Activation, Block, Plan, Residual, WSConv

Variances = Callable[[Sequence[Block]], Iterator[float]]
STEM = "stem"  # the tap
EXTRA = "stem.act"  # name of an activation that no plan has


def with_variances(variances: Variances) -> Callable[[Plan], Plan]:
    """A change of every beta, given a function of the blocks that yields the expected variance of
    each one's input."""

    def change(plan: Plan) -> Plan:
        several = zip(plan.blocks, variances(plan.blocks), strict=True)
        betas = {_first(row.name): variance**-0.5 for row, variance in several}
        return replace(
            plan,
            ops=tuple(
                replace(op, beta=betas[op.name])
                if isinstance(op, Activation) and op.name in betas
                else op
                for op in plan.ops
            ),
        )

    return change


def _first(block: str) -> str:
    """The activation of a block's input, which has the beta."""
    return f"{block}.act0"


def _never_reset(rows: Sequence[Block]) -> Iterator[float]:
    variance = 1.0
    for row in rows:
        yield variance
        variance += row.alpha**2


def _going_on(rows: Sequence[Block]) -> Iterator[float]:
    variance = 1.0
    for n, row in enumerate(rows):
        if row.index == 0 and n > 0:
            variance = 1.0 + rows[n - 1].alpha ** 2
        yield variance
        variance += row.alpha**2


def _reset_before(rows: Sequence[Block]) -> Iterator[float]:
    variance = 1.0
    for row in rows:
        variance = 1.0 if row.index == 0 else variance
        yield variance
        variance += row.alpha**2


def _reset_after(rows: Sequence[Block]) -> Iterator[float]:
    variance = 1.0
    for row in rows:
        yield variance
        variance = 1.0 if row.index == 0 else variance + row.alpha**2


def _squared(rows: Sequence[Block]) -> Iterator[float]:
    return (row.expected_variance**2 for row in rows)


def _of_output(rows: Sequence[Block]) -> Iterator[float]:
    return ((1.0 if row.index == 0 else row.expected_variance) + row.alpha**2 for row in rows)


def _alpha(rows: Sequence[Block]) -> Iterator[float]:
    variance = 1.0
    for row in rows:
        yield variance
        variance = (1.0 if row.index == 0 else variance) + row.alpha


VARIANCES: dict[str, Variances] = {
    "betas of an expected variance that no stage resets": _never_reset,
    "betas of an expected variance that a stage's first block does not reset: each stage but the "
    "first starts at 1 + alpha²": _going_on,
    "betas of an expected variance that is reset before a stage's first block, not by it": (
        _reset_before
    ),
    "betas of an expected variance that leaves out the alpha² of a stage's first block": (
        _reset_after
    ),
    "betas of 1/variance in place of 1/√variance": _squared,
    "betas of the variance after a block, not before it": _of_output,
    "betas of an expected variance that grows by alpha, not by alpha²": _alpha,
}


def _stem_activation(gamma: bool) -> Callable[[Plan], Plan]:
    """A change that applies the network's activation after the stem's last conv."""

    def change(plan: Plan) -> Plan:
        last = next(
            (
                op
                for op in reversed(plan.ops)
                if isinstance(op, WSConv) and plan.section(op) == STEM
            ),
            None,
        )
        of_blocks = next((op for op in plan.ops if isinstance(op, Activation)), None)
        if last is None or of_blocks is None:
            return plan
        own = of_blocks.gamma if gamma else 1.0
        extra = replace(of_blocks, name=EXTRA, inputs=(last.name,), gamma=own, beta=1.0)
        ops = []
        for op in plan.ops:
            at = tuple(EXTRA if name == last.name else name for name in op.inputs)
            ops.append(replace(op, inputs=at))
            ops += [extra] if op is last else []
        taps = {tap: EXTRA if name == last.name else name for tap, name in plan.taps.items()}
        return replace(plan, ops=tuple(ops), taps=taps)

    return change


def _without_final_activation(plan: Plan) -> Plan:
    return replace(
        plan,
        ops=tuple(
            replace(op, kind="identity", gamma=1.0)
            if isinstance(op, Activation) and op.name == "final_act"
            else op
            for op in plan.ops
        ),
    )


def _activated_shortcuts(plan: Plan) -> Plan:
    """Shortcuts without a conv read the activated input."""
    inputs = {row.name: _input(plan, row) for row in plan.blocks}
    return replace(
        plan,
        ops=tuple(
            replace(op, inputs=(op.inputs[0], _first(op.block), *op.inputs[2:]))
            if isinstance(op, Residual) and op.inputs[1] == inputs[op.block]
            else op
            for op in plan.ops
        ),
    )


def _input(plan: Plan, row: Block) -> str:
    """The operation that a block reads."""
    return next((op.inputs[0] for op in plan.ops if op.name == _first(row.name)), INPUT)


# (part, sentence, change)
CHANGES: tuple[tuple[str, str, Callable[[Plan], Plan]], ...] = (
    (
        "stem",
        "an activation without gamma after the stem's last conv, where there should be none",
        _stem_activation(gamma=False),
    ),
    (
        "stem",
        "an activation after the stem's last conv, where there should be none",
        _stem_activation(gamma=True),
    ),
    ("head", "the activation before the global pool left out", _without_final_activation),
    (
        "shortcut",
        "shortcuts without a conv that read the activated input of a block, not the input itself",
        _activated_shortcuts,
    ),
)
