"""A Plan as a person would write it down: one kind of block, and a row of numbers for each.

A Plan is flat, which readers of numbers want. Source wants its structure: a stem, blocks that are
calls of one function with the numbers that differ, a head, and the conventions that the whole
network shares. Everything here is taken from the plan's operations and blocks; what a plan of
`nfspec.resolve` may vary between blocks is a column of `Blocks`, all else is one record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from nfspec.errors import InputError
from nfspec.generation.blocks import Blocks, Drop, blocks_of, drop_of, one
from nfspec.generation.folded import apart, scalars_left
from nfspec.generation.standard import Standard, standard
from nfspec.plan import (
    ECA,
    FEATURES,
    Activation,
    Block,
    Conv,
    Convolution,
    Dense,
    Dropout,
    Operation,
    Padding,
    Plan,
    Pool,
    Residual,
    SqueezeExcite,
    WSConv,
)
from nfspec.plan.clipping import clip_rules
from nfspec.plan.standardisation import one_for_all

CLASSES = {"nfnet": "NFNet", "nf_regnet": "NFRegNet", "nf_resnet": "NFResNet"}


@dataclass(frozen=True)
class Clipping:
    """AGC as a rule and its exceptions.

    Attributes:
        unit: As `[agc] unit` in a spec.
        eps: Least norm of a parameter that is used.
        clipping: lambda of most parameters.
        exceptions: Canonical name to lambda of the others; None where a gradient is left alone.
    """

    unit: Literal["squeeze", "timm", "output", "element", "tensor"]
    eps: float
    clipping: float
    exceptions: Mapping[str, float | None]


@dataclass(frozen=True)
class View:
    """A plan, seen by a template.

    Attributes:
        plan: The plan.
        stem: Operations of the stem, in order.
        blocks: The residual blocks.
        conv: A conv of the blocks, for what all convs share: gamma, and the dtype of statistics,
            but in a folded plan.
        ws: Weight standardisation, which may differ between stages.
        act: An activation, for what all share.
        padding: Padding of the convs that are not the stem's.
        init_scale: Variance of an initial kernel times its fan-in.
        se: A squeeze-excite, for its gain, activation, gamma and initial values; None without one.
        eca: An ECA, for its gain; None without one.
        scale: Factor of the features and of the stem's map, which the activations of a folded plan
            lack; 1 in other plans.
        residual: A residual sum, for its skip gain.
        drop: The schedule of stochastic depth; None without it.
        final_conv: The conv before the head; None without one.
        dropout: Dropout rate before the classifier; 0 without dropout.
        dense: The classifier.
    """

    plan: Plan
    stem: tuple[Operation, ...]
    blocks: Blocks
    conv: Convolution
    ws: Standard
    act: Activation
    padding: Padding
    init_scale: float
    se: SqueezeExcite | None
    eca: ECA | None
    scale: float
    residual: Residual
    drop: Drop | None
    final_conv: Convolution | None
    dropout: float
    dense: Dense

    @property
    def timm(self) -> bool:
        """True for a network of timm's, whose weight files have timm's names."""
        uneven = one_for_all(self.plan)
        return self.plan.name.startswith("timm/") and not self.folded and not uneven

    @property
    def folded(self) -> bool:
        """True for a network for inference, whose kernels are used as they are."""
        return isinstance(self.conv, Conv)

    @property
    def gated(self) -> bool:
        """True if attention gives the factor of the branch, which alpha and skip gain multiply."""
        return any(op.gate_only for op in (self.se, self.eca) if op is not None)

    @property
    def digest(self) -> str:
        """sha256 of the spec, which a folded plan has, too."""
        return hashlib.sha256(self.plan.canonical.encode()).hexdigest()

    @property
    def class_name(self) -> str:
        return CLASSES[self.plan.family]

    @property
    def convs(self) -> tuple[Convolution, ...]:
        return tuple(op for op in self.plan.ops if isinstance(op, Convolution))

    @property
    def gains(self) -> tuple[float, ...]:
        """Initial gains that occur, the most common first."""
        convs = [conv for conv in self.convs if isinstance(conv, WSConv)]
        values = [conv.gain_init for conv in convs if conv.gain_init is not None] or [1.0]
        return tuple(sorted(dict.fromkeys(values), key=values.count, reverse=True))

    @property
    def middle(self) -> tuple[str, ...]:
        """Local names of a block's kxk convs: `conv1`, and `conv1b` where there are two."""
        names = [f"{self.blocks.rows[0].name}.{name}" for name in ("conv1", "conv1b")]
        return tuple(name.rpartition(".")[2] for name in names if name in self.names)

    @cached_property
    def names(self) -> Mapping[str, Operation]:
        return {op.name: op for op in self.plan.ops}

    @property
    def attention_last(self) -> bool:
        """True if attention follows conv2; False if it follows the kxk convs."""
        kinds = (SqueezeExcite, ECA)
        ops = [op for op in self.plan.ops if isinstance(op, kinds)]
        return all(op.inputs[0].endswith(".conv2") for op in ops)

    @property
    def raw_shortcut(self) -> bool:
        """True if the shortcut's conv reads the block's input, and not its activation."""
        row = next((row for row in self.blocks.rows if row.shortcut != "identity"), None)
        if row is None:
            return False
        first = "shortcut_pool" if row.shortcut == "pool_conv" else "conv_shortcut"
        return self.names[f"{row.name}.{first}"].inputs != self.names[f"{row.name}.conv0"].inputs

    @property
    def max_pool(self) -> Pool | None:
        return next((op for op in self.stem if isinstance(op, Pool)), None)

    @property
    def stem_feature(self) -> int:
        """Number of operations of the stem up to its feature map, as timm takes it: before the
        last operation with a stride, where more than one has one."""
        strided = [
            n
            for n, op in enumerate(self.stem)
            if isinstance(op, Convolution | Pool) and op.stride > 1
        ]
        return strided[-1] if len(strided) > 1 else len(self.stem)

    @cached_property
    def features(self) -> tuple[tuple[str, int, int], ...]:
        """Name, channels and stride of each feature map: of the stem, and after each stage."""
        info = self.plan.tap_info
        strided = [
            op for op in self.stem[: self.stem_feature] if isinstance(op, Convolution | Pool)
        ]
        stride = 1
        for op in strided:
            stride *= op.stride
        last = [op for op in strided if isinstance(op, Convolution)][-1]
        maps = [("stem", last.out_channels, stride)]
        for row in self.blocks.rows:
            if row.index == sum(other.stage == row.stage for other in self.blocks.rows) - 1:
                tap = info[row.name]
                maps.append((f"stages.{row.stage}", tap.channels, tap.stride or 0))
        if self.final_conv is not None:
            maps[-1] = ("final_conv", self.final_conv.out_channels, maps[-1][2])
        return tuple(maps)

    @property
    def stages(self) -> tuple[tuple[Block, ...], ...]:
        """The blocks of each stage."""
        count = self.blocks.rows[-1].stage + 1
        return tuple(
            tuple(row for row in self.blocks.rows if row.stage == stage) for stage in range(count)
        )

    @property
    def paddings(self) -> tuple[Padding, ...]:
        """Paddings of convs with kernels above 1, the most common first."""
        padded = [conv.padding for conv in self.convs if conv.kernel > 1]
        return tuple(sorted(dict.fromkeys(padded), key=padded.count, reverse=True)) or ("valid",)

    @property
    def _same(self) -> tuple[tuple[int, int], ...]:
        """Kernel and stride of the convs, and the max pool, that pad by `same`."""
        convs = [(op.kernel, op.stride) for op in self.convs if op.padding == "same"]
        pool = self.max_pool
        return (
            (*convs, (pool.window, pool.stride)) if pool and pool.padding == "same" else (*convs,)
        )

    @property
    def short_kernels(self) -> bool:
        """True if something pads by `same` whose kernel, above 1, is smaller than its stride."""
        return any(1 < kernel < stride for kernel, stride in self._same)

    @property
    def pads(self) -> bool:
        """True if the side of an image decides how something pads. The 2x2 average pool needs no
        padding, since its windows may end beyond the image."""
        return any(kernel > 1 and stride > 1 for kernel, stride in self._same)

    @property
    def strided_points(self) -> bool:
        """True if a 1x1 conv, which needs no padding, has a stride."""
        return any(conv.kernel == 1 and conv.stride > 1 for conv in self.convs)

    @property
    def last_gain(self) -> float:
        """Initial gain of a block's last conv."""
        conv2 = self.names[f"{self.blocks.rows[0].name}.conv2"]
        if isinstance(conv2, WSConv) and conv2.gain_init is not None:
            return conv2.gain_init
        return 1.0

    @property
    def clipping(self) -> Clipping | None:
        """The rule of AGC; None for a network that trains without, or not at all."""
        agc = self.plan.agc
        if self.folded or not agc.enabled:
            return None
        rules = {name: rule.clipping for name, rule in clip_rules(self.plan).items()}
        values = [value for value in rules.values() if value is not None]
        common = max(dict.fromkeys(values), key=values.count, default=agc.clipping)
        exceptions = {name: value for name, value in rules.items() if value != common}
        return Clipping(agc.unit, agc.eps, common, exceptions)


def view(plan: Plan) -> View:
    """See a plan as a template needs it.

    Args:
        plan: What `nfspec.resolve` or `nfspec.fold` returned.

    Raises:
        InputError: The plan has been rewritten, so that a number differs which all blocks of a
            network as written share.
    """
    plan = apart(plan)
    residuals = [op for op in plan.ops if isinstance(op, Residual)]
    convs = [op for op in plan.ops if isinstance(op, Convolution)]
    folded = isinstance(convs[0], Conv)
    if not folded and any(len(op.inputs) > 2 for op in residuals):
        raise InputError("generate: the plan is rewritten; give the plan of nfspec.resolve")
    if folded:
        plan = replace(plan, blocks=scalars_left(plan))
    acts = [op for op in plan.ops if isinstance(op, Activation) and op.name != FEATURES]
    for field in () if folded else ("dtype", "gamma"):
        one((getattr(conv, field) for conv in convs), f"{field} of convs")
    for field in ("kind", "slope", "gamma", "beta_at"):
        one((getattr(act, field) for act in acts), f"{field} of activations")
    stem = tuple(op for op in plan.ops if plan.section(op) == "stem")
    inner = next(op for op in convs if plan.section(op).startswith("stages."))
    spread = inner.parameters[0].init.value
    features = next((op for op in plan.ops if op.name == FEATURES), None)
    return View(
        plan=plan,
        stem=stem,
        blocks=blocks_of(plan),
        conv=inner,
        ws=standard(plan, inner),
        act=acts[0],
        padding=one((op.padding for op in convs if op not in stem), "padding"),
        init_scale=round(spread**2 * inner.fan_in, 12),
        se=next((op for op in plan.ops if isinstance(op, SqueezeExcite)), None),
        eca=next((op for op in plan.ops if isinstance(op, ECA)), None),
        scale=features.gamma if isinstance(features, Activation) else 1.0,
        residual=next((op for op in residuals if op.skip_gain), residuals[0]),
        drop=drop_of(plan),
        final_conv=next((op for op in convs if op.name == "final_conv"), None),
        dropout=next((op.rate for op in plan.ops if isinstance(op, Dropout)), 0.0),
        dense=next(op for op in plan.ops if isinstance(op, Dense)),
    )
