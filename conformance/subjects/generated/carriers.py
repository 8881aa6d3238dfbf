"""Plans whose generated files have the parts that a description asks for.

A generated file is of a whole network, and all its convs keep the same conventions, as do its
activations and its attention. To ask a file for one layer, a small network is given the conventions
of that layer, and the file of this network has the layer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from nfspec.conformance.cases.case import Clip
from nfspec.conformance.subjects import NotOffered
from nfspec.language.loader import load
from nfspec.language.spec import Spec
from nfspec.plan import ECA, INPUT, Activation, Block, Plan, Pool, SqueezeExcite, WSConv
from nfspec.plan.resolver import resolve

CONVENTIONS = ("eps", "eps_rule", "ddof", "dtype", "gamma", "padding")


@cache
def small(parent: str = "nfnet-nano", attention: str = "se", dilation: int = 1) -> Plan:
    """A network whose file is short.

    Its second stage has a dilation in place of its stride, if that is above 1.
    """
    spec = load(parent, {"stages.attention": attention})
    if dilation > 1:
        (first, _, *strides), count = spec.stages.column("stride"), spec.stages.count
        strides = [first, 1, *strides]
        dilations = [1, dilation, *[1] * (count - 2)]
        how = {"stages.stride": strides, "stages.dilation": dilations}
        spec = load(parent, {"stages.attention": attention, **how})
    return resolve(spec)


def _with(plan: Plan, kind: type[Any], change: Callable[[Any], Any]) -> Plan:
    return replace(plan, ops=tuple(change(op) if isinstance(op, kind) else op for op in plan.ops))


def with_conv(op: WSConv) -> Plan:
    """A network whose convs keep the conventions of one; the first has its kernel and stride, too,
    which decide how a file pads, and convs are dilated if it is."""
    same = {field: getattr(op, field) for field in CONVENTIONS}
    first = {**same, "kernel": op.kernel, "stride": op.stride}
    return _with(
        small(dilation=op.dilation),
        WSConv,
        lambda conv: replace(conv, **(first if conv.inputs == (INPUT,) else same)),
    )


def dilated(op: WSConv) -> dict[str, int]:
    """The argument of a dilated conv, which a file without such convs does not have."""
    return {"dilation": op.dilation} if op.dilation > 1 else {}


def with_activation(op: Activation) -> Plan:
    """A network with the function of an activation and its gamma."""
    like = {"kind": op.kind, "slope": op.slope, "gamma": op.gamma}
    return _with(small(), Activation, lambda act: replace(act, **like))


def with_squeeze_excite(op: SqueezeExcite) -> Plan:
    """A network with the gain, the activation and the gamma of a squeeze-and-excitation."""
    like: dict[str, Any] = {
        field: getattr(op, field) for field in ("gain", "activation", "slope", "gamma")
    }
    return _with(small(), SqueezeExcite, lambda se: replace(se, **like))


def with_eca(op: ECA) -> Plan:
    """A network with the gain of an efficient channel attention."""
    return _with(small(attention="eca"), ECA, lambda eca: replace(eca, gain=op.gain))


def with_pool(op: Pool) -> Plan:
    """A network with a pool: that of NFNets' shortcuts, or a max pool in the stem.

    Raises:
        NotOffered: No network has such a pool.
    """
    if (op.kind, op.window, op.padding) == ("avg", 2, "same"):
        if (op.stride, op.counted) == (2, False):
            return small()
        if (op.stride, op.counted) == (1, True):  # where a stride has become dilation
            return small(dilation=2)
    if op.kind == "avg" or op.padding == "valid":
        raise NotOffered(
            f"no network has a {op.padding} {op.kind} pool of {op.window}x{op.window} pixels with "
            f"a stride of {op.stride}"
        )
    like = {"window": op.window, "stride": op.stride, "padding": op.padding}
    plan = small("nf-resnet-50", "none")
    return _with(plan, Pool, lambda pool: replace(pool, **like) if pool.kind == "max" else pool)


def with_clipping(clip: Clip) -> Plan:
    """A network that clips the gradients of all parameters alike."""
    table: dict[str, Any] = {
        "enabled": True,
        "clipping": clip.clipping,
        "eps": clip.eps,
        "unit": clip.unit,
        "exclude": (),
        "roles": {},
        "names": {},
    }
    return replace(small(), agc=small().agc.model_copy(update=table))


def network_of(block: Plan) -> tuple[Plan, Block]:
    """The whole network of a plan of one block, and the block.

    Raises:
        NotOffered: The block is not as its spec has it.
    """
    (row,) = block.blocks
    fields = {**json.loads(block.canonical), "name": block.name, "agc": block.agc.model_dump()}
    plan = resolve(Spec.model_validate_json(json.dumps(fields)))
    own = [replace(op, inputs=()) for op in plan.ops if plan.section(op) == row.name]
    if own != [replace(op, inputs=()) for op in block.ops]:
        raise NotOffered(f"{row.name} is not as its spec has it; a file is of a whole spec")
    return plan, row
