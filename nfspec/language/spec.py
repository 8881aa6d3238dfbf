"""The language nfspec/1: the tables and fields of a spec file, typed and strict.

Nothing that a network is made of has a default: what a file does not say, its `extends` says, so
that a resolved spec states every convention. The JSON Schema for editors is generated from these
models.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from nfspec.language.fields import (
    MAX_BLOCKS,
    MAX_STAGES,
    Beta,
    Channels,
    Column,
    Factor,
    Finite,
    Fraction,
    Gamma,
    KernelSize,
    Kind,
    NotNegative,
    NumberOr,
    PaddingMode,
    Pixels,
    Rounding,
    Stride,
    Table,
)
from nfspec.language.tables import AGC, Finetune, Recipe

SCHEMA = "nfspec/1"
NOT_INHERITED = ("name", "source")  # each file speaks for itself
NOT_THE_GRAPH = {"name", "source", "agc", "recipe", "finetune"}
SCALAR_COLUMNS = ("stride", "expansion", "group_width", "kernel", "alpha", "attention")


class Input(Table):
    """The image and how it is prepared for evaluation."""

    channels: Annotated[Channels, Field(description="Channels of the image.")]
    train: Annotated[Pixels, Field(description="Side of the training images, px.")]
    test: Annotated[Pixels, Field(description="Side of the evaluation images, px.")]
    mean: Annotated[tuple[Finite, ...], Field(description="Subtracted, of pixels in 0..1.")]
    std: Annotated[tuple[Factor, ...], Field(description="Divided by, after the mean.")]
    resize: Annotated[
        Literal["squash", "center"],
        Field(description="squash: whole image to a square; center: shorter side, then crop."),
    ]
    margin: Annotated[int, Field(ge=0, le=1_024, description="px cropped off after resizing.")]
    crop: Annotated[
        float,
        Field(ge=0.01, le=1, description="Fraction kept of the resized side; 1 with a margin."),
    ]


class Stem(Table):
    """The convs before the first block; activations between them, none after the last."""

    width: Annotated[
        tuple[Channels, ...],
        Field(min_length=1, max_length=16, description="Output channels of each conv."),
    ]
    kernel: Annotated[Column[KernelSize], Field(description="Kernel side of each conv.")]
    stride: Annotated[Column[Stride], Field(description="Stride of each conv.")]
    padding: Annotated[
        Literal["same", "symmetric", "valid"],
        Field(description="same: TF's rule, the extra pixel at the end; symmetric: PyTorch's."),
    ]
    pool: Annotated[
        Literal["none", "max"], Field(description="max: 3x3 max pool of stride 2 after the stem.")
    ]


class Stages(Table):
    """One column for each property, one entry for each stage; a single value serves all stages."""

    depth: Annotated[
        tuple[Annotated[int, Field(ge=1, le=MAX_BLOCKS)], ...],
        Field(min_length=1, max_length=MAX_STAGES, description="Blocks in each stage."),
    ]
    width: Annotated[
        tuple[Channels, ...],
        Field(min_length=1, max_length=MAX_STAGES, description="Output channels, before rounding."),
    ]
    width_factor: Annotated[Factor, Field(description="Multiplies every width.")]
    stride: Annotated[Column[Stride], Field(description="Stride of each stage's first block.")]
    expansion: Annotated[
        Column[Factor], Field(description="Bottleneck width over block.mid_from's width.")
    ]
    group_width: Annotated[
        Column[NumberOr[Channels, Literal["none"]]],
        Field(description="Channels in each group of the kxk convs; none: one group."),
    ]
    kernel: Annotated[Column[KernelSize], Field(description="Kernel side of the grouped convs.")]
    alpha: Annotated[Column[Finite], Field(description="Scale of the residual branch.")]
    beta: Annotated[
        Beta,
        Field(description="auto: 1/expected std; or a number, one a stage, or a list a stage."),
    ]
    attention: Annotated[
        Column[Literal["se", "eca", "none"]], Field(description="Channel attention of the blocks.")
    ]

    @property
    def count(self) -> int:
        return len(self.depth)

    def column(self, name: str) -> tuple[Any, ...]:
        """A column at full length, a single value repeated for every stage."""
        value = getattr(self, name)
        return value if isinstance(value, tuple) else (value,) * self.count


class BlockTable(Table):
    """The wiring of a block: 1x1 conv0, kxk conv1 (and conv1b), 1x1 conv2, and the shortcut."""

    convs: Annotated[int, Field(ge=1, le=2, description="kxk convs in a block.")]
    mid_from: Annotated[
        Literal["out", "in"], Field(description="The width that expansion multiplies.")
    ]
    first_expansion: Annotated[
        NumberOr[Factor, Literal["same"]],
        Field(description="Expansion of the network's first block; same: its stage's."),
    ]
    shortcut: Annotated[
        Literal["avg_pool", "strided_conv"],
        Field(
            description="How a shortcut downsamples: 2x2 average pool and 1x1 conv, or one conv."
        ),
    ]
    shortcut_input: Annotated[
        Literal["activated", "raw"], Field(description="What a projection shortcut reads.")
    ]
    skip_gain: Annotated[bool, Field(description="A learned scalar on the residual branch.")]
    skip_gain_init: Annotated[Finite, Field(description="Its initial value.")]
    conv2_gain_init: Annotated[Finite, Field(description="Initial gain of the last conv.")]


class RoundingTable(Table):
    """How derived widths become whole numbers."""

    channels: Annotated[
        Rounding,
        Field(description="floor: down to a multiple; nearest: to one, never below 90 %."),
    ]
    divisor: Annotated[int, Field(ge=1, le=1_024, description="The multiple.")]
    groups: Annotated[
        Literal["floor", "exact"],
        Field(description="floor: bottleneck width down to whole groups; exact: else an error."),
    ]


class WS(Table):
    """Scaled weight standardisation."""

    eps: Annotated[
        float, Field(gt=0, le=1, description="Keeps the scale finite where weights are alike.")
    ]
    eps_rule: Annotated[
        Literal["max", "add", "add_to_std"],
        Field(description="max: max(fan_in*var, eps); add: var + eps; add_to_std: std + eps."),
    ]
    ddof: Annotated[int, Field(ge=0, le=1, description="0: biased variance; 1: unbiased.")]
    dtype: Annotated[
        Literal["float32", "compute"],
        Field(description="Where statistics are computed under mixed precision."),
    ]


class ActivationTable(Table):
    """The nonlinearity and its variance-preserving gamma."""

    kind: Annotated[Kind, Field(description="f; gelu_tanh is the approximation, gelu_erf exact.")]
    slope: Annotated[float, Field(ge=0, le=1, description="Of leaky_relu, for x < 0.")]
    gamma: Annotated[
        Gamma, Field(description="deepmind: the original's digits; exact: by quadrature.")
    ]
    gamma_at: Annotated[
        Literal["activation", "weight"],
        Field(description="activation: multiplies its output; weight: every conv's kernel."),
    ]
    beta_at: Annotated[
        Literal["after", "before"],
        Field(description="after: beta*f(x), the original code; before: f(beta*x), the paper."),
    ]


class Conv(Table):
    """What all convs share."""

    padding: Annotated[PaddingMode, Field(description="Of every conv and pool but the stem's.")]
    init_scale: Annotated[Factor, Field(description="Initial kernel variance times fan-in.")]


class Attention(Table):
    """Where channel attention sits, and its gain."""

    position: Annotated[
        Literal["last", "mid"], Field(description="last: after conv2; mid: after the kxk convs.")
    ]
    gain: Annotated[Factor, Field(description="Multiplies the gated output.")]


class SE(Table):
    """Squeeze-and-excitation."""

    ratio: Annotated[Factor, Field(description="Hidden over input channels.")]
    rounding: Annotated[Rounding, Field(description="Of the hidden width: down, or to nearest.")]
    divisor: Annotated[int, Field(ge=1, le=1_024, description="To a multiple of this.")]
    activation: Annotated[Kind, Field(description="Between the two dense layers.")]
    gamma: Annotated[Gamma, Field(description="Multiplies that activation.")]
    init: Annotated[
        Literal["normal", "truncated_normal"],
        Field(description="Of the kernels, of standard deviation 1/sqrt(fan_in)."),
    ]


class EcaTable(Table):
    """Efficient channel attention."""

    kernel: Annotated[
        NumberOr[Annotated[int, Field(ge=1, le=63)], Literal["auto"]],
        Field(description="Taps, odd; auto: from the channels, at least 3."),
    ]


class Drop(Table):
    """Stochastic depth."""

    rate: Annotated[Fraction, Field(description="Chance of dropping a residual, rising by block.")]
    schedule: Annotated[
        Literal["exclusive", "inclusive"],
        Field(description="Block i of n: rate*i/n, or rate*i/(n-1), which reaches rate."),
    ]
    rescale: Annotated[bool, Field(description="Divide kept residuals by 1 - rate.")]


class Head(Table):
    """Final conv, pooling and classifier."""

    classes: Annotated[int, Field(ge=1, le=1_000_000, description="Outputs of the classifier.")]
    conv: Annotated[
        Literal["none", "ratio", "width"],
        Field(description="The final 1x1 conv: none, conv_ratio times the last stage, conv_width."),
    ]
    conv_ratio: Annotated[Factor, Field(description='Used where conv = "ratio".')]
    conv_width: Annotated[int, Field(ge=0, le=65_536, description='Used where conv = "width".')]
    dropout: Annotated[Fraction, Field(description="Before the classifier.")]
    init_std: Annotated[NotNegative, Field(description="Of the classifier's kernel.")]


@dataclass(frozen=True)
class Origin:
    """Where a value was written: file, line and column (1-based); 0 of what is in no file."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Spec(Table):
    """A whole network, with nothing left to defaults. Made by `nfspec.load`."""

    schema_: Literal["nfspec/1"] = Field(alias="schema", description="Version of the language.")
    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+/-]{0,79}$", description="Name of the network."),
    ]
    source: Annotated[str, Field(max_length=500, description="Where the numbers are from.")] = ""
    family: Annotated[
        Literal["nfnet", "nf_regnet", "nf_resnet"],
        Field(description="Whose module names DeepMind weight files use."),
    ]
    input: Input
    stem: Stem
    stages: Stages
    block: BlockTable
    rounding: RoundingTable
    ws: WS
    activation: ActivationTable
    conv: Conv
    attention: Attention
    se: SE
    eca: EcaTable
    stochastic_depth: Drop
    head: Head
    agc: AGC
    recipe: Recipe | None = None
    finetune: Finetune | None = None

    _over: tuple[str, ...] = PrivateAttr(default=())  # labels of what was put over it, last first
    _origins: dict[tuple[str | int, ...], Origin] = PrivateAttr(default_factory=dict)

    def origin(self, path: tuple[str | int, ...]) -> Origin | None:
        """Where the value at a path, or the nearest table around it, was written."""
        for n in range(len(path), 0, -1):
            if (origin := self._origins.get(path[:n])) is not None:
                return origin
        return None

    def canonical(self) -> str:
        """The network's meaning as canonical JSON: every column at full length, keys sorted.

        What does not change the graph is left out: name, source, agc, recipe and finetune.
        """
        data = self.model_dump(by_alias=True, exclude=NOT_THE_GRAPH)
        for column in SCALAR_COLUMNS:
            data["stages"][column] = self.stages.column(column)
        return json.dumps(data, sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """sha256 of the canonical form, hexadecimal."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()
