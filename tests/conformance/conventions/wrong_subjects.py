"""Subjects of NumPy, each wrong in one way, written from the ports that have it.

They share no code with the reference but the convolution and the activations without gamma.
"""

from dataclasses import replace

import numpy as np

from nfspec import plan as p
from nfspec.conformance.cases.precision import narrow
from nfspec.plan.activations import DEEPMIND_GAMMA, apply
from nfspec.reference import operations
from nfspec.reference.operations import conv

from ..exact_subject import Exact


def over_outputs(w):
    return tuple(range(w.ndim - 1))


class Right:
    """Right for one spec, whose numbers it has fixed."""

    framework = "numpy"
    eps = 1e-4
    kind = "gelu_tanh"

    def __init__(self, mode):
        self.mode = mode

    def divisor(self, w, op):
        n = w[..., 0].size
        return np.sqrt(np.maximum(n * w.var((0, 1, 2)), self.eps))

    def kernel(self, w, gain, op):
        return (w - w.mean((0, 1, 2))) * gain / self.divisor(w, op)

    def ws_conv(self, op):
        def function(x, w, gain, bias):
            x, w, gain, bias = map(np.float64, (x, w, gain, bias))
            y = conv(x, self.kernel(w, gain, op), *op.sliding)
            return np.float32(self.after(y, op) + bias)

        return function

    def after(self, y, op):
        return y

    def activation(self, op):
        return lambda x: np.float32(self.f(np.float64(x), op))

    def f(self, x, op):
        return op.beta * DEEPMIND_GAMMA[self.kind] * apply(self.kind, x)

    def squeeze_excite(self, op):
        def function(x, w0, b0, w1, b1):
            x, w0, b0, w1, b1 = map(np.float64, (x, w0, b0, w1, b1))
            gate = apply("sigmoid", self.hidden(x.mean((1, 2)) @ w0 + b0) @ w1 + b1)
            return np.float32(self.gain * gate[:, None, None] * x)

        return function

    gain = 2.0

    def hidden(self, x):
        return apply("relu", x)

    def norm(self, x):
        """The norm of each unit: DeepMind's rule, `squeeze`."""
        if sum(n > 1 for n in x.shape) <= 1:
            return np.sqrt((x**2).sum())
        return np.sqrt((x**2).sum(over_outputs(x), keepdims=True))

    def limit(self, p, rate):
        return rate * np.maximum(self.norm(p), 1e-3)

    def agc(self, clip):
        def function(g, p):
            g, p = np.float64(g), np.float64(p)
            limit, norm = self.limit(p, clip.clipping), self.norm(g)
            return np.float32(np.where(norm > limit, g * (limit / np.maximum(norm, 1e-6)), g))

        return function


# Conventions.


class Unbiased(Right):
    def divisor(self, w, op):
        n = w[..., 0].size
        return np.sqrt(np.maximum(n * w.var((0, 1, 2), ddof=1), self.eps))


class Tiny(Right):
    """eps of 1e-10, added."""

    def divisor(self, w, op):
        return np.sqrt(w[..., 0].size * (w.var((0, 1, 2)) + 1e-10))


class ToStd(Right):
    def divisor(self, w, op):
        return np.sqrt(w[..., 0].size) * (w.std((0, 1, 2)) + 1e-5)


class OtherGelu(Right):
    kind = "gelu_erf"


class NoGamma(Right):
    def f(self, x, op):
        return op.beta * apply("gelu_tanh", x)


class BetaBefore(Right):
    def f(self, x, op):
        return DEEPMIND_GAMMA["gelu_tanh"] * apply("gelu_tanh", op.beta * x)


class OwnActivationInSE(Right):
    def hidden(self, x):
        return DEEPMIND_GAMMA["gelu_tanh"] * apply("gelu_tanh", x)


class NoGain(Right):
    gain = 1.0


class TensorFlowAGC(Right):
    """The rank decides, as in Keras ports: a kernel of one weight for each output has as many
    units."""

    def norm(self, x):
        if x.ndim <= 1:
            return np.sqrt((x**2).sum())
        return np.sqrt((x**2).sum(over_outputs(x), keepdims=True))


class ElementAGC(Right):
    """A vector number by number."""

    def norm(self, x):
        if x.ndim == 1:
            return np.abs(x)
        return np.sqrt((x**2).sum(over_outputs(x) if x.ndim else None, keepdims=True))


# Defects.


class CountsOutputs(Right):
    def divisor(self, w, op):
        return np.sqrt(np.maximum(w.size * w.var((0, 1, 2)), self.eps))


class CountsGroups(Right):
    def divisor(self, w, op):
        n = w.shape[0] ** 2 * op.in_channels
        return np.sqrt(np.maximum(n * w.var((0, 1, 2)), self.eps))


class BiT(Right):
    """The standard deviation alone."""

    def divisor(self, w, op):
        return np.sqrt(w.var((0, 1, 2)) + 1e-10)


class UnbiasedCountsOutputs(Right):
    def divisor(self, w, op):
        return np.sqrt(np.maximum(w.size * w.var((0, 1, 2), ddof=1), self.eps))


class NoKernelGain(Right):
    def kernel(self, w, gain, op):
        return super().kernel(w, np.ones_like(gain), op)


class SigmoidGelu(Right):
    def f(self, x, op):
        return op.beta * DEEPMIND_GAMMA["gelu_tanh"] * x * apply("sigmoid", 1.702 * x)


class NoBeta(Right):
    def f(self, x, op):
        return DEEPMIND_GAMMA["gelu_tanh"] * apply("gelu_tanh", x)


class DenseByInput(Right):
    def norm(self, x):
        if x.ndim == 2:
            return np.sqrt((x**2).sum(1, keepdims=True))
        return super().norm(x)


class TorchAxes(Right):
    """The axes of OIHW, taken of HWIO."""

    def norm(self, x):
        if x.ndim == 4:
            return np.sqrt((x**2).sum((1, 2, 3), keepdims=True))
        return super().norm(x)


class EpsUnscaled(Right):
    def limit(self, p, rate):
        return np.maximum(rate * self.norm(p), 1e-3)


class EpsAdded(Right):
    def limit(self, p, rate):
        return rate * (self.norm(p) + 1e-3)


class EpsAddedByOutput(EpsAdded, TensorFlowAGC):
    """Its units differ from DeepMind's for kernels alone that no network of the spec has."""


class EpsInRoot(Right):
    def limit(self, p, rate):
        return rate * np.sqrt(self.norm(p) ** 2 + 1e-3)


class RootMeanSquare(Right):
    def norm(self, x):
        norm = super().norm(x)
        return norm / np.sqrt(x.size / norm.size)


class OtherSide(Right):
    """lambda times the gradient's norm."""

    def limit(self, p, rate):
        return np.maximum(self.norm(p), 1e-3) / rate


# Constant factors.


class RootFanIn(Right):
    def after(self, y, op):
        return y / np.sqrt(op.fan_in)


class Twice(Right):
    def ws_conv(self, op):
        function = super().ws_conv(op)
        return lambda *arrays: 2.0 * function(*arrays)


class UnbiasedHalf(Unbiased):
    def after(self, y, op):
        return y / 2.0


class GammaTwice(Right):
    def f(self, x, op):
        return DEEPMIND_GAMMA["gelu_tanh"] * super().f(x, op)


# What nothing explains.


class WrongMean(Right):
    """Each output's input channels are centred apart."""

    def kernel(self, w, gain, op):
        return (w - w.mean((0, 1))) * gain / self.divisor(w, op)


class UnknownEps(Right):
    """An eps that is added where no convention adds it."""

    def divisor(self, w, op):
        return np.sqrt(w[..., 0].size * w.var((0, 1, 2))) + 1e-2


class EpsOfBoth(Right):
    """An eps that is added to both norms."""

    def limit(self, p, rate):
        return rate * self.norm(p) ** 2 / (self.norm(p) + 1e-3)


class OddActivation(Right):
    def f(self, x, op):
        return op.beta * DEEPMIND_GAMMA["gelu_tanh"] * apply("silu", x)


class ManhattanAGC(Right):
    def norm(self, x):
        if x.ndim <= 1:
            return np.abs(x).sum()
        return np.abs(x).sum(over_outputs(x), keepdims=True)


class OnlySomeShapes(Unbiased):
    """Another variance, but of kernels with one input channel in a group: no convention."""

    def divisor(self, w, op):
        plain = w.shape[2] <= 4
        return Right.divisor(self, w, op) if plain else super().divisor(w, op)


class NarrowStatistics(Right):
    """Weights are rounded before they are standardised, as the original trains in bfloat16."""

    def ws_conv(self, op):
        def function(x, w, gain, bias):
            x, w, gain, bias = (np.float64(narrow(a, self.mode)) for a in (x, w, gain, bias))
            kernel = narrow(self.kernel(w, gain, op), self.mode)
            y = conv(x, np.float64(kernel), *op.sliding) + bias
            return narrow(np.float32(y), self.mode)

        return function


class Symmetric(Exact):
    """PyTorch's padding, with gradients."""

    def _layer(self, op, *arguments):
        symmetric = isinstance(op, p.WSConv | p.Pool) and op.stride > 1
        return super()._layer(replace(op, padding="symmetric") if symmetric else op, *arguments)

    pool = _layer


class PaddedByHalfAndEpsAdded(Right):
    """Half a kernel on either side whatever the stride is, and √(N·v + eps)."""

    def divisor(self, w, op):
        return np.sqrt(w[..., 0].size * w.var((0, 1, 2)) + self.eps)

    def ws_conv(self, op):
        function, half = super().ws_conv(replace(op, padding="valid")), op.kernel // 2

        def padded(x, *parameters):
            sides = ((0, 0), (half, half), (half, half), (0, 0))
            return function(np.pad(x, sides), *parameters)

        return padded


class UnbiasedOtherGelu(Unbiased):
    kind = "gelu_erf"


class ClipsTheHead(Exact):
    def step(self, plan, *state):
        return super().step(replace(plan, agc=plan.agc.model_copy(update={"exclude": ()})), *state)


class Heavy(Exact):
    """Steps without Nesterov's momentum."""

    def step(self, plan, *state):
        recipe = plan.recipe.model_copy(update={"nesterov": False})
        return super().step(replace(plan, recipe=recipe), *state)


class CountsPadding(Exact):
    """An average over the whole window, as PyTorch's `count_include_pad` has it."""

    def pool(self, op):
        if op.kind == "max":
            return super().pool(op)

        def share(x):
            whole = operations.windows(np.ones_like(x), op.window, op.stride, op.padding, 0.0)
            return whole.mean((4, 5))

        right = super().pool(op)

        def function(x):
            return np.float32(right(x) * share(x))

        function.vjp = lambda dy, x: right.vjp(np.float32(dy * share(x)), x)
        return function
