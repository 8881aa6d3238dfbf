"""Bounds of clipping and of a step: float32 stays within them, mistakes do not, bits where due."""

from dataclasses import replace

import numpy as np
import pytest

from nfspec import load
from nfspec.conformance.bounds import clipping as bounds
from nfspec.conformance.cases import regimes
from nfspec.conformance.cases.case import Case, Clip
from nfspec.conformance.cases.precision import MODES, narrow
from nfspec.conformance.cases.regimes import CLIP_REGIMES
from nfspec.conformance.cases.target import target
from nfspec.conformance.properties.base import wide
from nfspec.plan.clipping import LEAST_GRADIENT_NORM
from nfspec.reference import training

from .float32 import ratio

FULL = MODES["f32"]
CLIPS = target(None).clips
KERNEL = Clip("kernel", (3, 3, 16, 8), "squeeze", 0.01, 1e-3)
RECIPE = load("nfnet-f0").recipe
RATE, DECAY = 0.2, 1e-3
SEEDS = range(4)
F = np.float32


def arrays(clip, regime, seed=0, mode="f32"):
    return regimes.clipping(Case("AGC-01", seed, regime, mode, op=clip))


def over(clip):
    axes = clip.rule.axes
    return tuple(range(len(clip.shape))) if axes is None else axes


def norm(x, axes):
    """The norm of each unit; squares are added to the sum one after another."""
    kept = [n for i, n in enumerate(x.shape) if i not in axes]
    rows = np.moveaxis(x, axes, range(len(axes))).reshape(-1, *kept)
    total = np.add.accumulate(rows * rows, axis=0)[-1]
    return np.sqrt(np.expand_dims(total, axes))


def clip32(clip, gradient, parameter):
    """The formula, in float32."""
    rule, axes = clip.rule, over(clip)
    limit = F(rule.clipping) * np.maximum(norm(parameter, axes), F(rule.eps))
    size = norm(gradient, axes)
    factor = limit / np.maximum(size, F(LEAST_GRADIENT_NORM))
    return np.where(size > limit, gradient * factor, gradient)


@pytest.mark.parametrize("regime", CLIP_REGIMES)
@pytest.mark.parametrize("clip", CLIPS, ids=range(len(CLIPS)))
def test_float32_stays_within(clip, regime):
    for seed in SEEDS:
        a = arrays(clip, regime, seed)
        w = wide(a)
        y, terms, clipped = bounds.clip(w["gradient"], w["parameter"], clip.rule, FULL)
        expected, fraction = training.clip(w["gradient"], w["parameter"], clip.rule)
        np.testing.assert_array_equal(y, expected)
        assert clipped.mean() == fraction
        result = clip32(clip, **a)
        assert result.dtype == F
        assert ratio(result, y, terms) <= 1.0


@pytest.mark.parametrize("mode", ["bf16", "f16"])
def test_narrow_gradients(mode):
    """Stored in few bits, clipped by norms in float32."""
    a = arrays(KERNEL, "some", mode=mode)
    y, terms, _ = bounds.clip(*wide(a).values(), KERNEL.rule, MODES[mode])
    clipped = narrow(clip32(KERNEL, **a), mode)
    # float16 flushes, on some devices, what lies below 2^-14: these gradients are hardly larger.
    assert {"bf16": 0.3, "f16": 0.0}[mode] < ratio(clipped, y, terms) <= 1.0


def test_the_bound_is_not_vacuous():
    worst = 0.0
    for seed in range(20):
        a = arrays(KERNEL, "large", seed)
        y, terms, _ = bounds.clip(*wide(a).values(), KERNEL.rule, FULL)
        worst = max(worst, ratio(clip32(KERNEL, **a), y, terms))
    assert worst >= 1 / 20


@pytest.mark.parametrize("clip", [c for c in CLIPS if c.rule.units > 1], ids=str)
def test_a_unit_that_is_surely_below_its_limit_has_to_keep_its_bits(clip):
    met = 0
    for seed in SEEDS:
        w = wide(arrays(clip, "some", seed))
        y, terms, clipped = bounds.clip(*w.values(), clip.rule, FULL)
        size, of_parameter = (
            np.sqrt((w[name] ** 2).sum(axis=over(clip), keepdims=True))
            for name in ("gradient", "parameter")
        )
        below = size < 0.9999 * clip.rule.clipping * np.maximum(of_parameter, clip.rule.eps)
        bound = sum(terms.values()) + np.zeros_like(y)
        assert bound[np.broadcast_to(clipped, y.shape)].all()
        below = np.broadcast_to(below, y.shape)
        assert not bound[below].any()
        np.testing.assert_array_equal(y[below], w["gradient"][below])
        met += below.sum()
    assert met > 0


def test_a_parameter_that_is_not_clipped_keeps_its_bits():
    rule = replace(KERNEL.rule, clipping=None)
    w = wide(arrays(KERNEL, "large"))
    y, terms, clipped = bounds.clip(*w.values(), rule, FULL)
    assert (y is w["gradient"]) and not terms and not clipped.any()


MISTAKES = {
    "lambda": ("some", {"clipping": 0.01 * 1.0001}),
    "eps": ("tiny", {"eps": 1e-2}),
    "norm of the tensor": ("some", {"unit": "tensor"}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_beyond(mistake):
    regime, changes = MISTAKES[mistake]
    w = wide(arrays(KERNEL, regime))
    y, terms, _ = bounds.clip(*w.values(), KERNEL.rule, FULL)
    wrong, _ = training.clip(*w.values(), replace(KERNEL, **changes).rule)
    assert ratio(wrong, y, terms) > 1.0


def test_a_gradient_that_is_never_left_alone_is_beyond():
    w = wide(arrays(KERNEL, "some"))
    y, terms, _ = bounds.clip(*w.values(), KERNEL.rule, FULL)
    rescaled = w["gradient"] * (1.0 + 1e-7)
    assert ratio(rescaled, y, terms) == np.inf


def state(seed):
    a = arrays(KERNEL, "some", seed)
    momentum = np.random.default_rng(seed).standard_normal(KERNEL.shape) * 1e-3
    return {**a, "momentum": momentum.astype(F)}


def bound_of_step(w, recipe=RECIPE, decay=DECAY):
    order = ("gradient", "parameter", "momentum")
    return bounds.step(*(w[name] for name in order), KERNEL.rule, RATE, decay, recipe)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("decay", [0.0, DECAY])
def test_a_step_in_float32(decay, nesterov):
    recipe = RECIPE.model_copy(update={"nesterov": nesterov})
    for seed in SEEDS:
        a = state(seed)
        exact = bound_of_step(wide(a), recipe, decay)
        g = clip32(KERNEL, a["gradient"], a["parameter"]) + F(decay) * a["parameter"]
        buffer = F(recipe.momentum) * a["momentum"] + g
        step = g + F(recipe.momentum) * buffer if nesterov else buffer
        computed = {"parameter": a["parameter"] - F(RATE) * step, "momentum": buffer}
        ratios = {name: ratio(computed[name], *exact[name]) for name in exact}
        assert 1 / 20 <= min(ratios.values()) <= max(ratios.values()) <= 1.0, ratios


WRONG_STEPS = {
    "no nesterov": lambda g, p, m: training.descend(
        p, g, m, RATE, DECAY, RECIPE.model_copy(update={"nesterov": False})
    ),
    "no decay": lambda g, p, m: training.descend(p, g, m, RATE, 0.0, RECIPE),
    "momentum": lambda g, p, m: training.descend(
        p, g, m, RATE, DECAY, RECIPE.model_copy(update={"momentum": 0.9001})
    ),
    "rate": lambda g, p, m: training.descend(p, g, m, RATE * 1.0001, DECAY, RECIPE),
}


@pytest.mark.parametrize("mistake", WRONG_STEPS)
def test_a_wrong_step_is_beyond(mistake):
    w = wide(state(0))
    exact = bound_of_step(w)
    g, _ = training.clip(w["gradient"], w["parameter"], KERNEL.rule)
    after, buffer = WRONG_STEPS[mistake](g, w["parameter"], w["momentum"])
    computed = {"parameter": after, "momentum": buffer}
    assert max(ratio(computed[name], *exact[name]) for name in exact) > 1.0


def test_a_step_is_the_references():
    w = wide(state(0))
    exact = bound_of_step(w)
    g, _ = training.clip(w["gradient"], w["parameter"], KERNEL.rule)
    after, buffer = training.descend(w["parameter"], g, w["momentum"], RATE, DECAY, RECIPE)
    np.testing.assert_array_equal(exact["parameter"][0], after)
    np.testing.assert_array_equal(exact["momentum"][0], buffer)
