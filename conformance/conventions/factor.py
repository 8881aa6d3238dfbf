"""A constant factor between a subject's outputs and the expected ones, as a simple expression."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nfspec.conformance.cases.case import Clip
from nfspec.conformance.cases.precision import MODES
from nfspec.conformance.properties.base import Array, Expectation, Expected
from nfspec.conformance.running.answers import Answer
from nfspec.language.spec import Spec
from nfspec.plan import ECA, Activation, Dense, SqueezeExcite, WSConv
from nfspec.plan.activations import DEEPMIND_GAMMA, exact_gamma

CLOSE = 1e-5  # relative distance of a factor from its expression, before that is tried itself
INTEGERS = range(2, 65)  # whose quotients and square roots are simple


@dataclass(frozen=True)
class Factor:
    """A factor of outputs.

    Attributes:
        of: Function of the operation that returns the factor.
        text: The factor in words.
        but_bias: True if a bias is added afterwards.
        names: The outputs that it multiplies; all if None.
    """

    of: Callable[[Any], float]
    text: str = ""
    but_bias: bool = False
    names: frozenset[str] | None = None

    def applied(self, e: Answer, expected: Expected) -> Expected:
        """The expected values of an answer, multiplied."""
        if self is UNIT:
            return expected
        outputs = {}
        for name, wanted in expected.outputs.items():
            times = self.of(e.prepared.case.op) if self.names is None or name in self.names else 1.0
            outputs[name] = self._times(e, name, wanted, times)
        return replace(expected, outputs=outputs)

    def _times(self, e: Answer, name: str, wanted: Expectation, times: float) -> Expectation:
        base = added(e, name) if self.but_bias else np.zeros(())
        value = times * (wanted.value - base) + base
        terms = {label: abs(times) * term for label, term in wanted.terms.items()}
        unit = MODES[e.prepared.case.mode].store
        terms["factor"] = 4.0 * unit * (np.abs(value) + np.abs(base))
        return replace(wanted, value=value, terms=terms)


UNIT = Factor(lambda op: 1.0)


def added(e: Answer, name: str) -> Array:
    """The bias that is added to an output; 0 where there is none."""
    call = e.prepared.calls[0]
    return np.asarray(call["bias"] if name == "y" and "bias" in call else 0.0, np.float64)


def fitted(e: Answer, expected: Expected, but_bias: bool) -> dict[str, float]:
    """The factor of each output by least squares; those that are 0 or not finite are left out."""
    factors = {}
    for name, wanted in expected.outputs.items():
        output = e.compared.get(name)
        if output is None or output.shape != wanted.value.shape or not np.isfinite(output).all():
            continue
        base = added(e, name) if but_bias else 0.0
        value = wanted.value - base
        size = float((value**2).sum())
        if size > 0.0:
            factors[name] = float(((output.astype(np.float64) - base) * value).sum()) / size
    return {name: factor for name, factor in factors.items() if factor}


def free(e: Answer, expected: Expected) -> Iterator[Factor]:
    """The best factor of one answer, of the whole output and of all but its bias."""
    if isinstance(e.prepared.case.op, Clip):
        return
    for but_bias in (False, True) if "bias" in e.prepared.calls[0] else (False,):
        factors = fitted(e, expected, but_bias)
        names = sorted(factors, key=lambda name: -abs(math.log(abs(factors[name]))))
        if names:
            yield _of_names(factors[names[0]], factors, but_bias)


def _of_names(factor: float, factors: dict[str, float], but_bias: bool) -> Factor:
    """The factor of those outputs whose own is nearer to it than to 1."""
    names = frozenset(n for n, own in factors.items() if abs(own - factor) < abs(own - 1.0))
    return Factor(lambda op: factor, but_bias=but_bias, names=names)


def common(pairs: Iterable[tuple[Answer, Factor]], spec: Spec) -> Iterator[Factor]:
    """Factors that may hold for all answers, simple ones first.

    Args:
        pairs: Answers and the best factor of each.
        spec: The spec, whose gammas are constants to think of.
    """
    several = list(pairs)
    numbers = [factor.of(None) for _, factor in several]
    ops = [e.prepared.case.op for e, _ in several]
    names = frozenset().union(*(factor.names or () for _, factor in several))
    one = Factor(lambda op: 1.0, but_bias=several[0][1].but_bias, names=names)
    middle = float(np.median(numbers))
    if all(_close(number, middle) for number in numbers):
        for text, number in _constants(spec):
            if _close(number, middle):
                short = f"{middle:.4g}"
                text = short if text == short else f"{short} = {text}"
                yield replace(one, of=_constant(number), text=text)
    for noun, of in NOUNS.items():
        for form, power in FORMS.items():
            values = [of(op) ** power for op in ops]
            if all(_close(value, number) for value, number in zip(values, numbers, strict=True)):
                sample = f"{form.format(f'{of(ops[0]):.5g}')} = {numbers[0]:.4g}"
                text = f"{form.format(noun)}, such as {sample}"
                yield replace(one, of=_power(of, power), text=text)
    if all(_close(number, middle) for number in numbers):
        yield replace(one, of=_constant(middle), text=f"{middle:.6g}")


def _constant(number: float) -> Callable[[Any], float]:
    return lambda op: number


def _power(of: Callable[[Any], float], power: float) -> Callable[[Any], float]:
    return lambda op: of(op) ** power


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= CLOSE * abs(b)


def _constants(spec: Spec) -> Iterator[tuple[str, float]]:
    for kind in dict.fromkeys((spec.activation.kind, spec.se.activation)):
        gammas = (DEEPMIND_GAMMA[kind], exact_gamma(kind, spec.activation.slope))
        for gamma in gammas:
            yield f"gamma of {kind}", gamma
            yield f"1/{gamma:.5g} = 1/gamma of {kind}", 1.0 / gamma
            yield f"gamma² of {kind}", gamma**2
    yield "-1", -1.0
    for n in INTEGERS:
        yield str(n), float(n)
        yield f"1/{n}", 1.0 / n
    for n in INTEGERS:
        yield f"√{n}", math.sqrt(n)
        yield f"1/√{n}", 1.0 / math.sqrt(n)


def _about(kind: Any, of: Callable[[Any], float]) -> Callable[[Any], float]:
    """A number of one kind of operation; NaN for another kind."""
    return lambda op: float(of(op)) if isinstance(op, kind) else math.nan


# What a factor may be a power of, in the numbers of an operation.
NOUNS: dict[str, Callable[[Any], float]] = {
    "fan-in": _about(WSConv, lambda op: op.fan_in),
    "(output channels)": _about(WSConv, lambda op: op.out_channels),
    "groups": _about(WSConv, lambda op: op.groups),
    "(side of the kernel)": _about(WSConv, lambda op: op.kernel),
    "gamma": _about(WSConv | Activation, lambda op: op.gamma),
    "beta": _about(Activation, lambda op: op.beta),
    "gain": _about(SqueezeExcite | ECA, lambda op: op.gain),
    "(input features)": _about(Dense, lambda op: op.in_features),
    "(output features)": _about(Dense, lambda op: op.out_features),
}
FORMS = {"{}": 1.0, "1/{}": -1.0, "√{}": 0.5, "1/√{}": -0.5}
