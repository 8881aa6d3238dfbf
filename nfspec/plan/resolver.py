"""Spec to Plan: the only place that computes widths, groups, betas, rates and wiring.

Sources: Brock et al. 2021 (arXiv:2102.06171 §4, arXiv:2101.08692 §3) and the code they came with,
deepmind-research/nfnets/{nfnet,nf_regnet,nf_resnet,base}.py; timm/models/nfnet.py where a field
says so.
"""

from __future__ import annotations

import math
from typing import Literal

from nfspec.arguments import instance
from nfspec.language.spec import WS_COLUMNS, Spec
from nfspec.language.validation import Key
from nfspec.plan import (
    ECA,
    FEATURES,
    INPUT,
    Activation,
    Block,
    Dense,
    Dropout,
    GlobalPool,
    Init,
    Operation,
    Padding,
    Plan,
    Pool,
    Residual,
    SqueezeExcite,
    StochasticDepth,
    WSConv,
)
from nfspec.plan.activations import DEEPMIND_SLOPE
from nfspec.plan.arithmetic import eca_taps, gamma_of, rounded
from nfspec.plan.bottleneck import Widths
from nfspec.plan.checks import WIDTHS_COME_FROM, Problems, check, check_plan, stage_path
from nfspec.plan.rows import BlockNumbers, StageRow, stage_rows


def resolve(spec: Spec, stand_ins: frozenset[Key] = frozenset()) -> Plan:
    """Compute the plan of a spec: every width, beta and rate, and the operations in order.

    Args:
        spec: The spec.
        stand_ins: Paths whose values replace the author's own, which could not be used; no problem
            is reported for them.

    Raises:
        SpecError: The fields are well formed but no network can be made of them; has every reason.
        InputError: Something else than a spec.
    """
    problems = Problems(instance("spec", spec, Spec, "nfspec.load"), stand_ins)
    check(spec, problems)
    plan = _Builder(spec, problems).build()
    check_plan(plan, problems)
    return plan


class _Builder:
    """Appends operations; each method returns the name of the operation whose output it leaves."""

    def __init__(self, spec: Spec, problems: Problems):
        self.spec = spec
        self.problems = problems
        self.ops: list[Operation] = []
        self.blocks: list[Block] = []
        self.taps: dict[str, str] = {}
        self.widths = Widths(spec, problems)
        columns = [spec.ws.column(name, spec.stages.count) for name in WS_COLUMNS]
        self.ws = [
            dict(zip(WS_COLUMNS, of_stage, strict=True)) for of_stage in zip(*columns, strict=True)
        ]
        act = spec.activation
        gamma = gamma_of(act.gamma, act.kind, act.slope)
        self.act_gamma, self.weight_gamma = (
            (gamma, 1.0) if act.gamma_at == "activation" else (1.0, gamma)
        )

    def build(self) -> Plan:
        spec = self.spec
        at, channels = self._stem()
        at, channels = self._stages(at, channels)
        self._head(at, channels)
        return Plan(
            name=spec.name,
            source=spec.source,
            family=spec.family,
            digest=spec.digest,
            canonical=spec.canonical(),
            channels=spec.input.channels,
            train_size=spec.input.train,
            test_size=spec.input.test,
            ops=tuple(self.ops),
            taps=self.taps,
            blocks=tuple(self.blocks),
            agc=spec.agc,
            recipe=spec.recipe,
        )

    def _add(self, op: Operation) -> str:
        self.ops.append(op)
        return op.name

    def _conv(
        self,
        name: str,
        at: str,
        channels: tuple[int, int],
        *,
        path: Key,
        stage: int,
        kernel: int = 1,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        padding: Padding | None = None,
        gain_init: float = 1.0,
    ) -> str:
        """A conv, standardised as `[ws]` says of a stage: the stem's of the first, the head's of
        the last."""
        spec, ws = self.spec, self.ws[stage]
        fan_in = max(1, kernel**2 * channels[0] // groups)
        if fan_in == 1 and ws["eps_rule"] != "none":
            message = (
                f"{name} would have one weight for each output (fan-in 1), which weight "
                "standardisation turns into zero; use more channels or a larger kernel"
            )
            self.problems.add("SPEC-FAN-IN", path, message, *WIDTHS_COME_FROM)
        return self._add(
            WSConv(
                name,
                (at,),
                in_channels=channels[0],
                out_channels=channels[1],
                kernel=kernel,
                stride=stride,
                dilation=dilation,
                groups=groups,
                padding=padding or spec.conv.padding,
                eps=ws["eps"],
                eps_rule=ws["eps_rule"],
                ddof=ws["ddof"],
                dtype=spec.ws.dtype,
                gamma=self.weight_gamma,
                kernel_init=Init("normal", math.sqrt(spec.conv.init_scale / fan_in)),
                gain_init=gain_init if ws["gain"] else None,
            )
        )

    def _act(self, name: str, at: str, beta: float = 1.0) -> str:
        act = self.spec.activation
        return self._add(
            Activation(name, (at,), act.kind, act.slope, self.act_gamma, beta, act.beta_at)
        )

    def _attention(self, kind: str, name: str, at: str, channels: int) -> tuple[str, int]:
        """Channel attention: the output's name, and SE's hidden width or ECA's kernel."""
        spec = self.spec
        if kind == "none":
            return at, 0
        if kind == "se":
            hidden = rounded(channels * spec.se.ratio, spec.se.rounding, spec.se.divisor, 0.0)
            op: Operation = SqueezeExcite(
                f"{name}.se",
                (at,),
                channels=channels,
                hidden=max(1, hidden),
                gain=spec.attention.gain,
                activation=spec.se.activation,
                slope=DEEPMIND_SLOPE,
                gamma=gamma_of(spec.se.gamma, spec.se.activation, DEEPMIND_SLOPE),
                init=spec.se.init,
            )
            return self._add(op), max(1, hidden)
        taps = eca_taps(channels) if spec.eca.kernel == "auto" else spec.eca.kernel
        op = ECA(f"{name}.eca", (at,), channels=channels, kernel=taps, gain=spec.attention.gain)
        return self._add(op), taps

    def _stem(self) -> tuple[str, int]:
        stem, at, channels = self.spec.stem, INPUT, self.spec.input.channels
        n = len(stem.width)
        kernels = stem.kernel if isinstance(stem.kernel, tuple) else (stem.kernel,) * n
        strides = stem.stride if isinstance(stem.stride, tuple) else (stem.stride,) * n
        for i, (width, kernel, stride) in enumerate(zip(stem.width, kernels, strides, strict=True)):
            if i:
                at = self._act(f"stem.act{i - 1}", at)
            at = self._conv(
                f"stem.conv{i}",
                at,
                (channels, width),
                path=("stem", "width", i),
                stage=0,
                kernel=kernel,
                stride=stride,
                padding=stem.padding,
            )
            channels = width
        if stem.pool == "max":
            at = self._add(Pool("stem.pool", (at,), "max", 3, 2, self.spec.conv.padding))
        self.taps["stem"] = at
        return at, channels

    def _stages(self, at: str, channels: int) -> tuple[str, int]:
        variance = 1.0  # expected variance of the block's input at initialisation
        for row in stage_rows(self.spec):
            out = self.widths.of_stage(row.stage)
            for b in range(row.depth):
                block = self._numbers(row, b, (channels, out), variance)
                at = self._block(at, block, row)
                channels = out
                # The first block's shortcut conv resets the variance; the block adds its own.
                variance = (1.0 if b == 0 else variance) + row.alpha**2
        return at, channels

    def _numbers(
        self, row: StageRow, b: int, channels: tuple[int, int], variance: float
    ) -> BlockNumbers:
        """Every number of a block but the size of its attention."""
        asked, mid, groups = self.widths.bottleneck(row, b, channels)
        return BlockNumbers(
            name=f"stages.{row.stage}.blocks.{b}",
            index=b,
            in_channels=channels[0],
            mid_channels=mid,
            requested_mid_channels=asked,
            out_channels=channels[1],
            groups=groups,
            stride=row.stride if b == 0 else 1,
            first_dilation=row.first_dilation if b == 0 else row.dilation,
            beta=self._beta(row.stage, b, variance),
            expected_variance=variance,
            drop_rate=self._drop_rate(),
        )

    def _beta(self, s: int, b: int, variance: float) -> float:
        beta = self.spec.stages.beta
        if beta == "auto":
            return 1.0 / math.sqrt(variance)
        of_stage = beta[s] if isinstance(beta, tuple) else beta
        return of_stage[b] if isinstance(of_stage, tuple) else of_stage

    def _drop_rate(self) -> float:
        drop = self.spec.stochastic_depth
        i, n = len(self.blocks), sum(self.spec.stages.depth)
        return drop.rate * i / n if drop.schedule == "exclusive" else drop.rate * i / max(1, n - 1)

    def _block(self, x: str, block: BlockNumbers, row: StageRow) -> str:
        """A residual block that reads the operation `x`."""
        activated = self._act(f"{block.name}.act0", x, block.beta)
        shortcut, kind = self._shortcut(x, activated, block, row)
        residual, attention_size = self._branch(activated, block, row)
        out = residual
        if block.drop_rate > 0:
            rescale = self.spec.stochastic_depth.rescale
            name = f"{block.name}.stochastic_depth"
            out = self._add(StochasticDepth(name, (out,), block.drop_rate, rescale))
        out = self._add(
            Residual(
                f"{block.name}.add",
                (out, shortcut),
                block=block.name,
                alpha=row.alpha,
                skip_gain=self.spec.block.skip_gain,
                skip_gain_init=self.spec.block.skip_gain_init,
            )
        )
        self.taps[block.name] = out
        self.blocks.append(
            Block(
                **vars(block),
                stage=row.stage,
                kernel=row.kernels[0],
                second_kernel=row.kernels[1],
                dilation=row.dilation,
                alpha=row.alpha,
                attention=row.attention,
                attention_size=attention_size,
                shortcut=kind,
                residual=residual,
            )
        )
        return out

    def _branch(self, activated: str, block: BlockNumbers, row: StageRow) -> tuple[str, int]:
        """The residual branch: its last operation, and the size of its attention."""
        spec, name, mid = self.spec, block.name, block.mid_channels
        width = ("stages", "width", row.stage)
        out = self._conv(
            f"{name}.conv0", activated, (block.in_channels, mid), path=width, stage=row.stage
        )
        first, second = row.kernels
        steps = (
            ("1", first, block.stride, block.first_dilation),
            ("1b", second, 1, row.dilation),
        )
        for conv, kernel, stride, dilation in steps[: spec.block.convs]:
            out = self._act(f"{name}.act{conv}", out)
            out = self._conv(
                f"{name}.conv{conv}",
                out,
                (mid, mid),
                path=stage_path(spec, "group_width", row.stage),
                stage=row.stage,
                kernel=kernel,
                stride=stride,
                dilation=dilation,
                groups=block.groups,
            )
        size = 0
        if spec.attention.position == "mid":
            out, size = self._attention(row.attention, name, out, mid)
        out = self._act(f"{name}.act2", out)
        out = self._conv(
            f"{name}.conv2",
            out,
            (mid, block.out_channels),
            path=width,
            stage=row.stage,
            gain_init=spec.block.conv2_gain_init,
        )
        if spec.attention.position == "last":
            out, size = self._attention(row.attention, name, out, block.out_channels)
        return out, size

    def _shortcut(
        self, x: str, activated: str, block: BlockNumbers, row: StageRow
    ) -> tuple[str, Literal["identity", "conv", "pool_conv"]]:
        """The shortcut: its last operation, and its kind."""
        stride, dilated = block.stride, block.first_dilation != row.dilation
        if stride == 1 and not dilated and block.in_channels == block.out_channels:
            return x, "identity"
        kind: Literal["conv", "pool_conv"] = "conv"
        at = activated if self.spec.block.shortcut_input == "activated" else x
        if self.spec.block.shortcut == "avg_pool" and (stride > 1 or dilated):
            # Of the same size on both paddings: the last window of an odd side is cut short. Where
            # a stride has become dilation, timm keeps the window, and counts zeros beyond the end.
            name = f"{block.name}.shortcut_pool"
            at = self._add(Pool(name, (at,), "avg", 2, stride, "same", counted=stride == 1))
            stride, kind = 1, "pool_conv"
        out = self._conv(
            f"{block.name}.conv_shortcut",
            at,
            (block.in_channels, block.out_channels),
            path=("stages", "width", row.stage),
            stage=row.stage,
            stride=stride,
        )
        return out, kind

    def _head(self, at: str, channels: int) -> None:
        head = self.spec.head
        if head.conv != "none":
            width = head.conv_width if head.conv == "width" else int(head.conv_ratio * channels)
            path = ("head", f"conv_{head.conv}")
            if width < 1:
                message = 'leaves the final conv no channels; for no such conv, head.conv = "none"'
                self.problems.add("SPEC-WIDTH", path, message, ("head", "conv"))
                width = 1
            at = self._conv("final_conv", at, (channels, width), path=path, stage=-1)
            channels = width
        at = self.taps[FEATURES] = self._act("final_act", at)
        at = self.taps["pool"] = self._add(GlobalPool("pool", (at,)))
        if head.dropout > 0:
            at = self._add(Dropout("head.dropout", (at,), head.dropout))
        self.taps["logits"] = self._add(
            Dense("head.fc", (at,), channels, head.classes, head.init_std)
        )
