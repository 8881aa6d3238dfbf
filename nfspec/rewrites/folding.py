"""The network for inference: weight standardisation done once, scalars in the weights."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, fields, replace
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from nfspec.frozen import FrozenDict
from nfspec.plan import (
    ECA,
    Activation,
    Conv,
    Convolution,
    Dense,
    Dropout,
    GlobalPool,
    Operation,
    Plan,
    Pool,
    Residual,
    SqueezeExcite,
    StochasticDepth,
    WSConv,
    unknown_operation,
)
from nfspec.plan.free_memory import require_free_memory
from nfspec.plan.initialise import Params
from nfspec.reference.operations import standardise
from nfspec.rewrites.scalars import move_scalars
from nfspec.weights import check

Array = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Folded:
    """A folded plan with its parameters, and the plan and parameters that it was made of.

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
        """The plan and parameters before folding."""
        return self.original, dict(self.original_params)


def fold(plan: Plan, params: Params) -> Folded:
    """Compute the weights that inference uses.

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
    arrays = _kernels_standardised(moved, params)
    scaled = _scale_branches(_join_activations(_plain_convs(moved)), arrays)
    result = replace(scaled, digest=hashlib.sha256(f"folded/{plan.digest}".encode()).hexdigest())
    return Folded(
        result, {p: np.asarray(arrays[p], np.float32) for p in result.parameters}, plan, params
    )


def _kernels_standardised(plan: Plan, params: Params) -> dict[str, Array]:
    """The parameters of a plan, but for gains, which standardised kernels hold."""
    arrays: dict[str, Array] = {}
    for op in plan.ops:
        match op:
            case WSConv():
                kernel, gain, bias = (np.asarray(params[p.name], np.float64) for p in op.parameters)
                arrays[f"{op.name}.kernel"] = standardise(op, kernel, gain)
                arrays[f"{op.name}.bias"] = bias
            case (
                Conv() | Activation() | Pool() | SqueezeExcite() | ECA() | StochasticDepth()
                | Residual() | GlobalPool() | Dropout() | Dense()
            ):  # fmt: skip
                arrays |= {p.name: params[p.name] for p in op.parameters}
            case _:
                raise unknown_operation(op, "nfspec.fold")
    return arrays


def _plain_convs(plan: Plan) -> Plan:
    """The plan with convs whose kernels are used as they are."""
    shared = [field.name for field in fields(Convolution)]
    return replace(
        plan,
        ops=tuple(
            Conv(**{name: getattr(op, name) for name in shared}) if isinstance(op, WSConv) else op
            for op in plan.ops
        ),
    )


def _join_activations(plan: Plan) -> Plan:
    """The plan in which an activation that alone reads a conv belongs to the conv."""
    taps, readers = set(plan.taps.values()), _reader_counts(plan)
    ops: dict[str, Operation] = {}
    renamed: dict[str, str] = {}  # an activation to the conv that it now belongs to
    for op in plan.ops:
        op = replace(op, inputs=tuple(renamed.get(name, name) for name in op.inputs))
        before = ops.get(op.inputs[0])
        if (
            isinstance(op, Activation)
            and op.gamma == op.beta == 1.0
            and _absorbs(before, readers, taps)
        ):
            ops[before.name] = replace(before, activation=op.kind, slope=op.slope)
            renamed[op.name] = before.name
            taps |= {before.name} if op.name in taps else set()
            readers[before.name] = readers[op.name]
        else:
            ops[op.name] = op
    taps_of = {tap: renamed.get(name, name) for tap, name in plan.taps.items()}
    return replace(plan, ops=tuple(ops.values()), taps=taps_of)


def _scale_branches(plan: Plan, arrays: dict[str, Array]) -> Plan:
    """The plan in which alpha and the skip gain are in the weights, or are one number.

    Args:
        plan: Plan of plain convs.
        arrays: Canonical name to parameter; those that take the scale are replaced.
    """
    taps, readers = set(plan.taps.values()), _reader_counts(plan)
    by_name = {op.name: op for op in plan.ops}
    ops: list[Operation] = []
    for op in plan.ops:
        if isinstance(op, Residual):
            scale = op.alpha * (float(arrays[op.parameters[0].name]) if op.skip_gain else 1.0)
            before = by_name.get(op.inputs[0])
            if len(op.inputs) == 2 and _absorbs(before, readers, taps):
                for p in before.parameters:
                    arrays[p.name] = scale * arrays[p.name]
                op = replace(op, alpha=1.0, skip_gain=False)
            elif op.skip_gain:
                arrays[op.parameters[0].name] = np.asarray(scale)
                op = replace(op, alpha=1.0)
        ops.append(op)
    return replace(plan, ops=tuple(ops))


def _reader_counts(plan: Plan) -> Counter[str]:
    """The number of operations that read each operation."""
    return Counter(name for op in plan.ops for name in op.inputs)


def _absorbs(op: Operation | None, readers: Counter[str], taps: set[str]) -> TypeGuard[Conv]:
    """True for a conv without an activation that has one reader and is no tap."""
    return (
        isinstance(op, Conv)
        and op.activation == "identity"
        and readers[op.name] == 1
        and op.name not in taps
    )


def _without_drops(plan: Plan) -> Plan:
    """The plan without dropout and stochastic depth."""
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
