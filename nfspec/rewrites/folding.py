"""The network for inference: weight standardisation done once, scalars in the weights."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
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
    return Folded(fold_plan(plan), dict(folded_params(plan, params)), plan, params)


def fold_plan(plan: Plan) -> Plan:
    """The plan of a folded network, which does not depend on parameters.

    Args:
        plan: A plan that `nfspec.resolve` returned.
    """
    joined = _join_activations(_plain_convs(_without_drops(move_scalars(plan))))
    digest = hashlib.sha256(f"folded/{plan.digest}".encode()).hexdigest()
    return replace(_scale_branches(joined, _scaled_convs(joined)), digest=digest)


def folded_params(plan: Plan, params: Params) -> Iterator[tuple[str, Array]]:
    """The parameters of a folded network one after another, in the order of `fold_plan(plan)`, so
    that a writer never holds all of them.

    Args:
        plan: A plan that `nfspec.resolve` returned.
        params: Its parameters: canonical name to float32 array.

    Yields:
        Canonical name, and float32 array.
    """
    moved = _without_drops(move_scalars(plan))
    joined = _join_activations(_plain_convs(moved))
    scaled, sources = _scaled_convs(joined), {op.name: op for op in moved.ops}
    for op in _scale_branches(joined, scaled).ops:
        source = sources[op.name]
        branch = scaled.get(op.name, source)
        scale = _scale(branch, params) if isinstance(branch, Residual) else 1.0
        arrays = _folded(source, scale, params)
        for parameter in op.parameters:
            yield parameter.name, np.asarray(arrays[parameter.name], np.float32)


def _scale(op: Residual, params: Params) -> float:
    """alpha, times the skip gain where there is one."""
    gains = [float(np.asarray(params[p.name], np.float64)) for p in op.parameters]
    return op.alpha * (gains[0] if gains else 1.0)


def _folded(op: Operation, scale: float, params: Params) -> dict[str, Array]:
    """The parameters of an operation, once it is folded.

    Args:
        op: The operation before its conv was made a plain one.
        scale: Factor of a branch that this operation takes.
        params: The parameters before folding.
    """
    match op:
        case WSConv():
            kernel, *gains, bias = (np.asarray(params[p.name], np.float64) for p in op.parameters)
            kernel = standardise(op, kernel, gains[0] if gains else np.ones(op.out_channels))
            if scale != 1.0:
                kernel *= scale
            return {f"{op.name}.kernel": kernel, f"{op.name}.bias": scale * bias}
        case Residual():
            return {p.name: np.asarray(scale) for p in op.parameters}
        case (
            Conv() | Activation() | Pool() | SqueezeExcite() | ECA() | StochasticDepth()
            | GlobalPool() | Dropout() | Dense()
        ):  # fmt: skip
            return {p.name: params[p.name] for p in op.parameters}
        case _:
            raise unknown_operation(op, "nfspec.fold")


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


def _scaled_convs(plan: Plan) -> dict[str, Residual]:
    """Name of each conv that takes the scale of a branch, and the sum whose scale this is.

    Args:
        plan: Plan of plain convs.
    """
    taps, readers = set(plan.taps.values()), _reader_counts(plan)
    by_name = {op.name: op for op in plan.ops}
    return {
        op.inputs[0]: op
        for op in plan.ops
        if isinstance(op, Residual)
        and len(op.inputs) == 2
        and _absorbs(by_name.get(op.inputs[0]), readers, taps)
    }


def _scale_branches(plan: Plan, scaled: Mapping[str, Residual]) -> Plan:
    """The plan in which alpha and the skip gain are in the weights, or are one number.

    Args:
        plan: Plan of plain convs.
        scaled: What `_scaled_convs` returned.
    """
    ops: list[Operation] = []
    for op in plan.ops:
        if isinstance(op, Residual) and op.inputs[0] in scaled:
            op = replace(op, alpha=1.0, skip_gain=False)
        elif isinstance(op, Residual) and op.skip_gain:
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
