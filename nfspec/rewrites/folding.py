"""The network for inference: weight standardisation done once, scalars in the weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from typing import TypeGuard

import numpy as np

from nfspec.frozen import FrozenDict
from nfspec.plan import (
    Activation,
    Conv,
    Convolution,
    Dropout,
    Op,
    Plan,
    Residual,
    StochasticDepth,
    WSConv,
)
from nfspec.plan.free_memory import require_free_memory
from nfspec.plan.initialise import Params
from nfspec.reference.operations import standardise
from nfspec.rewrites.scalars import move_scalars
from nfspec.weights import check


@dataclass(frozen=True, eq=False)
class Folded:
    """What `fold` returns.

    Attributes:
        plan: Plan of plain convs; it has a digest of its own, so that its weights are not taken for
            others.
        params: Parameters of that plan: canonical name to float32 array.
        original: The plan that was folded.
        original_params: Its parameters, which training goes on from.
    """

    plan: Plan
    params: Params
    original: Plan
    original_params: Params

    def __post_init__(self) -> None:
        for name in ("params", "original_params"):
            object.__setattr__(self, name, FrozenDict(getattr(self, name)))

    def unfold(self) -> tuple[Plan, Params]:
        """The plan and parameters as they were."""
        return self.original, dict(self.original_params)


def fold(plan: Plan, params: Params) -> Folded:
    """Work out the weights that inference uses.

    - Kernels are standardised in float64 and rounded once. gamma and beta are in the kernels that
      read what they scale.
    - An activation that a conv alone writes to belongs to the conv.
    - alpha and skip gain are in the last conv of a branch, where nothing comes between it and the
      sum; behind attention they are one number, which multiplies the gate.
    - Dropout and stochastic depth are gone.

    Taps are those of the plan. Mind that skip gains of 0, as training starts from, leave nothing of
    a branch.

    Args:
        plan: A plan that `nfspec.resolve` returned.
        params: Its parameters: canonical name to float32 array.

    Raises:
        WeightError: `params` do not fit the plan.
        InputError: The memory does not take as much again.
    """
    require_free_memory(plan, "fold", 1)
    params = check(plan, params)
    moved = _without_drops(move_scalars(plan))
    taps, folded = set(moved.taps.values()), dict[str, np.ndarray]()
    readers: dict[str, int] = {}
    for op in moved.ops:
        for name in op.inputs:
            readers[name] = readers.get(name, 0) + 1
    ops: dict[str, Op] = {}
    renamed: dict[str, str] = {}  # an activation to the conv that it now belongs to
    for op in moved.ops:
        op = replace(op, inputs=tuple(renamed.get(name, name) for name in op.inputs))
        before = ops.get(op.inputs[0])
        alone = before is not None and readers[before.name] == 1 and before.name not in taps
        match op:
            case WSConv():
                kernel, gain, bias = (np.asarray(params[p.name], np.float64) for p in op.parameters)
                folded[f"{op.name}.kernel"] = standardise(op, kernel, gain)
                folded[f"{op.name}.bias"] = bias
                op = _plain(op)
            case Activation() if alone and _linear(before) and op.gamma == op.beta == 1.0:
                ops[before.name] = replace(before, activation=op.kind, slope=op.slope)
                renamed[op.name] = before.name
                taps |= {before.name} if op.name in taps else set()
                readers[before.name] = readers.get(op.name, 0)
                continue
            case Residual():
                scale = op.alpha * (float(params[op.parameters[0].name]) if op.skip_gain else 1.0)
                if len(op.inputs) == 2 and alone and _linear(before):
                    for p in before.parameters:
                        folded[p.name] = scale * folded[p.name]
                    op = replace(op, alpha=1.0, skip_gain=False)
                elif op.skip_gain:
                    folded[op.parameters[0].name] = np.asarray(scale)
                    op = replace(op, alpha=1.0)
            case _:
                folded |= {p.name: params[p.name] for p in op.parameters}
        ops[op.name] = op
    result = replace(
        moved,
        ops=tuple(ops.values()),
        taps={tap: renamed.get(name, name) for tap, name in moved.taps.items()},
        digest=hashlib.sha256(f"folded/{plan.digest}".encode()).hexdigest(),
    )
    return Folded(
        result, {p: np.asarray(folded[p], np.float32) for p in result.parameters}, plan, params
    )


def _linear(op: Op | None) -> TypeGuard[Conv]:
    """Whether an operation is a conv that no activation belongs to yet."""
    return isinstance(op, Conv) and op.activation == "identity"


def _plain(op: WSConv) -> Conv:
    return Conv(**{field.name: getattr(op, field.name) for field in fields(Convolution)})


def _without_drops(plan: Plan) -> Plan:
    around: dict[str, str] = {}
    ops = []
    for op in plan.ops:
        op = replace(op, inputs=tuple(around.get(name, name) for name in op.inputs))
        if isinstance(op, StochasticDepth | Dropout):
            around[op.name] = op.inputs[0]
        else:
            ops.append(op)
    taps = {tap: around.get(name, name) for tap, name in plan.taps.items()}
    return replace(plan, ops=tuple(ops), taps=taps)
