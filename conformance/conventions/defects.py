"""Defect hypotheses: known mistakes of ports, as changes to the computation of the reference.

A spec cannot ask for a defect, so none is a field of the language. The search tries them after the
conventions, alone and together with them, and a report only names those that explain a failure.

Sources: public ports of NFNets and of AGC, such as nfnets-pytorch (`WSConv1d` counts the outputs,
`unitwise_norm` takes dense kernels by input, `NFResNet` keeps the ReLU of a ResNet's stem), timm's
`StdConv2d` (no fan-in), mule-torch (betas), and Keras ports (the axes of PyTorch's layout on
kernels in HWIO, stochastic depth by a layer for dropout).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec.conformance.cases.case import Clip
from nfspec.conformance.conventions import wiring
from nfspec.plan import Activation, Dropout, Op, Plan, Pool, Residual, StochasticDepth, WSConv
from nfspec.plan.clipping import ClipRule
from nfspec.reference.operations import windows

Array = NDArray[Any]
Shape = tuple[int, ...]
NO_EPS = 1e-300  # keeps 0/0 finite, and changes no quotient
SIGMOID_GELU = 1.702  # x · sigmoid(1.702 x), an approximation of GELU


@dataclass(frozen=True)
class Defect:
    """A mistake that explains a failure.

    Attributes:
        about: The part of the computation; an explanation has one defect of each part at most.
        sentence: The mistake in words, after "consistent with:".
        op: Function of an operation that returns the one that is computed in its place; the same
            object where the defect is not about it.
        rule: The same for the rule of AGC of a parameter, given its shape.
        value: Function of an operation, the local name of one of its parameters and the array,
            which returns the array that is used in its place.
        times: Function of an operation and the shape of its input, which returns a factor of each
            element of the output; None where the defect is not about it.
        plan: Function of a network that returns the one that is computed in its place.
    """

    about: str
    sentence: str
    op: Callable[[Any], Any] = lambda op: op
    rule: Callable[[Shape, ClipRule], ClipRule] = lambda shape, rule: rule
    value: Callable[[Any, str, Array], Array] = lambda op, name, value: value
    times: Callable[[Any, Shape], Array | None] = lambda op, shape: None
    plan: Callable[[Plan], Plan] = lambda plan: plan

    @property
    def fields(self) -> dict[str, Any]:
        """The defect as a change that the search tries."""
        return {f"{self.about} (a defect)": self}

    def alter(self, op: Any) -> Any:
        """The operation, or the `Clip`, that is computed in place of one."""
        if not isinstance(op, Clip):
            return self.op(op)
        rule = self.rule(op.shape, op.rule)
        if rule == op.rule:
            return op
        own = {of.name: getattr(op, of.name) for of in fields(Clip)}
        return WrongClip(**own, altered=rule)


def defects(changes: Mapping[str, Any]) -> list[Defect]:
    """The defects among changes."""
    return [value for value in changes.values() if isinstance(value, Defect)]


@dataclass(frozen=True)
class WrongClip(Clip):
    """A `Clip` whose rule a defect has changed."""

    altered: ClipRule

    @property
    def rule(self) -> ClipRule:
        return self.altered


class EpsAdded(ClipRule):
    """A rule that adds eps to the norm."""

    def limits(self, norms: NDArray[np.float64]) -> NDArray[np.float64]:
        assert self.clipping is not None
        return np.asarray(self.clipping * (norms + self.eps))


class EpsInRoot(ClipRule):
    """A rule that adds eps to the sum of squares."""

    def limits(self, norms: NDArray[np.float64]) -> NDArray[np.float64]:
        assert self.clipping is not None
        return np.asarray(self.clipping * np.sqrt(norms**2 + self.eps))


@dataclass(frozen=True)
class ElementDrop(Dropout):
    """Dropout that may leave what is kept as it is."""

    rescale: bool


def _counting(count: Callable[[WSConv], float]) -> Callable[[Any], Any]:
    """A fan-in that counts something else; what that does to the scale, in terms of eps and gamma:
    √max(N'·v, eps) is √(N'/N) · √max(N·v, eps·N/N')."""

    def alter(op: Op) -> Op:
        if not isinstance(op, WSConv):
            return op
        ratio = op.fan_in / count(op)
        eps = op.eps * ratio if op.eps_rule == "max" else op.eps
        return op if ratio == 1.0 else replace(op, eps=eps, gamma=op.gamma * math.sqrt(ratio))

    return alter


def _of(kind: Any, change: Callable[[Any], dict[str, Any]]) -> Callable[[Any], Any]:
    """Changes to the fields of one kind of operation."""
    return lambda op: replace(op, **change(op)) if isinstance(op, kind) else op


def _ones(kind: type[Any], name: str, fill: float) -> Callable[[Any, str, Array], Array]:
    """A parameter of one kind of operation that is left out."""

    def value(op: Any, local: str, array: Array) -> Array:
        left_out = isinstance(op, kind) and local == name
        return np.full_like(array, fill) if left_out else array

    return value


def _over(rank: int, axes: tuple[int, ...]) -> Callable[[Shape, ClipRule], ClipRule]:
    """Norms of the tensors of a rank over other axes."""

    def rule(shape: Shape, of: ClipRule) -> ClipRule:
        if len(shape) != rank:
            return of
        units = math.prod(n for axis, n in enumerate(shape) if axis not in axes)
        return replace(of, axes=axes, units=units)

    return rule


def _rule(change: Callable[[float, float], dict[str, float]]) -> Callable[..., ClipRule]:
    """Changes to lambda and eps, given lambda and eps, of parameters that are clipped."""
    return lambda shape, of: (
        of if of.clipping is None else replace(of, **change(of.clipping, of.eps))
    )


def _limits(kind: type[ClipRule]) -> Callable[[Shape, ClipRule], ClipRule]:
    """A rule with other limits."""
    return lambda shape, of: of if of.clipping is None else kind(**vars(of))


def _mean_squares(shape: Shape, of: ClipRule) -> ClipRule:
    """The square root of a mean is √n times smaller on both sides, but for eps."""
    times = math.sqrt(math.prod(shape) / of.units)
    return of if of.clipping is None else replace(of, eps=of.eps * times)


def _elements(op: Any) -> Any:
    """Stochastic depth that drops elements."""
    if not isinstance(op, StochasticDepth):
        return op
    return ElementDrop(op.name, op.inputs, op.rate, op.rescale)


def _whole(op: Any) -> Any:
    """Dropout that drops images."""
    return StochasticDepth(op.name, op.inputs, op.rate, True) if isinstance(op, Dropout) else op


def _as_it_is(op: Any) -> Any:
    """Dropout that leaves what is kept as it is."""
    return ElementDrop(op.name, op.inputs, op.rate, False) if isinstance(op, Dropout) else op


def _padding_counted(op: Any, shape: Shape) -> Array | None:
    """The share of each window of an average pool that is inside the image."""
    if not isinstance(op, Pool) or op.kind == "max" or op.counted:
        return None
    inside = windows(np.ones((1, *shape[1:3], 1)), op.window, op.stride, op.padding, 0.0)
    return np.asarray(inside.mean(axis=(4, 5)))


def _sigmoid_gelu(op: Activation) -> dict[str, Any]:
    if not op.kind.startswith("gelu"):
        return {}
    inside = op.beta if op.beta_at == "before" else 1.0
    outside = op.gamma * (1.0 if op.beta_at == "before" else op.beta)
    return {
        "kind": "silu", "beta": SIGMOID_GELU * inside, "gamma": outside / SIGMOID_GELU,
        "beta_at": "before",
    }  # fmt: skip


DEFECTS = (
    Defect(
        "fan-in",
        "a fan-in that counts the output channels (k²·I·O)",
        _counting(lambda op: op.fan_in * op.out_channels),
    ),
    Defect(
        "fan-in",
        "a fan-in that counts the input channels of all groups",
        _counting(lambda op: op.fan_in * op.groups),
    ),
    Defect(
        "fan-in",
        "a fan-in that leaves out the area of the kernel (I in place of k²·I)",
        _counting(lambda op: op.fan_in / op.kernel**2),
    ),
    Defect(
        "fan-in",
        "the fan-out (k²·O) in place of the fan-in",
        _counting(lambda op: op.kernel**2 * op.out_channels),
    ),
    Defect(
        "fan-in",
        "a standard deviation without the fan-in, which makes the outputs √fan-in too large",
        _counting(lambda op: 1.0),
    ),
    Defect(
        "eps",
        "an eps that is added to fan-in · variance, as √(N·v + eps)",
        _of(WSConv, lambda op: {"eps_rule": "add", "eps": op.eps / op.fan_in}),
    ),
    Defect(
        "eps",
        "an eps that is compared with the variance alone, as √(N·max(v, eps))",
        _of(WSConv, lambda op: {"eps_rule": "max", "eps": op.eps * op.fan_in}),
    ),
    Defect("eps", "an eps that is squared", _of(WSConv, lambda op: {"eps": op.eps**2})),
    Defect("eps", "no eps in the weight standardisation", _of(WSConv, lambda op: {"eps": NO_EPS})),
    Defect("gain", "the gain of the convs left out", value=_ones(WSConv, "gain", 1.0)),
    Defect("bias", "the bias of the convs left out", value=_ones(WSConv, "bias", 0.0)),
    Defect("beta", "beta left out", _of(Activation, lambda op: {"beta": 1.0})),
    Defect("beta", "1/beta in place of beta", _of(Activation, lambda op: {"beta": 1.0 / op.beta})),
    Defect("GELU", "GELU as x · sigmoid(1.702 x)", _of(Activation, _sigmoid_gelu)),
    Defect("pool", "an average pool that counts the padding", times=_padding_counted),
    Defect("alpha", "alpha left out", _of(Residual, lambda op: {"alpha": 1.0})),
    Defect("skip gain", "the skip gain left out", value=_ones(Residual, "skip_gain", 1.0)),
    *(
        Defect("beta", sentence, plan=wiring.with_variances(variances))
        for sentence, variances in wiring.VARIANCES.items()
    ),
    *(Defect(about, sentence, plan=change) for about, sentence, change in wiring.CHANGES),
    Defect("dense kernels", "norms of dense kernels by input, not by output", rule=_over(2, (1,))),
    Defect(
        "kernels",
        "norms of HWIO kernels over the axes 1, 2 and 3, those of OIHW",
        rule=_over(4, (1, 2, 3)),
    ),
    Defect(
        "lambda",
        "lambda on the side of the gradient: clipped where lambda · ‖G‖ > ‖W‖",
        rule=_rule(lambda clipping, eps: {"clipping": 1.0 / clipping}),
    ),
    Defect(
        "eps of clipping",
        "an eps that lambda does not multiply, as max(lambda · ‖W‖, eps)",
        rule=_rule(lambda clipping, eps: {"eps": eps / clipping}),
    ),
    Defect(
        "eps of clipping",
        "an eps that is added to the norm, as lambda · (‖W‖ + eps)",
        rule=_limits(EpsAdded),
    ),
    Defect(
        "eps of clipping",
        "an eps that is added within the root, as lambda · √(Σw² + eps)",
        rule=_limits(EpsInRoot),
    ),
    Defect(
        "eps of clipping",
        "norms as roots of means, not of sums, with which eps is compared",
        rule=_mean_squares,
    ),
    Defect("lambda", "lambda left out", rule=_rule(lambda clipping, eps: {"clipping": 1.0})),
    Defect("eps of clipping", "no eps in AGC", rule=_rule(lambda clipping, eps: {"eps": NO_EPS})),
    Defect(
        "rate",
        "a rate that is taken for the probability to keep",
        _of(StochasticDepth | Dropout, lambda op: {"rate": 1.0 - op.rate}),
    ),
    Defect("rate", "nothing dropped", _of(StochasticDepth | Dropout, lambda op: {"rate": 0.0})),
    Defect("drops", "stochastic depth that drops elements, not whole images", _elements),
    Defect("drops", "dropout that drops whole images, not elements", _whole),
    Defect("drops", "dropout that does not divide what it keeps by 1 - rate", _as_it_is),
)
