"""Properties that compare a subject with itself: outputs that must not change, or must scale alike.

Where the operands differ by a power of two, or elsewhere in a tensor, the bits have to be the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nfspec import plan as p
from nfspec.conformance.bounds import clipping as clip_bounds
from nfspec.conformance.bounds import ws_conv as ws_bounds
from nfspec.conformance.cases import regimes
from nfspec.conformance.cases.case import Arrays, Case
from nfspec.conformance.cases.precision import MODES
from nfspec.conformance.cases.target import Target
from nfspec.conformance.properties.base import (
    FULL_MODES,
    Array,
    Expectation,
    Expected,
    Outputs,
    Property,
    spread,
    wide,
)
from nfspec.conformance.properties.exact import image
from nfspec.conformance.properties.layers import conv_output_shape

GRID = 2.0**-12  # kernels are multiples of it, so that adding a power of two to them is exact


def _difference(case: Case, calls: list[Arrays], outputs: Outputs) -> Outputs:
    """The second output less the first."""
    if not {"y0", "y1"} <= set(outputs):
        return {}
    return {"difference": outputs["y1"].astype(np.float64) - outputs["y0"]}


def _shifted(case: Case) -> list[Arrays]:
    """The same conv twice, each channel's kernel shifted in the second; both exact in float32."""
    arrays = regimes.conv(case)
    scale = 2.0 ** np.round(np.log2(np.abs(arrays["kernel"]).max()))
    kernel = np.round(arrays["kernel"] / scale / GRID) * GRID * scale
    shift = case.rng("shift").choice([-0.5, 0.25, 1.0], kernel.shape[-1]) * scale
    first = {**arrays, "kernel": kernel.astype(np.float32)}
    return [first, {**first, "kernel": (kernel + shift).astype(np.float32)}]


def _bound(case: Case, arrays: Arrays) -> Array:
    a = wide(arrays)
    _, terms, _ = ws_bounds.forward(
        case.op, a["x"], a["kernel"], a["gain"], a["bias"], MODES[case.mode]
    )
    return sum(terms.values(), start=np.zeros(()))


def _expect_shifted(case: Case, calls: list[Arrays]) -> Expected:
    terms = {
        name: _bound(case, call) for name, call in zip(("plain", "shifted"), calls, strict=True)
    }
    wanted = Expectation(np.zeros_like(terms["plain"]), terms)
    return Expected({"difference": wanted}, frozenset({case.regime}))


WS_03 = Property(
    id="WS-03",
    tier=1,
    title="WS conv: unchanged when each channel's kernel is shifted",
    request="call",
    method="ws_conv",
    cases=lambda target: spread(
        "WS-03",
        (op for op in target.of(p.WSConv) if op.eps_rule != "none"),
        ("normal", "positive"),
        image,
    ),
    calls=_shifted,
    expect=_expect_shifted,
    reduce=_difference,
    draws=False,
)


def _scaled(case: Case) -> list[Arrays]:
    """The same conv twice, each channel's kernel times a power of four in the second; so that eps
    decides in neither, kernels near it are drawn larger."""
    arrays, op = regimes.conv(case), case.op
    n_v = op.fan_in * arrays["kernel"].astype(np.float64).var(axis=(0, 1, 2), ddof=op.ddof)
    near = np.where(n_v < 4.0 * op.eps, 64.0, 1.0)
    arrays["kernel"] = (arrays["kernel"] * near).astype(np.float32)
    factors = case.rng("scale").choice([4.0, 16.0, 64.0], arrays["gain"].shape)
    return [arrays, {**arrays, "kernel": (arrays["kernel"] * factors).astype(np.float32)}]


def _expect_zero(case: Case, calls: list[Arrays]) -> Expected:
    zero = Expectation(np.zeros(_zero_shape(case)))
    return Expected({"difference": zero}, frozenset({case.regime}))


def _zero_shape(case: Case) -> tuple[int, ...]:
    if isinstance(case.op, p.WSConv):
        return conv_output_shape(case.op, case.shape)
    return case.op.shape


WS_04 = Property(
    id="WS-04",
    tier=1,
    title="WS conv, rule max: the same bits when each channel's kernel is scaled",
    request="call",
    method="ws_conv",
    cases=lambda target: spread(
        "WS-04",
        # Where eps is far below n·v, it cannot matter; the original's is 1e-4 of it. In float16,
        # squares of small weights are below its normal numbers and lose bits.
        (
            op
            for op in target.of(p.WSConv)
            if op.eps_rule == "max" and op.eps <= 1e-3 and op.dtype == "float32"
        ),
        ("normal", "positive"),
        image,
    ),
    calls=_scaled,
    expect=_expect_zero,
    reduce=_difference,
)


def _clips(property_id: str, regime: str, several: bool = False) -> Callable[[Target], list[Case]]:
    def cases(target: Target) -> list[Case]:
        clips = [c for c in target.clips if not several or c.rule.units > 1]
        return spread(property_id, clips, (regime,), lambda clip: ())

    return cases


def _expect_twice(case: Case, calls: list[Arrays]) -> Expected:
    """A clipped gradient is within its bound; clipping it again moves it by rounding alone."""
    a = wide(calls[0])
    y, terms, _ = clip_bounds.clip(a["gradient"], a["parameter"], case.op.rule, MODES["f32"])
    again = {name: 2.0 * np.broadcast_to(term, y.shape) for name, term in terms.items()}
    return Expected({"difference": Expectation(np.zeros(y.shape), again)}, frozenset({case.regime}))


AGC_02 = Property(
    id="AGC-02",
    tier=1,
    title="AGC: clipping a clipped gradient changes nothing",
    request="twice",
    method="agc",
    cases=_clips("AGC-02", "some"),
    calls=lambda case: [regimes.clipping(case)],
    expect=_expect_twice,
    modes=FULL_MODES,
    reduce=_difference,
)


def _both_scaled(case: Case) -> list[Arrays]:
    arrays = regimes.clipping(case)
    factor = np.float32(case.rng("factor").choice([2.0, 8.0]))
    return [arrays, {name: value * factor for name, value in arrays.items()}]


def _equivariance(case: Case, calls: list[Arrays], outputs: Outputs) -> Outputs:
    """The second output, scaled back, less the first."""
    if not {"y0", "y1"} <= set(outputs):
        return {}
    factor = calls[1]["gradient"].flat[0] / calls[0]["gradient"].flat[0]
    return {"difference": outputs["y1"].astype(np.float64) / factor - outputs["y0"]}


AGC_03 = Property(
    id="AGC-03",
    tier=1,
    title="AGC: scales with gradient and parameter together, to the bit",
    request="call",
    method="agc",
    cases=_clips("AGC-03", "some"),
    calls=_both_scaled,
    expect=_expect_zero,
    modes=FULL_MODES,
    reduce=_equivariance,
)


def _one_unit_changed(case: Case) -> list[Arrays]:
    """The gradient of the last channel a hundred times as large in the second call."""
    arrays = regimes.clipping(case)
    gradient = arrays["gradient"].copy()
    gradient[..., -1] *= np.float32(100.0)
    return [arrays, {**arrays, "gradient": gradient}]


def _others(case: Case, calls: list[Arrays], outputs: Outputs) -> Outputs:
    difference = _difference(case, calls, outputs)
    return {name: value[..., :-1] for name, value in difference.items()}


AGC_04 = Property(
    id="AGC-04",
    tier=1,
    title="AGC: a unit does not depend on the others, to the bit",
    request="call",
    method="agc",
    cases=_clips("AGC-04", "some", several=True),
    calls=_one_unit_changed,
    expect=lambda case, calls: Expected(
        {"difference": Expectation(np.zeros((*case.op.shape[:-1], case.op.shape[-1] - 1)))},
        frozenset({case.regime}),
    ),
    modes=FULL_MODES,
    reduce=_others,
)


def _factors(case: Case, calls: list[Arrays], outputs: Outputs) -> Outputs:
    """For each unit: the spread of its elements' factors, their growth, and its norm's excess."""
    if "y" not in outputs:
        return {}
    a, rule = wide(calls[0]), case.op.rule
    axes = tuple(range(outputs["y"].ndim)) if rule.axes is None else rule.axes
    y = outputs["y"].astype(np.float64)
    ratio = y / a["gradient"]
    norms = {
        name: np.sqrt((value**2).sum(axis=axes, keepdims=True))
        for name, value in (("y", y), ("p", a["parameter"]))
    }
    limit = rule.clipping * np.maximum(norms["p"], rule.eps)
    largest, least = ratio.max(axis=axes, keepdims=True), ratio.min(axis=axes, keepdims=True)
    return {
        "direction": (largest - least) / largest,
        "growth": np.maximum(largest - 1.0, 0.0),
        "norm": np.maximum(norms["y"] / limit - 1.0, 0.0),
    }


def _expect_factors(case: Case, calls: list[Arrays]) -> Expected:
    a, rule = wide(calls[0]), case.op.rule
    y, terms, _ = clip_bounds.clip(a["gradient"], a["parameter"], rule, MODES["f32"])
    axes = tuple(range(y.ndim)) if rule.axes is None else rule.axes
    u = MODES["f32"].store
    relative = sum(terms.values(), start=np.zeros(())) / np.abs(y)
    rounding = relative.max(axis=axes, keepdims=True)
    # A unit's factor is one number; only its products with the gradient are rounded.
    zero = np.zeros(rounding.shape)
    return Expected(
        {
            "direction": Expectation(zero, {"products": np.full(zero.shape, 8.0 * u)}),
            "growth": Expectation(zero, {"norms": rounding}),
            "norm": Expectation(zero, {"norms": rounding}),
        },
        frozenset({case.regime}),
    )


AGC_05 = Property(
    id="AGC-05",
    tier=1,
    title="AGC: keeps direction, never grows, and bounds the norm",
    request="call",
    method="agc",
    cases=_clips("AGC-05", "some"),
    calls=lambda case: [regimes.clipping(case)],
    expect=_expect_factors,
    modes=FULL_MODES,
    reduce=_factors,
)

PROPERTIES = (WS_03, WS_04, AGC_02, AGC_03, AGC_04, AGC_05)
