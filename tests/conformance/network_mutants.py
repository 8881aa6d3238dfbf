"""Ports of a network that offer nothing but `forward` and `block`, each with one mistake.

Each is the float64 reference, in which an operation, a parameter, an image or an output is changed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from nfspec import plan as p
from nfspec import reference
from nfspec.conformance.faults.convs import _grouped
from nfspec.conformance.faults.networks import _betas, _raw_shortcut, _rewired
from nfspec.conformance.properties.networks import case_plan, case_weights
from nfspec.plan.activations import apply
from nfspec.reference import network
from nfspec.reference import operations as ops


def same(value):
    return value


@dataclass(frozen=True)
class Mutant:
    """One mistake.

    Attributes:
        spec: Name of the spec whose network shows it.
        of_plan, of_params, of_images, of_taps: Functions that change these.
        evaluate: Function of an operation, its inputs and its parameters, which gives the wrong
            output, or None for an operation without the mistake.
    """

    spec: str = "nfnet-f0"
    of_plan: Callable = same
    of_params: Callable = same
    of_images: Callable = same
    of_taps: Callable = same
    evaluate: Callable = lambda op, inputs, values: None

    def outputs(self, case, x, monkeypatch):
        """The taps of a case."""
        plan = self.of_plan(case_plan(case))
        whole = case_weights(case)
        params = self.of_params({name: whole[name] for name in plan.parameters})
        right = network.evaluate

        def evaluate(op, inputs, values, rounding=None):
            wrong = self.evaluate(op, inputs, values)
            return right(op, inputs, values, rounding) if wrong is None else wrong

        with monkeypatch.context() as patch:
            patch.setattr(network, "evaluate", evaluate)
            taps = reference.forward(plan, params, self.of_images(x))
        return {name: np.float32(value) for name, value in self.of_taps(taps).items()}


def of_ops(kind, /, **changes):
    """A change of fields of the operations of a kind, each computed from the operation."""

    def change(plan, op):
        if not isinstance(op, kind):
            return op
        return replace(op, **{name: value(op) for name, value in changes.items()})

    return {"of_plan": _rewired(change)}


def of_params(ending, change):
    return {
        "of_params": lambda params: {
            name: np.float32(change(value)) if name.endswith(ending) else value
            for name, value in params.items()
        }
    }


def pools(kind, function):
    def evaluate(op, inputs, values):
        if isinstance(op, p.Pool) and op.kind == kind:
            return function(op, inputs[0])
        return None

    return {"evaluate": evaluate}


def counting_padding(op, x):
    windows = ops.windows(x, op.window, op.stride, op.padding, 0.0)
    return windows.mean(axis=(4, 5))


def zeros_beyond(op, x):
    """Pools whole windows alone, and fills the rest with zeros."""
    whole = ops.pool(replace(op, padding="valid"), x)
    y = np.zeros_like(ops.pool(op, x))
    y[:, : whole.shape[1], : whole.shape[2]] = whole
    return y


def zero_padded_maximum(op, x):
    return ops.windows(x, op.window, op.stride, op.padding, 0.0).max(axis=(4, 5))


def gamma_within(op, inputs, values):
    if not isinstance(op, p.Activation):
        return None
    return op.beta * apply(op.kind, op.gamma * inputs[0], op.slope)


def half_pooled(op, inputs, values):
    return inputs[0].mean(axis=1)[:, 0] if isinstance(op, p.GlobalPool) else None


def edges(op, inputs, values):
    """Pads with the image's own border."""
    if not isinstance(op, p.WSConv) or op.kernel == 1:
        return None
    kernel, gain, bias = values
    sides = (ops.pads(n, op.extent, op.stride, op.padding) for n in inputs[0].shape[1:3])
    x = np.pad(inputs[0], [(0, 0), *sides, (0, 0)], mode="edge")
    return (
        ops.conv(x, ops.standardise(op, kernel, gain), op.stride, op.groups, "valid", op.dilation)
        + bias
    )


def grouped(op, inputs, values):
    if not isinstance(op, p.WSConv) or op.groups == 1:
        return None
    kernel, gain, bias = values
    kernel = _grouped(op, ops.standardise(op, kernel, gain))
    return ops.conv(inputs[0], kernel, *op.sliding) + bias


def bias_before_gain(op, inputs, values):
    if not isinstance(op, p.WSConv):
        return None
    kernel, gain, bias = values
    kernel = ops.standardise(op, kernel, np.ones_like(gain))
    return (ops.conv(inputs[0], kernel, *op.sliding) + bias) * gain


def skipped_where_flat(op, inputs, values):
    """No standardisation of channels whose weights are alike, as a guard against NaN."""
    if not isinstance(op, p.WSConv):
        return None
    kernel, gain, bias = values
    alike = np.ptp(kernel, axis=(0, 1, 2)) == 0.0
    kernel = np.where(alike, kernel, ops.standardise(op, kernel, gain))
    return ops.conv(inputs[0], kernel, *op.sliding) + bias


def eca_reversed(op, inputs, values):
    return ops.eca(op, inputs[0], values[0][::-1]) if isinstance(op, p.ECA) else None


def later_stride(plan):
    """Strided blocks stride in the second k x k conv, not in the first."""
    strides = {op.name: op.stride for op in plan.ops if isinstance(op, p.WSConv)}
    other = {".conv1": ".conv1b", ".conv1b": ".conv1"}

    def change(plan, op):
        for own, its in other.items():
            if op.name.endswith(own):
                return replace(op, stride=strides.get(op.name.removesuffix(own) + its, op.stride))
        return op

    return _rewired(change)(plan)


def other_padding(op):
    return "symmetric" if op.padding == "same" else "same"


def square(x):
    """The middle of the image, as if images were square."""
    side = min(x.shape[1:3])
    return x[:, :side, :side]


MUTANTS = {
    "average pool counts padding": Mutant(**pools("avg", counting_padding)),
    "average pool counts padding, regnet": Mutant(
        "nf-regnet-b0", **pools("avg", counting_padding)),
    "average pool drops what is over": Mutant(**pools("avg", zeros_beyond)),
    "maximum sees zeros beyond the image": Mutant(
        "nf-resnet-50", **pools("max", zero_padded_maximum)),
    "eps a tenth": Mutant(**of_ops(p.WSConv, eps=lambda op: 0.1 * op.eps)),
    "eps a hundredth more": Mutant(**of_ops(p.WSConv, eps=lambda op: 1.01 * op.eps)),
    "eps a tenth, timm": Mutant(
        "timm/eca_nfnet_l0", **of_ops(p.WSConv, eps=lambda op: 0.1 * op.eps)),
    "eps as good as none": Mutant(**of_ops(p.WSConv, eps=lambda op: 1e-12)),
    "eps added": Mutant(**of_ops(p.WSConv, eps_rule=lambda op: "add",
                                 eps=lambda op: op.eps / op.fan_in)),
    "eps added to the std": Mutant(**of_ops(
        p.WSConv, eps_rule=lambda op: "add_to_std",
        eps=lambda op: (op.eps / op.fan_in) ** 0.5)),
    "weights that are alike left as they are": Mutant(evaluate=skipped_where_flat),
    "unbiased variance": Mutant(**of_ops(p.WSConv, ddof=lambda op: 1)),
    "fan-in that counts outputs": Mutant(**of_ops(
        p.WSConv, gamma=lambda op: op.gamma * (op.out_channels / op.groups) ** -0.5)),
    "gains without their sign": Mutant(**of_params(".gain", np.abs)),
    "gains of a tenth at least": Mutant(**of_params(
        ".gain", lambda gain: np.where(np.abs(gain) < 0.1, 0.1, gain))),
    "gains of at most two": Mutant(**of_params(".gain", lambda gain: np.clip(gain, -2.0, 2.0))),
    "biases scaled by gains": Mutant(evaluate=bias_before_gain),
    "skip gain left out": Mutant(**of_params("skip_gain", np.ones_like)),
    "skip gain without its sign": Mutant(**of_params("skip_gain", np.abs)),
    "groups interleaved": Mutant(evaluate=grouped),
    "beta not reset at a transition": Mutant(
        of_plan=_betas(lambda i, alpha: (1.0 + alpha**2 * (i + 1)) ** -0.5)),
    "beta a block late": Mutant(
        of_plan=_betas(lambda i, alpha: (1.0 + alpha**2 * max(0, i - 1)) ** -0.5)),
    "gamma within the activation": Mutant(evaluate=gamma_within),
    "the other GELU": Mutant(**of_ops(p.Activation, kind=lambda op: "gelu_erf")),
    "squeeze-and-excitation without its factor": Mutant(
        **of_ops(p.SqueezeExcite, gain=lambda op: 1.0)),
    "ECA's taps in reverse": Mutant("timm/eca_nfnet_l0", evaluate=eca_reversed),
    "the other padding": Mutant(**of_ops(p.WSConv, padding=other_padding)),
    "padding with the border": Mutant(evaluate=edges),
    "stride in the second conv": Mutant(of_plan=later_stride),
    "shortcut of the block's input": Mutant(of_plan=_rewired(_raw_shortcut)),
    "global pool over one axis": Mutant(evaluate=half_pooled),
    "images made square": Mutant(of_images=square),
    "images of one channel order": Mutant(of_images=lambda x: x[..., ::-1]),
    "images between -4 and 4": Mutant(of_images=lambda x: np.clip(x, -4.0, 4.0)),
    "a batch of one squeezed": Mutant(
        of_taps=lambda taps: {name: np.squeeze(value) for name, value in taps.items()}),
}  # fmt: skip
