"""A folded plan in the form of one that `nfspec.resolve` returns, so that one view serves both."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from nfspec.plan import FEATURES, Activation, Block, Conv, Operation, Plan, Residual


def apart(plan: Plan) -> Plan:
    """A plan in which the activations that belong to folded convs are operations again.

    Each belongs to the part of the network that reads it.
    """
    others = [op for op in plan.ops if isinstance(op, Activation) and op.name != FEATURES]
    at: Literal["after", "before"] = others[0].beta_at if others else "after"
    ops: list[Operation] = []
    renamed: dict[str, str] = {}
    for op in plan.ops:
        op = replace(op, inputs=tuple(renamed.get(name, name) for name in op.inputs))
        if not isinstance(op, Conv) or op.activation == "identity":
            ops.append(op)
            continue
        reader = next(plan.section(other) for other in plan.ops if op.name in other.inputs)
        name = f"{reader}.act_{op.name.rpartition('.')[2]}"
        renamed[op.name] = name
        ops.append(replace(op, activation="identity", slope=0.0))
        ops.append(Activation(name, (op.name,), op.activation, op.slope, 1.0, 1.0, at))
    return replace(plan, ops=tuple(ops))


def scalars_left(plan: Plan) -> tuple[Block, ...]:
    """The blocks of a folded plan with the alpha and beta that are not in its weights."""
    ops = {op.name: op for op in plan.ops}
    sums = {op.block: op for op in plan.ops if isinstance(op, Residual)}
    rows = []
    for row in plan.blocks:
        act = ops[ops[f"{row.name}.conv0"].inputs[0]]
        assert isinstance(act, Activation)
        rows.append(replace(row, alpha=sums[row.name].alpha, beta=act.beta))
    return tuple(rows)
