"""The Plan: what a spec means, as a flat, frozen list of operations with concrete numbers.

Every reader (reference, counting, signal, backends, weights) walks `Plan.ops` in order. An
operation names the operations it reads, so a reader is one loop over the list with one case for
each kind of operation, and a new kind of block is a change to the resolver alone. No reader
computes a channel count, a beta or a rate.

The kinds are the members of `Operation`. A reader ends its `match` with `unknown_operation`, so
that mypy reports a kind that it forgets, and a run stops at it.

Layouts: images and activations NHWC, kernels HWIO, dense kernels IO.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Never

from nfspec.frozen import FrozenDict
from nfspec.language.tables import AGC, Recipe
from nfspec.plan.block import Block
from nfspec.plan.taps import Feature, Tap

Role = Literal["kernel", "gain", "bias", "skip_gain", "head"]
Padding = Literal["same", "symmetric", "valid"]

INPUT = "input"  # the name by which operations refer to the image
FEATURES = "features"  # the tap of the activations that global pooling reads


@dataclass(frozen=True)
class Init:
    """The initial distribution of a parameter.

    `constant`: every element is `value`. `normal`: standard deviation `value`. `truncated_normal`:
    a normal of standard deviation `value`, redrawn beyond two of them, and not rescaled (as
    Haiku's). `uniform`: between -`value` and `value`.
    """

    kind: Literal["constant", "normal", "truncated_normal", "uniform"]
    value: float


@dataclass(frozen=True)
class Parameter:
    """A trainable array: canonical name, shape, role for the optimizer, initial distribution."""

    name: str
    shape: tuple[int, ...]
    role: Role
    init: Init

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Op:
    """The base of the operations: a unique name, and the names of the operations it reads."""

    name: str
    inputs: tuple[str, ...]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return ()


@dataclass(frozen=True)
class Convolution(Op):
    """The base of both kinds of convs; `kernel_shape` is that of their kernels, HWIO.

    The taps of a kernel are `dilation` px apart, in both directions.
    """

    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    groups: int
    padding: Padding
    dilation: int = field(default=1, kw_only=True)

    @property
    def sliding(self) -> tuple[int, int, Padding, int]:
        """Stride, groups, padding and dilation, as the reference's functions take them."""
        return self.stride, self.groups, self.padding, self.dilation

    @property
    def extent(self) -> int:
        """Side of the window that a kernel covers, px."""
        return 1 + self.dilation * (self.kernel - 1)

    @property
    def fan_in(self) -> int:
        return self.kernel**2 * self.in_channels // self.groups

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        return (self.kernel, self.kernel, self.in_channels // self.groups, self.out_channels)


@dataclass(frozen=True)
class WSConv(Convolution):
    """Convolution whose kernel is standardised on the fly (arXiv:2101.08692, eq. 6).

    With N = kernel² · in_channels / groups, the mean m and variance v over each output channel's N
    weights (v divided by N - ddof), the kernel used is `gain · gamma · (w - m) · s`, where s is
    `max`: 1/sqrt(max(N·v, eps)); `add`: 1/sqrt(N·(v + eps)); `add_to_std`:
    1/(sqrt(N)·(sqrt(v) + eps)). With `none` it is `gain · gamma · w`, and eps and ddof say
    nothing. Where `gain_init` is None there is no gain, which is then 1.
    """

    eps: float
    eps_rule: Literal["max", "add", "add_to_std", "none"]
    ddof: int
    dtype: Literal["float32", "compute"]
    gamma: float
    kernel_init: Init
    gain_init: float | None

    @property
    def gained(self) -> bool:
        """True if there is a gain."""
        return self.gain_init is not None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        shape = self.kernel_shape
        kernel = Parameter(f"{self.name}.kernel", shape, "kernel", self.kernel_init)
        bias = Parameter(f"{self.name}.bias", shape[-1:], "bias", Init("constant", 0.0))
        if self.gain_init is None:
            return (kernel, bias)
        init = Init("constant", self.gain_init)
        return (kernel, Parameter(f"{self.name}.gain", shape[-1:], "gain", init), bias)


@dataclass(frozen=True)
class Conv(Convolution):
    """Convolution with its kernel as it is, then an activation without gamma; in folded plans."""

    activation: str = "identity"
    slope: float = 0.0  # leaky_relu's, for x < 0

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        shape, init = self.kernel_shape, Init("normal", self.fan_in**-0.5)
        return (
            Parameter(f"{self.name}.kernel", shape, "kernel", init),
            Parameter(f"{self.name}.bias", shape[-1:], "bias", Init("constant", 0.0)),
        )


@dataclass(frozen=True)
class Activation(Op):
    """`gamma · beta · f(x)`, or `gamma · f(beta · x)` where beta comes before."""

    kind: str
    slope: float  # leaky_relu's, for x < 0
    gamma: float
    beta: float
    beta_at: Literal["after", "before"]


@dataclass(frozen=True)
class Pool(Op):
    """Spatial pooling. A maximum never sees padding, and an average counts it, as zeros, where it
    is `counted`."""

    kind: Literal["avg", "max"]
    window: int
    stride: int
    padding: Padding
    counted: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class SqueezeExcite(Op):
    """`gain · sigmoid(fc1(f(fc0(mean_hw(x))))) · x`, f being an activation times its gamma.

    Where `gate_only`, the output is the factor of x alone, (N, channels).
    """

    channels: int
    hidden: int
    gain: float
    activation: str
    slope: float
    gamma: float
    init: Literal["normal", "truncated_normal"]
    gate_only: bool = False

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        def dense(name: str, fan_in: int, fan_out: int) -> tuple[Parameter, Parameter]:
            init = Init(self.init, fan_in**-0.5)
            return (
                Parameter(f"{self.name}.{name}.kernel", (fan_in, fan_out), "kernel", init),
                Parameter(f"{self.name}.{name}.bias", (fan_out,), "bias", Init("constant", 0.0)),
            )

        return dense("fc0", self.channels, self.hidden) + dense("fc1", self.hidden, self.channels)


@dataclass(frozen=True)
class ECA(Op):
    """Efficient channel attention (Wang et al. 2020, arXiv:1910.03151).

    `gain · sigmoid(k ⋆ mean_hw(x)) · x`, the kernel k of `kernel` taps sliding over the channels,
    zeros beyond the ends, no bias. Where `gate_only`, the output is the factor of x alone,
    (N, channels).
    """

    channels: int
    kernel: int
    gain: float
    gate_only: bool = False

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        init = Init("uniform", self.kernel**-0.5)
        return (Parameter(f"{self.name}.kernel", (self.kernel,), "kernel", init),)


@dataclass(frozen=True)
class StochasticDepth(Op):
    """In training, an image's residual is zeroed with probability `rate`; kept ones are divided by
    1 - rate if `rescale`."""

    rate: float
    rescale: bool


@dataclass(frozen=True)
class Residual(Op):
    """`alpha · skip_gain · inputs[0] + inputs[1]`; skip_gain is a scalar, where it is learned.

    A third input is a gate, (N, C), that multiplies the first.
    """

    block: str
    alpha: float
    skip_gain: bool
    skip_gain_init: float

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        if not self.skip_gain:
            return ()
        init = Init("constant", self.skip_gain_init)
        return (Parameter(f"{self.block}.skip_gain", (), "skip_gain", init),)


@dataclass(frozen=True)
class GlobalPool(Op):
    """`scale` times the mean over height and width: (N, H, W, C) to (N, C)."""

    scale: float = 1.0


@dataclass(frozen=True)
class Dropout(Op):
    """In training, elements are zeroed with probability `rate`, kept ones divided by 1 - rate."""

    rate: float


@dataclass(frozen=True)
class Dense(Op):
    """The classifier: (N, in_features) to (N, out_features)."""

    in_features: int
    out_features: int
    init_std: float

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        init = Init("normal", self.init_std) if self.init_std else Init("constant", 0.0)
        shape = (self.in_features, self.out_features)
        return (
            Parameter(f"{self.name}.kernel", shape, "head", init),
            Parameter(f"{self.name}.bias", shape[1:], "bias", Init("constant", 0.0)),
        )


Operation = (
    WSConv | Conv | Activation | Pool | SqueezeExcite | ECA | StochasticDepth | Residual
    | GlobalPool | Dropout | Dense
)  # fmt: skip


def unknown_operation(op: Never, reader: str) -> TypeError:
    """The error to raise for an operation that a reader has no case for.

    The argument's type is `Never`: mypy refuses the call unless every kind has a case before it.

    Args:
        op: The operation.
        reader: Name of the reader, for the message.
    """
    return TypeError(f"{reader} does not know the operation {type(op).__name__} ({op.name})")


def _output(op: Operation, source: Tap) -> Tap:
    """Channels and stride of an operation's output, from those of the first operation it reads."""
    match op:
        case Convolution():
            stride = None if source.stride is None else source.stride * op.stride
            return Tap(op.out_channels, stride)
        case Pool():
            stride = None if source.stride is None else source.stride * op.stride
            return Tap(source.channels, stride)
        case GlobalPool() | SqueezeExcite(gate_only=True) | ECA(gate_only=True):
            return Tap(source.channels, None)
        case Dense():
            return Tap(op.out_features, source.stride)
        case Activation() | SqueezeExcite() | ECA() | StochasticDepth() | Residual() | Dropout():
            return source
        case _:
            raise unknown_operation(op, "Plan.tap_info")


@dataclass(frozen=True)
class Plan:
    """A network: operations in order, the taps worth comparing, the blocks for tables.

    Attributes:
        name, source: The spec's name, and where its numbers are from, which may be empty.
        family: The original's model family after which DeepMind's weight files name modules.
        digest: sha256 of the spec's canonical form; weights and reports carry it.
        canonical: The canonical form itself, as JSON.
        channels, train_size, test_size: Channels of an image, and its side in px, in training and
            in tests as they were published.
        ops: Operations in order of execution.
        taps: Tap name to operation name: stem, each block, features (after the final conv and
            activation, before pooling), pool, logits.
        blocks: One row for each residual block.
        agc, recipe: Settings of gradient clipping, of which `clipping.py` derives each parameter's
            rule, and the published training recipe, if there is one.
    """

    name: str
    source: str
    family: str
    digest: str
    canonical: str
    channels: int
    train_size: int
    test_size: int
    ops: tuple[Operation, ...]
    taps: Mapping[str, str]
    blocks: tuple[Block, ...]
    agc: AGC
    recipe: Recipe | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "taps", FrozenDict(self.taps))

    @cached_property
    def parameters(self) -> Mapping[str, Parameter]:
        """Canonical name to parameter, in order of execution."""
        return FrozenDict({p.name: p for op in self.ops for p in op.parameters})

    @cached_property
    def tap_info(self) -> Mapping[str, Tap]:
        """Tap name to channels and stride, in the order of `taps`."""
        outputs = {INPUT: Tap(self.channels, 1)}
        for op in self.ops:
            outputs[op.name] = _output(op, outputs[op.inputs[0]])
        return FrozenDict({tap: outputs[name] for tap, name in self.taps.items()})

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """The feature pyramid: the last tap of each stride, from the largest map to the smallest.
        `nfspec.compile(..., features=True)` returns these."""
        last = {tap.stride: name for name, tap in self.tap_info.items() if tap.stride is not None}
        return tuple(
            Feature(name, stride, self.tap_info[name].channels) for stride, name in last.items()
        )

    def section(self, op: Operation) -> str:
        """The part that an operation belongs to: `stem`, a block such as `stages.0.blocks.1`, or
        `head`."""
        first, _, rest = op.name.partition(".")
        if first == "stages":
            return ".".join(op.name.split(".")[:4])
        return first if first == "stem" and rest else "head"
