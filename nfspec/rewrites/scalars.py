"""Plan to Plan: the same network, with its scalars where they cost least.

gamma, beta, alpha, the gain of attention and the skip gain each multiply every element of an
activation, as a spec has them. Each is linear in what comes after it, so that it can multiply a
kernel's scale, which is a number a channel, or a gate, which is a number an image and channel.
Parameters keep their names, shapes and meaning, and their gradients.
"""

from __future__ import annotations

from dataclasses import replace

from nfspec.plan import (
    ECA,
    FEATURES,
    Activation,
    Conv,
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


def move_scalars(plan: Plan) -> Plan:
    """Move the scalars of a plan: the result computes the same from the same parameters, but for
    rounding.

    - An activation's gamma, and its beta where that comes after it, go into the gamma of the convs
      that read it, through average pools, too: `conv(K, c · x) = conv(c · K, x)`, biases are not
      touched. After the last activation they go into the mean over the image.
    - Attention at a branch's end hands its gate to the residual sum, where alpha and skip gain
      multiply the gate: `alpha · g · (gate · x) + y = (alpha · g · gate) · x + y`. Stochastic depth
      in between acts on the gate, which it zeroes as it would the branch.
    - The scalar of the tap `features` becomes an operation of that name between the last activation
      and pooling, which `without_features` takes away.

    Scalars stay where something else reads what they multiply, and the taps of the result are those
    of the plan. `Plan.blocks` still tells of the plan as it was.
    """
    return _hand_over_gates(_move_from_activations(_split_features(plan)))


def without_features(plan: Plan) -> Plan:
    """A plan for networks without taps: pooling does what the operation `features` did.

    Args:
        plan: A plan that `move_scalars` returned, or a folded one.
    """
    ops = plan.ops
    scale = next((op for op in ops if op.name == FEATURES), None)
    if isinstance(scale, Activation):
        ops = tuple(
            replace(op, inputs=scale.inputs, scale=op.scale * scale.gamma)
            if isinstance(op, GlobalPool) and op.inputs == (FEATURES,)
            else op
            for op in ops
            if op is not scale
        )
    return replace(plan, ops=ops, taps={t: at for t, at in plan.taps.items() if t != FEATURES})


def _split_features(plan: Plan) -> Plan:
    """Split the last activation in two: one without its scalar, and an operation that multiplies by
    the scalar. The tap is that operation, so that it has the values that the spec says; pooling
    reads it, so that gradients by the tap exist."""
    at = plan.taps.get(FEATURES, "")
    last = next((op for op in plan.ops if op.name == at), None)
    others = [name for tap, name in plan.taps.items() if tap != FEATURES]
    if (
        not isinstance(last, Activation)
        or at in (FEATURES, *others)  # FEATURES: done before
        or not all(isinstance(op, GlobalPool) for op in _readers(plan)[at])
        or (factor := _after(last)) == 1.0
    ):
        return plan
    scale = Activation(FEATURES, (at,), "identity", 0.0, factor, 1.0, "after")
    ops: list[Operation] = []
    for op in plan.ops:
        if op is last:
            ops += [_bare(last), scale]
        else:
            ops.append(replace(op, inputs=tuple(FEATURES if n == at else n for n in op.inputs)))
    return replace(plan, ops=tuple(ops), taps={**plan.taps, FEATURES: FEATURES})


def _after(op: Activation) -> float:
    """The factor by which an activation multiplies its result."""
    return op.gamma if op.beta_at == "before" else op.gamma * op.beta


def _bare(op: Activation) -> Activation:
    """The activation without that factor."""
    return replace(op, gamma=1.0, beta=op.beta if op.beta_at == "before" else 1.0)


def _readers(plan: Plan) -> dict[str, list[Operation]]:
    """Operation name to the operations that read it; taps are not among them."""
    readers: dict[str, list[Operation]] = {op.name: [] for op in plan.ops}
    for op in plan.ops:
        for name in set(op.inputs) & readers.keys():
            readers[name].append(op)
    return readers


def _move_from_activations(plan: Plan) -> Plan:
    readers, tapped = _readers(plan), set(plan.taps.values())

    def absorbed(name: str) -> bool:
        return name not in tapped and all(
            isinstance(op, WSConv | GlobalPool)
            or (isinstance(op, Pool) and op.kind == "avg" and absorbed(op.name))
            for op in readers[name]
        )

    missing: dict[str, float] = {}  # operation to the factor that its output still lacks
    ops: list[Operation] = []
    for op in plan.ops:
        factor = missing.get(op.inputs[0], 1.0)
        match op:
            case Activation():
                if absorbed(op.name):
                    missing[op.name] = _after(op)
                    op = _bare(op)
            case Pool():
                missing[op.name] = factor
            case WSConv():
                op = replace(op, gamma=op.gamma * factor)
            case GlobalPool():
                op = replace(op, scale=op.scale * factor)
            case (
                Conv() | SqueezeExcite() | ECA() | StochasticDepth() | Residual() | Dropout()
                | Dense()
            ):  # fmt: skip
                pass
            case _:
                raise unknown_operation(op, "nfspec.rewrites.move_scalars")
        ops.append(op)
    return replace(plan, ops=tuple(ops))


def _hand_over_gates(plan: Plan) -> Plan:
    by_name, readers = {op.name: op for op in plan.ops}, _readers(plan)
    alone = {name for name, ops in readers.items() if len(ops) == 1} - set(plan.taps.values())
    changed: dict[str, Operation] = {}
    for op in plan.ops:
        if not isinstance(op, Residual) or len(op.inputs) != 2:
            continue
        gate, shortcut = op.inputs
        attention = by_name.get(gate)
        if isinstance(attention, StochasticDepth):
            attention = by_name.get(attention.inputs[0])
        if isinstance(attention, SqueezeExcite | ECA) and {gate, attention.name} <= alone:
            changed[attention.name] = replace(attention, gate_only=True)
            changed[op.name] = replace(op, inputs=(attention.inputs[0], shortcut, gate))
    return replace(plan, ops=tuple(changed.get(op.name, op) for op in plan.ops))
