"""Tier 1: each operation and its gradients, element by element within the bound of rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec import plan as p
from nfspec.conformance.bounds import clipping as clip_bounds
from nfspec.conformance.bounds import layers as bounds
from nfspec.conformance.bounds import ws_conv as ws_bounds
from nfspec.conformance.bounds.bounded import Terms
from nfspec.conformance.cases import regimes
from nfspec.conformance.cases.case import Arrays, Case
from nfspec.conformance.cases.precision import MODES, Precision, narrow
from nfspec.conformance.cases.target import Target
from nfspec.conformance.properties.base import (
    ALL_MODES,
    FULL_MODES,
    Array,
    Expectation,
    Expected,
    Property,
    all_regimes,
    small_images,
    spread,
    wide,
)
from nfspec.conformance.properties.exact import IMAGE, image
from nfspec.plan.counting import output_side

LARGEST_DY = 4.0  # in the regime RANGE, so that dy · x does not overflow

Gradients = dict[str, tuple[Array, Terms]]  # by argument: the value, and the terms of its bound


def _expectations(gradients: Gradients) -> dict[str, Expectation]:
    return {name: Expectation(value, terms) for name, (value, terms) in gradients.items()}


def conv_met(case: Case, standard: ws_bounds.Standard) -> frozenset[str]:
    """The regimes that a case of a conv met."""
    op = case.op
    met = {
        case.regime: True,
        "eps decides": bool(standard.active.any()),
        "eps does not decide": not standard.active.all(),
        "several groups": op.groups > 1,
        "dilation": op.dilation > 1,
        "stride over an odd and an even side": op.stride > 1 and op.kernel > 1,
    }
    return frozenset(name for name, is_met in met.items() if is_met)


def _conv_must(cases: list[Case]) -> frozenset[str]:
    must = {"eps does not decide", *(case.regime for case in cases)}
    if any(case.op.eps_rule != "none" for case in cases):
        must.add("eps decides")
    if any(case.op.groups > 1 for case in cases):
        must.add("several groups")
    if any(case.op.dilation > 1 for case in cases):
        must.add("dilation")
    if any(case.op.stride > 1 and case.op.kernel > 1 for case in cases):
        must.add("stride over an odd and an even side")
    return frozenset(must)


def _conv_forward(case: Case, calls: list[Arrays]) -> Expected:
    a = wide(calls[0])
    y, terms, standard = ws_bounds.forward(
        case.op, a["x"], a["kernel"], a["gain"], a["bias"], MODES[case.mode]
    )
    return Expected({"y": Expectation(y, terms)}, conv_met(case, standard))


def _conv_cases(property_id: str) -> Callable[[Target], list[Case]]:
    def cases(target: Target) -> list[Case]:
        ops = target.of(p.WSConv)
        return [
            *spread(property_id, ops, regimes.CONV_REGIMES, image),
            *small_images(property_id, ops, "normal", image),
        ]

    return cases


WS_01 = Property(
    id="WS-01",
    tier=1,
    title="WS conv",
    request="call",
    method="ws_conv",
    cases=_conv_cases("WS-01"),
    calls=lambda case: [regimes.conv(case)],
    expect=_conv_forward,
    must=_conv_must,
)


def _away_from_eps(case: Case) -> Arrays:
    """A conv's arrays without channels whose n·v is within a thousandth of eps: there the gradient
    is discontinuous. Such channels are drawn wider."""
    arrays, op = regimes.conv(case), case.op
    if op.eps_rule == "max":
        kernel = arrays["kernel"].astype(np.float64)
        n_v = op.fan_in * kernel.var(axis=(0, 1, 2), ddof=op.ddof)
        near = np.abs(n_v / op.eps - 1.0) < 1e-3
        arrays["kernel"] = (kernel * np.where(near, 1.01, 1.0)).astype(np.float32)
    return arrays


def _with_dy(case: Case, arrays: Arrays, shape: tuple[int, ...]) -> list[Arrays]:
    dy = case.rng("dy").standard_normal(shape).astype(np.float32)
    return [{"dy": dy, **arrays}]


def conv_output_shape(op: p.WSConv, x: tuple[int, ...]) -> tuple[int, ...]:
    height, width = (output_side(n, op.extent, op.stride, op.padding) for n in x[1:3])
    return (x[0], height, width, op.out_channels)


def _conv_gradient(case: Case, calls: list[Arrays]) -> Expected:
    a = wide(calls[0])
    gradients, standard = ws_bounds.gradients(
        case.op, a["dy"], a["x"], a["kernel"], a["gain"], MODES[case.mode]
    )
    return Expected(_expectations(gradients), conv_met(case, standard))


WS_02 = Property(
    id="WS-02",
    tier=1,
    title="WS conv: gradients by images, kernel, gain and bias",
    request="vjp",
    method="ws_conv",
    cases=_conv_cases("WS-02"),
    calls=lambda case: _with_dy(case, _away_from_eps(case), conv_output_shape(case.op, case.shape)),
    expect=_conv_gradient,
    modes=FULL_MODES,
    must=_conv_must,
)


def _not_tested(op: p.Op) -> TypeError:
    """The error for an operation that these properties have no cases of; others may have."""
    return TypeError(f"not tested as a layer: {type(op).__name__} ({op.name})")


def _features(op: p.Operation) -> tuple[int, ...]:
    """The shape of the input of an operation that is not a conv."""
    match op:
        case p.Dense():
            return (4, op.in_features)
        case p.Activation():
            return (4, 8, 8, 8)
        case p.SqueezeExcite() | p.ECA():
            return (*IMAGE, op.channels)
        case p.Pool() | p.Residual() | p.GlobalPool():
            return (*IMAGE, 6)
        case p.WSConv() | p.Conv() | p.StochasticDepth() | p.Dropout():
            raise _not_tested(op)
        case _:
            raise p.unknown_operation(op, "nfspec.conformance.properties.layers")


def _shapes(case: Case, slopes: bool = False) -> list[Arrays]:
    arrays = regimes.layer(case)
    if isinstance(case.op, p.Residual):
        shortcut = regimes.images(case.rng("shortcut"), case.shape, case.regime)
        arrays = {"x": arrays["x"], "shortcut": shortcut.astype(np.float32), **arrays}
    if isinstance(case.op, p.Activation):
        # Both sides of every kink and far into the tails, but not on a kink: ties are not tested.
        x = arrays["x"] * (4.0 if case.regime == "normal" else 1.0)
        if case.regime == regimes.RANGE:
            times = 2.0 * LARGEST_DY if slopes else 2.0
            x = narrow(regimes.whole_range(case, times, slopes), case.mode)
        arrays["x"] = np.where(np.abs(x) < 1e-3, 0.5, x).astype(np.float32)
    return [arrays]


def _off_kinks(case: Case, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The input of an activation whose slope is tested, away from its kinks: rounding to a narrow
    mode may put a number on one, such as 6."""
    return np.where(x == 6.0, np.float32(6.5), x) if isinstance(case.op, p.Activation) else x


def _forward_bound(
    op: p.Operation, a: dict[str, Array], precision: Precision
) -> tuple[Array, Terms]:
    """The exact output of a layer that is not a conv, and the terms of its bound."""
    values = [value for name, value in a.items() if name not in ("x", "shortcut")]
    match op:
        case p.Activation():
            return bounds.activation(op, a["x"], precision)
        case p.Pool():
            return bounds.pool(op, a["x"], precision)
        case p.SqueezeExcite():
            return bounds.squeeze_excite(op, a["x"], values, precision)
        case p.ECA():
            return bounds.eca(op, a["x"], a["kernel"], precision)
        case p.Residual():
            gain = values[0] if values else None
            return bounds.residual(op, a["x"], a["shortcut"], gain, precision)
        case p.GlobalPool():
            return bounds.global_pool(op, a["x"], MODES["f32"])
        case p.Dense():
            return bounds.dense(op, a["x"], a["kernel"], a["bias"], MODES["f32"])
        case p.WSConv() | p.Conv() | p.StochasticDepth() | p.Dropout():
            raise _not_tested(op)
        case _:
            raise p.unknown_operation(op, "nfspec.conformance.properties.layers")


def _forward(case: Case, calls: list[Arrays]) -> Expected:
    y, terms = _forward_bound(case.op, wide(calls[0]), MODES[case.mode])
    return Expected({"y": Expectation(y, terms)}, frozenset({case.regime}))


def _gradient_bound(op: p.Operation, a: dict[str, Array], precision: Precision) -> Gradients:
    """The exact gradients of a layer that is not a conv, and the terms of their bounds."""
    dy, x = a["dy"], a["x"]
    values = [value for name, value in a.items() if name not in ("dy", "x")]
    match op:
        case p.Activation():
            return {"x": bounds.activation_gradient(op, dy, x, precision)}
        case p.Pool():
            return {"x": bounds.pool_gradient(op, dy, x, precision)}
        case p.SqueezeExcite():
            return bounds.squeeze_excite_gradient(op, dy, x, values, precision)
        case p.ECA():
            return bounds.eca_gradient(op, dy, x, a["kernel"], precision)
        case p.Dense():
            return bounds.dense_gradient(op, dy, x, a["kernel"], precision)
        case p.WSConv() | p.Conv() | p.StochasticDepth() | p.Dropout():
            raise _not_tested(op)
        case p.Residual() | p.GlobalPool():
            raise _not_tested(op)
        case _:
            raise p.unknown_operation(op, "nfspec.conformance.properties.layers")


def _gradient(case: Case, calls: list[Arrays]) -> Expected:
    gradients = _gradient_bound(case.op, wide(calls[0]), MODES[case.mode])
    return Expected(_expectations(gradients), frozenset({case.regime}))


def _vjp_call(case: Case) -> list[Arrays]:
    (arrays,) = _shapes(case, slopes=True)
    arrays["x"] = _off_kinks(case, narrow(arrays["x"], case.mode))
    (y,) = _forward(case, [arrays]).outputs.values()
    (call,) = _with_dy(case, arrays, y.value.shape)
    if case.regime == regimes.RANGE:
        call["dy"] = np.clip(call["dy"], -LARGEST_DY, LARGEST_DY)
    return [{**call, "dy": narrow(call["dy"], case.mode)}]


def _pair(
    number: int,
    prefix: str,
    title: str,
    kind: type[Any],
    method: str,
    gradients: tuple[str, ...] = FULL_MODES,
) -> tuple[Property, ...]:
    """The properties of an operation: forward, and gradients in some modes."""

    def cases(property_id: str) -> Callable[[Target], list[Case]]:
        def of_target(target: Target) -> list[Case]:
            ops = target.of(kind)
            several = spread(property_id, ops, regimes.IMAGE_REGIMES, _features)
            if kind is p.Dense:
                several += [replace(case, shape=(1, *case.shape[1:])) for case in several[:1]]
            else:
                several += small_images(property_id, ops, "normal", _features)
            if kind is not p.Activation:
                return several
            # Every activation over the whole range of numbers, too.
            return several + spread(property_id, ops, (regimes.RANGE,), _features)

        return of_target

    forward, backward = f"{prefix}-{number:02}", f"{prefix}-{number + 1:02}"
    pair = [
        Property(
            id=forward,
            tier=1,
            title=title,
            request="call",
            method=method,
            cases=cases(forward),
            calls=_shapes,
            expect=_forward,
            must=all_regimes,
        )
    ]
    if gradients:
        pair.append(
            Property(
                id=backward,
                tier=1,
                title=f"{title}: gradients",
                request="vjp",
                method=method,
                cases=cases(backward),
                calls=_vjp_call,
                expect=_gradient,
                modes=gradients,
                must=all_regimes,
            )
        )
    return tuple(pair)


def _clip(case: Case, calls: list[Arrays]) -> Expected:
    a = wide(calls[0])
    y, terms, clipped = clip_bounds.clip(
        a["gradient"], a["parameter"], case.op.rule, MODES[case.mode]
    )
    met = {case.regime}
    if clipped.any() and not clipped.all():
        met.add("clipped and not, in one tensor")
    return Expected({"y": Expectation(y, terms)}, frozenset(met))


def _clip_must(cases: list[Case]) -> frozenset[str]:
    must = {case.regime for case in cases}
    if any(case.op.rule.units > 1 for case in cases):
        must.add("clipped and not, in one tensor")
    return frozenset(must)


AGC_01 = Property(
    id="AGC-01",
    tier=1,
    title="AGC, norms in float32",
    request="call",
    method="agc",
    cases=lambda target: spread("AGC-01", target.clips, regimes.CLIP_REGIMES, lambda clip: ()),
    calls=lambda case: [regimes.clipping(case)],
    expect=_clip,
    modes=ALL_MODES,
    must=_clip_must,
)

PROPERTIES = (
    WS_01,
    WS_02,
    *_pair(1, "ACT", "activation", p.Activation, "activation", ALL_MODES),
    *_pair(1, "POOL", "pooling", p.Pool, "pool"),
    *_pair(1, "SE", "squeeze-and-excitation", p.SqueezeExcite, "squeeze_excite"),
    *_pair(1, "ECA", "efficient channel attention", p.ECA, "eca"),
    *_pair(1, "RES", "residual sum", p.Residual, "residual", ()),
    *_pair(1, "MEAN", "global pooling", p.GlobalPool, "global_pool", ()),
    *_pair(1, "FC", "classifier", p.Dense, "dense"),
    AGC_01,
)
