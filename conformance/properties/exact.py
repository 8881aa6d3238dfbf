"""Tier 0: probes of small integers, where any order of exact arithmetic gives the same bits.

Layout, groups, padding, stride, axes and wiring errors show without any tolerance. Sources of the
idea: oneDNN's benchdnn (data sized so that every partial sum is exact), IREE's end-to-end tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from nfspec import plan as p
from nfspec.conformance.cases.case import Arrays, Case, Clip
from nfspec.conformance.cases.corners import CONV
from nfspec.conformance.cases.precision import MODES
from nfspec.conformance.cases.regimes import as_float32
from nfspec.conformance.cases.target import Target
from nfspec.conformance.properties.base import (
    FULL_MODES,
    Expectation,
    Expected,
    Outputs,
    Property,
    spread,
    wide,
)
from nfspec.reference import operations as ops
from nfspec.reference import training

IMAGE = (2, 7, 6)  # an odd side and an even one
REGIMES = ("integer",)
# Weights of this size are beside any eps, which is at most 1, to the last bit even of float64: so
# that the divisor is a power of two whatever eps a spec, or an implementation, has.
SIZES = {"max": 1.0, "add": 2.0**28, "add_to_std": 2.0**54, "none": 1.0}


def image(op: p.WSConv | p.Pool) -> tuple[int, ...]:
    """The shape of the input of a conv or a pool."""
    if isinstance(op, p.Pool):
        return (*IMAGE, 3)
    side = 9 if op.extent > 3 else IMAGE[1]
    return (IMAGE[0], side, side - 1, op.in_channels)


def signs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw as many 1 as -1 for each output channel, and a 0 where that leaves one over."""
    n = int(np.prod(shape[:-1]))
    column = np.resize([1.0, -1.0], n)
    if n % 2:
        column[-1] = 0.0
    drawn = rng.permuted(np.repeat(column[:, None], shape[-1], axis=1), axis=0)
    return drawn.reshape(shape)


def _exact_ops(target: Target) -> Iterable[p.WSConv]:
    """The target's 1x1 convs, cut to fan-ins of which the square root is a power of two.

    All else is as the target has it, as an implementation may have it fixed: convs whose gamma is
    not 1, or whose variance is not over all weights, have no such scale.
    """
    distinct: dict[p.WSConv, None] = {}
    for op in target.of(p.WSConv):
        if op.kernel == 1 and op.gamma == 1.0 and op.ddof == 0:
            groups = min(op.groups, 2)
            width = 64 if op.in_channels // op.groups >= 64 else 16
            cut = replace(op, in_channels=width * groups, out_channels=4 * groups, groups=groups)
            distinct[cut] = None
    return distinct


def _integers(case: Case, powers: bool) -> list[Arrays]:
    rng, op = case.rng(), case.op
    shape = op.parameters[0].shape
    size = op.out_channels
    gain = rng.choice([1.0, 2.0, 0.5, -4.0] if powers else [1.0, -2.0], size)
    arrays = as_float32(
        x=rng.integers(-8, 9, case.shape).astype(float),
        kernel=signs(rng, shape) * (SIZES[op.eps_rule] if powers else 1.0),
        gain=gain,
        bias=rng.choice([0.0, 1.0, -1.0, 0.25], size),
    )
    return [arrays]


def _output(op: p.WSConv, a: dict[str, np.ndarray]) -> np.ndarray:
    kernel = ops.standardise(op, a["kernel"], a["gain"])
    return ops.conv(a["x"], kernel, *op.sliding) + a["bias"]


def _expect_bits(case: Case, calls: list[Arrays]) -> Expected:
    return Expected({"y": Expectation(_output(case.op, wide(calls[0])))}, frozenset({"integer"}))


EXACT_01 = Property(
    id="EXACT-01",
    tier=0,
    title="1x1 WS conv of integers, fan-in a power of four: the same bits",
    request="call",
    method="ws_conv",
    cases=lambda target: spread("EXACT-01", _exact_ops(target), REGIMES, image),
    calls=lambda case: _integers(case, True),
    expect=_expect_bits,
    modes=FULL_MODES,
)


def _unscaled(case: Case, calls: list[Arrays], outputs: Outputs) -> Outputs:
    """The integers of an output: the bias subtracted, and divided by the kernel's one scale."""
    op, a = case.op, wide(calls[0])
    scale = ops.standardise(op, a["kernel"], a["gain"])
    size = np.abs(scale).max(axis=(0, 1, 2)) * np.sign(a["gain"])
    if "y" not in outputs:
        return {}
    return {"integers": (outputs["y"].astype(np.float64) - a["bias"]) / size}


def _expect_integers(case: Case, calls: list[Arrays]) -> Expected:
    exact = _unscaled(case, calls, {"y": _output(case.op, wide(calls[0]))})["integers"]
    half = {"half an integer": np.full(exact.shape, 0.5)}
    met = {"integer"}
    op = case.op
    if op.stride > 1 and op.kernel > 1:
        met.add("stride over an odd and an even side")
    if op.groups > 1:
        met.add("several groups")
    return Expected({"integers": Expectation(np.rint(exact), half)}, frozenset(met))


EXACT_02 = Property(
    id="EXACT-02",
    tier=0,
    title="WS conv of integers, any shape: the integers read back",
    request="call",
    method="ws_conv",
    # A channel of one weight is 0, whatever the image.
    cases=lambda target: spread(
        "EXACT-02", [op for op in target.of(p.WSConv) if op.fan_in > 1], REGIMES, image
    ),
    calls=lambda case: _integers(case, False),
    expect=_expect_integers,
    modes=("f32",),
    must=lambda cases: frozenset(
        met for case in cases for met in _expect_integers(case, _integers(case, False)).met
    ),
    reduce=_unscaled,
    draws=False,
)


def _divides(op: p.Pool) -> bool:
    """True if the windows' counts of pixels divide without rounding."""
    return op.kind == "max" or op.window in (1, 2)


def _pool_input(case: Case) -> list[Arrays]:
    return [as_float32(x=case.rng().integers(-8, 9, case.shape).astype(float))]


EXACT_03 = Property(
    id="EXACT-03",
    tier=0,
    title="pooling of integers: the same bits",
    request="call",
    method="pool",
    cases=lambda target: spread("EXACT-03", filter(_divides, target.of(p.Pool)), REGIMES, image),
    calls=_pool_input,
    expect=lambda case, calls: Expected(
        {"y": Expectation(ops.pool(case.op, wide(calls[0])["x"]))}, frozenset({"integer"})
    ),
)


def _exact_clips(target: Target) -> Iterable[Clip]:
    """The target's units and eps, over kernels whose units have a power of four elements."""
    for unit, eps in dict.fromkeys((clip.unit, clip.eps) for clip in target.clips):
        for role, shape in (("kernel", (2, 2, 16, 6)), ("gain", (16,)), ("kernel", (16, 5))):
            yield Clip(role, shape, unit, 2.0**-7, eps)  # type: ignore[arg-type]


def _uneven(rng: np.random.Generator, rows: int, units: int) -> np.ndarray:
    """Sizes (rows, units) whose squares add up to the number of rows: in places a 2 and three
    zeros for four ones, so that other units than those asked for have other norms."""
    size = np.ones((rows // 4, 4, units))
    merged = rng.random((rows // 4, 1, units)) < 0.5
    size = np.where(merged, np.array([2.0, 0.0, 0.0, 0.0])[:, None], size)
    return rng.permuted(size.reshape(-1, units), axis=0) if rows > 1 else np.ones((1, units))


def _powers(case: Case) -> list[Arrays]:
    """Units whose elements are powers of two up to sign, or 0, and so are their norms; those of
    parameters are above eps, which is no such number."""
    rng, op = case.rng(), case.op
    units = op.rule.units
    rows = math.prod(op.shape) // units
    least = max(-16, math.ceil(math.log2(op.eps)) + 1)  # results are numbers of float16, too
    arrays = {}
    for name, powers in (("gradient", (-9, 2)), ("parameter", (least, 3))):
        size = _uneven(rng, rows, units) * 2.0 ** rng.integers(*powers, units)
        arrays[name] = rng.choice([1.0, -1.0], op.shape) * size.reshape(op.shape)
    return [as_float32(**arrays)]


EXACT_04 = Property(
    id="EXACT-04",
    tier=0,
    title="AGC of units whose norms are powers of two: the same bits",
    request="call",
    method="agc",
    cases=lambda target: [
        Case("EXACT-04", seed=i, regime="integer", op=clip)
        for i, clip in enumerate(c for c in _exact_clips(target) if _power_of_four(c))
    ],
    calls=_powers,
    expect=lambda case, calls: Expected(
        {
            "y": Expectation(
                training.clip(
                    wide(calls[0])["gradient"], wide(calls[0])["parameter"], case.op.rule
                )[0]
            )
        },
        frozenset({"integer"}),
    ),
)


def _power_of_four(clip: Clip) -> bool:
    n = int(np.prod(clip.shape)) // clip.rule.units
    return n & (n - 1) == 0 and n.bit_length() % 2 == 1


CANARY = replace(CONV, kernel=1, in_channels=4, out_channels=2)


def _canary_input(case: Case) -> list[Arrays]:
    """An image of 1 + 2^-12, which TF32, bfloat16 and float16 round to 1."""
    x = np.zeros((1, 2, 3, 4))
    x[..., 0], x[..., 1] = 1.0 + 2.0**-12, 1.0
    kernel = np.array([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [-1.0, -1.0]]).reshape(1, 1, 4, 2)
    return [as_float32(x=x, kernel=kernel, gain=np.ones(2), bias=np.zeros(2))]


def _seen(case: Case, calls: list[Arrays], outputs: Outputs) -> Outputs:
    """The sign of each output, 0 where the 2^-12 does not show. The size is for WS-01 to judge: it
    depends on conventions of the scale, and is 2^-13 here."""
    if "y" not in outputs:
        return {}
    y = outputs["y"].astype(np.float64)
    return {"sign": np.where(np.isfinite(y), np.sign(y) * (np.abs(y) > 2.0**-16), y)}


def _expect_canary(case: Case, calls: list[Arrays]) -> Expected:
    a = wide(calls[0])
    if MODES[case.mode].operand:
        a["x"] = np.round(a["x"])
    sign = _seen(case, calls, {"y": _output(case.op, a)})["sign"]
    return Expected({"sign": Expectation(sign)}, frozenset({"canary"}))


MODE_01 = Property(
    id="MODE-01",
    tier=0,
    title="operands of convs are rounded as the mode says, and not otherwise",
    request="call",
    method="ws_conv",
    cases=lambda target: [Case("MODE-01", regime="canary", op=CANARY, shape=(1, 2, 3, 4))],
    calls=_canary_input,
    expect=_expect_canary,
    reduce=_seen,
    draws=False,
)

PROPERTIES = (EXACT_01, EXACT_02, EXACT_03, EXACT_04, MODE_01)
