"""A network's operations in words, for the drawing of a block."""

from __future__ import annotations

from dataclasses import dataclass

from nfspec.plan import (
    ECA,
    Activation,
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

TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Drawn:
    """An operation of a drawing.

    Attributes:
        name: Its name within its part of the network.
        kind: A word for its kind.
        text: Its numbers in words.
        lane: Its place: `branch`, `shortcut`, or `both` for what both begin or end with.
    """

    name: str
    kind: str
    text: str
    lane: str


def drawn(plan: Plan) -> dict[str, tuple[Drawn, ...]]:
    """The operations of the stem, each block and the head, in order of execution."""
    parts: dict[str, list[Operation]] = {}
    for op in plan.ops:
        parts.setdefault(plan.section(op), []).append(op)
    return {part: tuple(_part(part, ops)) for part, ops in parts.items()}


def _part(part: str, ops: list[Operation]) -> list[Drawn]:
    by_name = {op.name: op for op in ops}
    branch: set[str] = set()
    shortcut: set[str] = set()
    for op in ops:
        if isinstance(op, Residual):
            residual, kept, *gate = op.inputs
            branch |= _before(residual, by_name) | {n for g in gate for n in _before(g, by_name)}
            shortcut |= _before(kept, by_name)
    found = []
    for op in ops:
        lane = "both"
        if op.name in branch ^ shortcut:
            lane = "branch" if op.name in branch else "shortcut"
        found.append(Drawn(op.name.removeprefix(f"{part}."), *words(op), lane))
    return found


def _before(name: str, ops: dict[str, Operation]) -> set[str]:
    """Names of an operation and of all that it depends on, of those that are given."""
    found: set[str] = set()
    names = [name]
    while names:
        if (name := names.pop()) in ops and name not in found:
            found.add(name)
            names += ops[name].inputs
    return found


def _weights(op: WSConv) -> str:
    """The words on what a conv does with its kernel, where that is not what most do."""
    gamma = f", gamma {op.gamma:.4g}" if op.gamma != 1 else ""
    plain = ", not standardised" if op.eps_rule == "none" else ""
    return f"{gamma}{plain}{'' if op.gained else ', no gain'}"


def words(op: Operation) -> tuple[str, str]:
    """An operation's kind, and its numbers."""
    match op:
        case Convolution():
            groups = f", {op.groups} groups" if op.groups > 1 else ""
            stride = f", stride {op.stride}" if op.stride > 1 else ""
            weights = _weights(op) if isinstance(op, WSConv) else ""
            sides = f"{op.kernel} {TIMES} {op.kernel}, {op.in_channels} → {op.out_channels}"
            dilation = f", dilation {op.dilation}" if op.dilation > 1 else ""
            return "conv", f"{sides}{groups}{stride}{dilation}{weights}"
        case Activation():
            gamma = f", gamma {op.gamma:.4g}" if op.gamma != 1 else ""
            beta = f", beta {op.beta:.4g} {op.beta_at} it" if op.beta != 1 else ""
            return "activation", f"{op.kind}{gamma}{beta}"
        case Pool():
            kind = "average" if op.kind == "avg" else "maximum"
            zeros = ", zeros beyond the end counted" if op.counted else ""
            return "pool", f"{kind} of {op.window} {TIMES} {op.window}, stride {op.stride}{zeros}"
        case SqueezeExcite():
            return "attention", f"SE, {op.channels} → {op.hidden} → {op.channels}, gain {op.gain:g}"
        case ECA():
            return "attention", f"ECA, kernel of {op.kernel}, gain {op.gain:g}"
        case StochasticDepth():
            return "stochastic depth", f"drops {op.rate:.1%} of the branches in training"
        case Residual():
            gain = f" {TIMES} skip gain" if op.skip_gain else ""
            return "sum", f"{op.alpha:g}{gain} {TIMES} branch + shortcut"
        case GlobalPool():
            return "pool", "mean over height and width"
        case Dropout():
            return "dropout", f"rate {op.rate:g}"
        case Dense():
            return "classifier", f"{op.in_features} → {op.out_features}"
        case _:
            raise unknown_operation(op, "nfspec explore")
