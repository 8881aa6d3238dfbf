"""The target of a run: the operations of a spec, or a grid of general ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, get_args

from nfspec import plan as p
from nfspec.conformance.cases.case import Clip, neutral
from nfspec.conformance.cases.corners import CONV, SE, corners
from nfspec.conformance.cases.reduction import reduced_plan
from nfspec.language.fields import Unit
from nfspec.language.loader import load
from nfspec.language.overrides import ON_COMMAND_LINE, overriding, parsed
from nfspec.language.spec import Spec
from nfspec.plan import Operation, Plan, unknown_operation
from nfspec.plan.activations import DEEPMIND_GAMMA
from nfspec.plan.clipping import clip_rules
from nfspec.plan.resolver import resolve

GENERAL = "nfnet-f0"  # whose network is tested where no spec is given
_SET = f" {ON_COMMAND_LINE} "  # between a spec and each of its changes
CLIPS = 5  # at most this many shapes of a role's parameters, and rates; the others are alike
OUTPUTS = 64  # of a clipped parameter or a classifier at most, whose outputs are all alike


@dataclass(frozen=True)
class Target:
    """The operations and networks that a run tests.

    Attributes:
        source: The spec that networks and blocks are of, as `source_of` writes it.
        spec: That spec.
        general: True if operations are those of the general grid, not of the spec.
        ops: Distinct operations.
        clips: Actions of AGC on parameters of distinct shapes and roles.
    """

    source: str
    spec: Spec
    general: bool
    ops: tuple[Operation, ...]
    clips: tuple[Clip, ...]

    @property
    def plan(self) -> Plan:
        return plan_of(self.source, False)

    def of(self, kind: type[Any]) -> tuple[Any, ...]:
        return tuple(op for op in self.ops if isinstance(op, kind))


def source_of(name: str, changes: Sequence[str]) -> str:
    """A spec and what is changed in it as one text, as on the command line: `nfnet-f0 --set
    stages.alpha=0.3`.

    Args:
        name: Name or path of the spec.
        changes: `FIELD=VALUE` each.
    """
    return _SET.join((name, *changes))


def words_of(source: str) -> list[str]:
    """The words of a command that name such a spec."""
    name, *changes = source.split(_SET)
    return [name, *(word for change in changes for word in (ON_COMMAND_LINE, change))]


def spec_of(source: str) -> Spec:
    """The spec of a text of `source_of`.

    Raises:
        SpecError: There is no such spec, or it cannot be changed so.
    """
    name, *changes = source.split(_SET)
    return load(name, overriding(parsed(changes), ON_COMMAND_LINE))


@cache
def plan_of(source: str, reduced: bool, drops: bool = False) -> Plan:
    """The plan of a spec, whole or reduced; a reduced one drops only if `drops` is set."""
    spec = spec_of(source)
    return reduced_plan(spec, drops) if reduced else resolve(spec)


def target(source: str | None) -> Target:
    """The target of a run.

    Args:
        source: A spec, as `source_of` writes it; None for the general grid.

    Raises:
        SpecError: The spec cannot be used.
        TypeError: It has an operation that no property tests.
    """
    spec = spec_of(source or GENERAL)
    plan = resolve(spec)
    if source is None:
        return Target(GENERAL, spec, True, *_with_corners(_grid(), _clip_grid()))
    distinct = dict.fromkeys(narrowed(neutral(op)) for op in plan.ops)
    drops = _evenly([op for op in distinct if isinstance(op, p.StochasticDepth)])
    ops = [op for op in distinct if not isinstance(op, p.StochasticDepth) or op in drops]
    return Target(source, spec, False, tuple(ops), tuple(_clips(plan)))


def narrowed(op: Operation) -> Operation:
    """An operation as it is tested: a classifier with fewer classes, which are all alike; others as
    they are."""
    match op:
        case p.Dense():
            return replace(op, out_features=min(op.out_features, OUTPUTS))
        case p.WSConv() | p.Activation() | p.Pool() | p.SqueezeExcite() | p.ECA() | p.Residual():
            return op
        case p.GlobalPool() | p.StochasticDepth() | p.Dropout():
            return op
        case p.Conv():
            raise TypeError(f"a folded conv is tested in its network, not by itself ({op.name})")
        case _:
            raise unknown_operation(op, "nfspec.conformance.cases.target")


def _with_corners(
    ops: Iterable[Operation], clips: Iterable[Clip]
) -> tuple[tuple[Operation, ...], tuple[Clip, ...]]:
    """The grids and, after them, the corners that they lack."""
    several = list(corners())
    of_clips = [each for each in several if isinstance(each, Clip)]
    others = [each for each in several if not isinstance(each, Clip)]
    return tuple(dict.fromkeys([*ops, *others])), tuple(dict.fromkeys([*clips, *of_clips]))


def _clips(plan: Plan) -> Iterable[Clip]:
    """Clips of a plan's parameters: distinct ones of each role, evenly over the network."""
    rules = clip_rules(plan)
    distinct = dict.fromkeys(
        Clip(
            q.role,
            (*q.shape[:-1], *(min(n, OUTPUTS) for n in q.shape[-1:])),
            plan.agc.unit,
            rule.clipping or plan.agc.clipping,
            rule.eps,
        )
        for q, rule in ((q, rules[q.name]) for q in plan.parameters.values())
        if q.role != "head"
    )
    of_role: dict[str, list[Clip]] = {}
    for clip in distinct:
        of_role.setdefault(clip.role, []).append(clip)
    return [clip for several in of_role.values() for clip in _evenly(several)]


def _evenly(several: list[Any]) -> list[Any]:
    """At most CLIPS of them, evenly over the list."""
    step = max(1.0, len(several) / CLIPS)
    return [several[int(i * step)] for i in range(min(len(several), CLIPS))]


def _convs() -> Iterator[p.WSConv]:
    """Every kernel, stride, dilation, padding, group count and eps rule, fan-ins from 4 to 4608."""
    one, three = replace(CONV, kernel=1), CONV
    yield from (replace(one, in_channels=n) for n in (4, 64, 512, 1536))
    yield from (replace(three, in_channels=n, out_channels=4) for n in (3, 16, 128, 512))
    yield replace(three, groups=4, out_channels=12)
    yield replace(three, groups=16, out_channels=32)
    yield replace(three, groups=2, stride=2, in_channels=64)
    yield replace(three, stride=2, padding="symmetric")
    yield replace(three, stride=2, padding="valid", in_channels=3)
    yield replace(one, stride=2, in_channels=32)
    yield replace(one, stride=2, padding="symmetric", in_channels=32)
    yield replace(three, kernel=7, stride=2, in_channels=3)
    yield replace(three, kernel=7, stride=2, in_channels=3, padding="symmetric")
    yield replace(three, kernel=5, groups=4)
    yield replace(three, dilation=2, groups=4)
    for rule, eps in (("add", 1e-5), ("add_to_std", 1e-2)):
        how: dict[str, Any] = {"eps_rule": rule, "eps": eps, "gamma": 1.7881293296813965}
        yield replace(one, in_channels=256, **how)
        yield replace(three, groups=2, padding="symmetric", stride=2, **how)
    yield replace(three, ddof=1, in_channels=3)
    yield replace(one, ddof=1, eps=1e-2)


def _grid() -> Iterator[Operation]:
    """The operations of a run without a spec."""
    yield from _convs()
    for kind in (
        "gelu_tanh", "gelu_erf", "silu", "relu", "relu6", "leaky_relu", "elu", "selu", "celu",
        "tanh", "sigmoid", "softplus", "log_sigmoid", "soft_sign", "identity",
    ):  # fmt: skip
        yield p.Activation("op", ("x",), kind, 0.02, DEEPMIND_GAMMA[kind], 0.9, "after")
    for kind in ("gelu_tanh", "silu"):
        yield p.Activation("op", ("x",), kind, 0.01, DEEPMIND_GAMMA[kind], 0.9, "before")
    yield p.Pool("op", ("x",), "avg", 2, 2, "same")
    yield p.Pool("op", ("x",), "avg", 2, 1, "same", counted=True)
    yield p.Pool("op", ("x",), "max", 3, 2, "same")
    yield p.Pool("op", ("x",), "max", 3, 2, "symmetric")
    yield from (SE, replace(SE, channels=96, hidden=24, activation="silu", gamma=1.8))
    yield from (p.ECA("op", ("x",), 24, 3, 2.0), p.ECA("op", ("x",), 96, 5, 2.0))
    yield p.Residual("op", ("x", "shortcut"), "op", 0.2, True, 0.0)
    yield p.Residual("op", ("x", "shortcut"), "op", 0.25, False, 0.0)
    yield p.GlobalPool("op", ("x",))
    yield p.Dense("op", ("x",), 96, 10, 1.0)
    yield p.StochasticDepth("op", ("x",), 0.25, False)
    yield p.StochasticDepth("op", ("x",), 0.05, True)
    yield p.StochasticDepth("op", ("x",), 0.9, False)
    yield from (p.Dropout("op", ("x",), rate) for rate in (0.2, 0.05, 0.5))


def _clip_grid() -> Iterator[Clip]:
    for unit in get_args(Unit):
        yield Clip("kernel", (3, 3, 16, 8), unit, 0.01, 1e-3)
        yield Clip("kernel", (1, 1, 512, 16), unit, 0.01, 1e-3)
        yield Clip("kernel", (64, 10), unit, 0.02, 1e-3)
        yield Clip("gain", (24,), unit, 0.01, 1e-3)
        yield Clip("skip_gain", (), unit, 0.01, 1e-3)
    yield Clip("bias", (24,), "squeeze", 0.01, 1e-2)
    yield Clip("kernel", (3, 3, 512, 4), "squeeze", 0.01, 1e-3)
    yield Clip("kernel", (1, 1, 1, 24), "squeeze", 0.01, 1e-3)
    yield Clip("kernel", (5,), "squeeze", 0.01, 1e-3)
