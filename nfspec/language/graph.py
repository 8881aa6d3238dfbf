"""The tables of a spec that determine the network: its input, wiring, widths and conventions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from nfspec.language.fields import (
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


class Input(Table):
    """The image and how it is prepared for evaluation."""

    channels: Annotated[Channels, Field(description="Channels of an image.")]
    train: Annotated[Pixels, Field(description="Side of the training images, in px.")]
    test: Annotated[Pixels, Field(description="Side of the evaluation images, in px.")]
    mean: Annotated[
        tuple[Finite, ...],
        Field(description="Mean of each channel, subtracted from pixels in 0..1."),
    ]
    std: Annotated[
        tuple[Factor, ...],
        Field(description="Standard deviation of each channel, which divides centred pixels."),
    ]
    resize: Annotated[
        Literal["squash", "center"],
        Field(description="squash: resize all to a square; center: the shorter side, then crop."),
    ]
    margin: Annotated[
        int,
        Field(ge=0, le=1_024, description="Pixels that the crop takes off the resized side."),
    ]
    crop: Annotated[
        float,
        Field(
            ge=0.01,
            le=1,
            description=(
                "Fraction of the resized side that the crop keeps; 1 where there is a margin."
            ),
        ),
    ]


class Stem(Table):
    """The convs before the first block; activations between them, none after the last."""

    width: Annotated[
        tuple[Channels, ...],
        Field(
            min_length=1,
            max_length=16,
            description="Output channels of each conv; a number is for a stem with a name.",
        ),
    ]
    kernel: Annotated[Column[KernelSize], Field(description="Kernel side of each conv.")]
    stride: Annotated[Column[Stride], Field(description="Stride of each conv.")]
    padding: Annotated[
        Literal["same", "symmetric", "valid"],
        Field(
            description=(
                "same: TensorFlow's rule, the extra pixel at the end; symmetric: "
                "PyTorch's; valid: none."
            )
        ),
    ]
    pool: Annotated[
        Literal["none", "max"],
        Field(description="max: a 3x3 max pool of stride 2 after the stem; none: no pool."),
    ]


class BlockTable(Table):
    """The wiring of a block: 1x1 conv0, kxk conv1 (and conv1b), 1x1 conv2, and the shortcut."""

    convs: Annotated[int, Field(ge=1, le=2, description="Number of kxk convs in a block.")]
    mid_from: Annotated[
        Literal["out", "in"],
        Field(description="The width that expansion multiplies: the block's output or its input."),
    ]
    first_expansion: Annotated[
        NumberOr[Factor, Literal["same"]],
        Field(description="Expansion of the network's first block; same: that of its stage."),
    ]
    shortcut: Annotated[
        Literal["avg_pool", "strided_conv"],
        Field(
            description=(
                "Downsampling of a shortcut: a 2x2 average pool and a 1x1 conv, or one "
                "strided conv."
            )
        ),
    ]
    shortcut_input: Annotated[
        Literal["activated", "raw"],
        Field(
            description="Input of a projection shortcut: the activated block input, or the raw one."
        ),
    ]
    skip_gain: Annotated[
        bool, Field(description="True if a learned scalar multiplies the residual branch.")
    ]
    skip_gain_init: Annotated[Finite, Field(description="Initial value of the skip gain.")]
    conv2_gain_init: Annotated[Finite, Field(description="Initial gain of the last conv, conv2.")]


class RoundingTable(Table):
    """The rules by which derived widths become whole numbers."""

    channels: Annotated[
        Rounding,
        Field(
            description=(
                "floor: down to a multiple of divisor; nearest: to the nearest one, "
                "never below 90 %."
            )
        ),
    ]
    divisor: Annotated[
        int, Field(ge=1, le=1_024, description="Widths are rounded to a multiple of this.")
    ]
    groups: Annotated[
        Literal["floor", "exact"],
        Field(
            description=(
                "floor: cut the bottleneck's width to whole groups; exact: refuse a "
                "width that does not divide."
            )
        ),
    ]


class WS(Table):
    """Scaled weight standardisation.

    A column is one value for all convs, or one for each stage: the stem then has that of the first
    stage, and the final conv that of the last.
    """

    eps: Annotated[
        Column[Annotated[float, Field(gt=0, le=1)]],
        Field(
            description=(
                "Number that keeps the scale finite where all weights are alike; one for all, or "
                "one for each stage: the stem has the first, the final conv the last."
            ),
        ),
    ]
    eps_rule: Annotated[
        Column[Literal["max", "add", "add_to_std", "none"]],
        Field(
            description=(
                "Where eps enters: max: max(fan_in*var, eps); add: var + eps; add_to_std: std + "
                "eps; none: nowhere, kernels are not standardised. One for all, or for each stage, "
                "as eps."
            )
        ),
    ]
    ddof: Annotated[
        Column[Annotated[int, Field(ge=0, le=1)]],
        Field(
            description=(
                "0: biased variance, over N; 1: unbiased variance, over N - 1; one for all, or for "
                "each stage, as eps."
            )
        ),
    ]
    gain: Annotated[
        Column[bool],
        Field(
            description=(
                "True if each conv learns a gain for each output; one for all, or for each stage, "
                "as eps."
            )
        ),
    ] = True
    dtype: Annotated[
        Literal["float32", "compute"],
        Field(
            description=(
                "Precision of the statistics under mixed precision: float32, or that of "
                "the computation; one for all, as it is a setting of a run, not of a stage."
            )
        ),
    ]

    def column(self, name: str, count: int) -> tuple[Any, ...]:
        """A field at the length of `count` stages, a single value repeated for every stage."""
        value = getattr(self, name)
        return value if isinstance(value, tuple) else (value,) * count


class ActivationTable(Table):
    """The nonlinearity and its variance-preserving gamma."""

    kind: Annotated[
        Kind,
        Field(
            description=(
                "The nonlinearity f; gelu_tanh is the approximation, gelu_erf the exact function."
            )
        ),
    ]
    slope: Annotated[float, Field(ge=0, le=1, description="Slope of leaky_relu for x < 0.")]
    gamma: Annotated[
        Gamma,
        Field(description="A number; or deepmind: the original's digits; exact: by quadrature."),
    ]
    gamma_at: Annotated[
        Literal["activation", "weight"],
        Field(
            description=(
                "What gamma multiplies: the output of each activation, or the kernel of each conv."
            )
        ),
    ]
    beta_at: Annotated[
        Literal["after", "before"],
        Field(description="after: beta*f(x), the original code; before: f(beta*x), the paper."),
    ]


class Conv(Table):
    """The conventions that all convs share."""

    padding: Annotated[
        PaddingMode,
        Field(description="Padding of every conv and pool but the stem's, as stem.padding."),
    ]
    init_scale: Annotated[
        Factor, Field(description="Variance of the initial kernel, times the fan-in.")
    ]


class Attention(Table):
    """The place of channel attention, and its gain."""

    position: Annotated[
        Literal["last", "mid"], Field(description="last: after conv2; mid: after the kxk convs.")
    ]
    gain: Annotated[Factor, Field(description="Factor that multiplies the gated output.")]


class SE(Table):
    """Squeeze-and-excitation."""

    ratio: Annotated[Factor, Field(description="Hidden channels divided by input channels.")]
    rounding: Annotated[
        Rounding,
        Field(
            description=(
                "Rounding of the hidden width: down to a multiple of divisor, or to the "
                "nearest one."
            )
        ),
    ]
    divisor: Annotated[
        int, Field(ge=1, le=1_024, description="The hidden width is rounded to a multiple of this.")
    ]
    activation: Annotated[Kind, Field(description="Activation between the two dense layers.")]
    gamma: Annotated[
        Gamma,
        Field(
            description=(
                "gamma of that activation: the original's digits, by quadrature, or a number."
            )
        ),
    ]
    init: Annotated[
        Literal["normal", "truncated_normal"],
        Field(
            description=(
                "Initial distribution of the kernels, with standard deviation 1/sqrt(fan_in)."
            )
        ),
    ]


class EcaTable(Table):
    """Efficient channel attention."""

    kernel: Annotated[
        NumberOr[Annotated[int, Field(ge=1, le=63)], Literal["auto"]],
        Field(
            description=(
                "Taps of the kernel, an odd number; auto: computed from the channels, at least 3."
            )
        ),
    ]


class Drop(Table):
    """Stochastic depth."""

    rate: Annotated[
        Fraction,
        Field(
            description=(
                "Probability that the deepest block's residual is dropped; it rises from "
                "0 by block."
            )
        ),
    ]
    schedule: Annotated[
        Literal["exclusive", "inclusive"],
        Field(
            description=(
                "Rate of block i of n: exclusive: rate*i/n; inclusive: rate*i/(n-1), "
                "which reaches rate."
            )
        ),
    ]
    rescale: Annotated[bool, Field(description="True if kept residuals are divided by 1 - rate.")]


class Head(Table):
    """Final conv, pooling and classifier."""

    classes: Annotated[
        int, Field(ge=1, le=1_000_000, description="Number of outputs of the classifier.")
    ]
    conv: Annotated[
        Literal["none", "ratio", "width"],
        Field(
            description=(
                "Width of the final 1x1 conv: conv_ratio times the last stage's, or "
                "conv_width; none: no conv."
            )
        ),
    ]
    conv_ratio: Annotated[
        Factor,
        Field(
            description=(
                'Width of the final conv divided by that of the last stage, where conv = "ratio".'
            )
        ),
    ]
    conv_width: Annotated[
        int, Field(ge=0, le=65_536, description='Channels of the final conv, where conv = "width".')
    ]
    dropout: Annotated[
        Fraction, Field(description="Dropout rate before the classifier, in training.")
    ]
    init_std: Annotated[
        NotNegative,
        Field(description="Standard deviation of the classifier's initial kernel; 0: zeros."),
    ]
