"""Subjects of NumPy, each wrong in one way as a network, in training or in what it drops."""

from dataclasses import replace

import numpy as np

from nfspec import plan as p
from nfspec import reference
from nfspec.plan.activations import apply
from nfspec.reference import operations

from ..exact_subject import Exact


class Network:
    """A port of networks alone, right but for what `changed` makes of each operation."""

    framework = "numpy"

    def __init__(self, mode):
        pass

    def changed(self, op):
        return op

    def forward(self, plan):
        other = replace(plan, ops=tuple(map(self.changed, plan.ops)))

        def function(x, params):
            taps = reference.forward(other, params, x)
            return {tap: np.float32(value) for tap, value in taps.items()}

        return function

    def block(self, plan):
        function = self.forward(plan)
        return lambda x, params: function(x, params)["block"]


class UnbiasedNetwork(Network):
    def changed(self, op):
        op = replace(op, ddof=1) if isinstance(op, p.WSConv) else op
        return replace(op, kind="gelu_erf") if isinstance(op, p.Activation) else op


class SmallEpsNetwork(Network):
    """Another eps, which only flat channels show: with it these are louder, and so is rounding."""

    def changed(self, op):
        return replace(op, eps=1e-5) if isinstance(op, p.WSConv) else op


class NoAlpha(Network):
    def changed(self, op):
        return replace(op, alpha=1.0) if isinstance(op, p.Residual) else op


class NoSkipGain(Network):
    def forward(self, plan):
        right = super().forward(plan)

        def function(x, params):
            others = {name: np.ones(()) for name in params if name.endswith("skip_gain")}
            return right(x, {**params, **others})

        return function


class WrongNetwork(Network):
    """Another activation, which no spec and no known defect has."""

    def changed(self, op):
        return replace(op, kind="elu") if isinstance(op, p.Activation) else op


class TinyEpsNetwork(Network):
    """An eps that is smaller than the variance of any channel."""

    def changed(self, op):
        return replace(op, eps=1e-9) if isinstance(op, p.WSConv) else op


class OddEpsNetwork(Network):
    """Flat channels are ten times as loud, which no convention and no defect does."""

    def forward(self, plan):
        right = super().forward(plan)
        names = {op.name for op in plan.ops if isinstance(op, p.WSConv)}

        def function(x, params):
            changed = dict(params)
            for name in names:
                kernel = params[f"{name}.kernel"]
                n_v = kernel[..., 0].size * kernel.var((0, 1, 2))
                gain = params[f"{name}.gain"]
                changed[f"{name}.gain"] = np.where(n_v < 1e-2, 10.0 * gain, gain)
            return right(x, changed)

        return function


class Changed(Network):
    """The outputs of operations are changed by `change`."""

    def forward(self, plan):
        def function(x, params):
            taps = reference.forward(plan, params, x, change=self.changing(plan))
            return {tap: np.float32(value) for tap, value in taps.items()}

        return function


class CountsPaddingNetwork(Changed):
    def changing(self, plan):
        def change(op, x, out):
            if not isinstance(op, p.Pool) or op.kind == "max":
                return out
            inside = np.ones((1, *x.shape[1:3], 1))
            return out * operations.windows(inside, op.window, op.stride, op.padding, 0.0).mean(
                (4, 5)
            )

        return change


class StemActivation(Changed):
    """The activation that a ResNet has after its first conv, without a gamma."""

    def changing(self, plan):
        last = [op.name for op in plan.ops if op.name.startswith("stem.conv")][-1]
        return lambda op, x, out: apply("gelu_tanh", out) if op.name == last else out


class NoFinalActivation(Changed):
    def changing(self, plan):
        return lambda op, x, out: x if op.name == "final_act" else out


class UnbiasedStemAndHead(StemActivation):
    """A stem, a head and a variance of its own."""

    def forward(self, plan):
        ops = (replace(op, ddof=1) if isinstance(op, p.WSConv) else op for op in plan.ops)
        return super().forward(replace(plan, ops=tuple(ops)))

    def changing(self, plan):
        stem = super().changing(plan)
        return lambda op, x, out: x if op.name == "final_act" else stem(op, x, out)


class Betas(Network):
    """The blocks have the betas of `variances`."""

    def forward(self, plan):
        of_op = {
            f"{row.name}.act0": variance**-0.5
            for row, variance in zip(plan.blocks, self.variances(plan.blocks), strict=True)
        }
        ops = (replace(op, beta=of_op[op.name]) if op.name in of_op else op for op in plan.ops)
        return super().forward(replace(plan, ops=tuple(ops)))


class NeverReset(Betas):
    def variances(self, rows):
        return 1.0 + np.cumsum([0.0, *(row.alpha**2 for row in rows[:-1])])


class OneByOne(Betas):
    """As mule-torch has it."""

    def variances(self, rows):
        return [1.0 + (row.index + (row.stage > 0)) * row.alpha**2 for row in rows]


class ResetTooEarly(Betas):
    def variances(self, rows):
        return [1.0 + row.index * row.alpha**2 for row in rows]


class Variances(Betas):
    """1 / variance."""

    def variances(self, rows):
        return [row.expected_variance**2 for row in rows]


class OddBetas(Betas):
    def variances(self, rows):
        return [1.0 + 0.1 * row.index + 0.05 * row.stage for row in rows]


class ActivatedShortcuts(Network):
    def forward(self, plan):
        firsts = {row.name: f"{row.name}.act0" for row in plan.blocks}
        convs = {op.name.rpartition(".")[0] for op in plan.ops if "conv_shortcut" in op.name}
        return super().forward(
            replace(
                plan,
                ops=tuple(
                    replace(op, inputs=(op.inputs[0], firsts[op.block]))
                    if isinstance(op, p.Residual) and op.block not in convs
                    else op
                    for op in plan.ops
                ),
            )
        )


class UnbiasedEverywhere(Exact):
    """The unbiased variance, in networks that are trained and folded, too."""

    def _own(self, plan):
        ops = (replace(op, ddof=1) if isinstance(op, p.WSConv) else op for op in plan.ops)
        return replace(plan, ops=tuple(ops))

    def forward(self, plan):
        return super().forward(self._own(plan))

    def folded(self, plan, params):
        return super().folded(self._own(plan), params)

    def train(self, plan, *rest):
        return super().train(self._own(plan), *rest)

    def ws_conv(self, op):
        return super().ws_conv(replace(op, ddof=1))


class Stale(UnbiasedEverywhere):
    """A folded network that keeps its first weights, and training that forgets its momentum."""

    def folded(self, plan, params):
        forward, _ = super().folded(plan, params)
        return forward, {"assign": lambda weights: None}

    def train(self, plan, *rest):
        recipe = plan.recipe.model_copy(update={"momentum": 0.5})
        return super().train(replace(plan, recipe=recipe), *rest)


class ElementwiseTraining(Exact):
    """Vectors are clipped number by number, and nothing is offered but training."""

    def train(self, plan, *rest):
        agc = plan.agc.model_copy(update={"unit": "element"})
        return super().train(replace(plan, agc=agc), *rest)


class Rescaled(Exact):
    """Kept residuals are divided by 1 - rate, as dropout does it."""

    def stochastic_depth(self, op, seed, replica):
        return super().stochastic_depth(replace(op, rescale=True), seed, replica)


class KeepRate(Exact):
    def stochastic_depth(self, op, seed, replica):
        return super().stochastic_depth(replace(op, rate=1.0 - op.rate), seed, replica)


class DropsNothing(Exact):
    def stochastic_depth(self, op, seed, replica):
        return lambda x, training: x


class DropsElements(Exact):
    """A layer for dropout that is used for stochastic depth: it drops elements, and rescales."""

    def stochastic_depth(self, op, seed, replica):
        return self._drop(p.Dropout("op", ("x",), op.rate), seed, replica, self.mode)


class PlainDropout(Exact):
    def dropout(self, op, seed, replica):
        right = super().dropout(op, seed, replica)
        return lambda x, training: right(x, training) * ((1.0 - op.rate) if training else 1.0)


class DropsTheBatch(Exact):
    """One draw for the whole batch, which no convention and no defect is."""

    def stochastic_depth(self, op, seed, replica):
        rng = np.random.default_rng((seed, replica))
        return lambda x, training: x * (rng.random() >= op.rate) if training else x
