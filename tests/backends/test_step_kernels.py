"""The kernels of a training step, clipping and momentum, against their plain twins and float64.

Bounds are those of `test_kernels`.
"""

import math

import keras
import numpy as np
import pytest
from keras import ops

from nfspec.backends.kernels import kernels
from nfspec.backends.layers import WSConv2D
from nfspec.backends.optimizers import SGD
from nfspec.language.tables import AGC
from nfspec.plan.clipping import ClipRule, clip_rule

from .small import drawn

BACKEND = keras.backend.backend()
FAST, PLAIN = kernels(False), kernels(True)
U = 2.0**-24


RULES = [
    ((3, 3, 4, 6), ClipRule((0, 1, 2), 6, 0.01, 1e-3)),
    ((16, 5), ClipRule((0,), 5, 0.01, 1e-3)),
    ((16, 5), ClipRule((0,), 5, None, 1e-3)),
    ((6,), ClipRule(None, 1, 0.01, 1e-3)),
    ((6,), ClipRule((), 6, 0.1, 1e-3)),
    ((), ClipRule(None, 1, 0.01, 1e-3)),
]


def test_clip_all():
    rules = [rule for _, rule in RULES]
    gradients = [0.1 * drawn(*shape, seed=i) for i, (shape, _) in enumerate(RULES)]
    gradients[0][..., 0] *= 1e-3  # a unit that is left alone
    gradients[0][0, 0, 0, 1] = np.nan
    gradients[1][0, 1] = np.inf
    weights = [drawn(*shape, seed=10 + i) for i, (shape, _) in enumerate(RULES)]
    results = []
    for module in (FAST, PLAIN):
        tensors = [[ops.convert_to_tensor(a) for a in b] for b in (gradients, weights)]
        clipped, fractions = module.clip_all(*tensors, rules)
        results.append(([ops.convert_to_numpy(c) for c in clipped], [float(f) for f in fractions]))
    for (shape, rule), fast, wanted in zip(RULES, results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(fast, wanted, rtol=16 * 6 * U, err_msg=f"{shape} {rule}")
    assert results[0][1] == results[1][1]


TENSORS = [
    ("kernel", (3, 3, 4, 6), 0.01),
    ("kernel", (1, 1, 1, 6), 0.5),
    ("gain", (6,), 0.01),
    ("head", (16, 5), None),
    ("bias", (6,), 0.01),
    ("skip_gain", (), 0.01),
    ("kernel", (16, 5), 0.5),
]


def clipped_by_hand(gradient, parameter, rule):
    """In float64: the gradient, and which of its elements were clipped."""
    if rule.clipping is None:
        return gradient.astype(float), np.zeros(gradient.shape, bool)

    def norm(x):
        x = x.astype(float)
        return np.abs(x) if rule.axes == () else np.sqrt((x**2).sum(rule.axes, keepdims=True))

    limit = rule.clipping * np.maximum(norm(parameter), rule.eps)
    over = norm(gradient) > limit
    out = np.where(over, gradient * (limit / np.maximum(norm(gradient), 1e-6)), gradient)
    return out, np.broadcast_to(over, gradient.shape)


@pytest.mark.parametrize("unit", ["squeeze", "timm", "tensor"])
def test_clip_all_at_once_is_one_by_one(unit):
    """Every lambda, None too, and tensors of every rank, in one call."""
    given = {"enabled": True, "exclude": (), "roles": {}, "names": {}, "eps": 1e-3, "unit": unit}
    rules, gradients, weights = [], [], []
    for i, (role, shape, clipping) in enumerate(TENSORS):
        rule = clip_rule(AGC(clipping=clipping or 1.0, **given), "x", role, shape)
        rules.append(rule if clipping else ClipRule(rule.axes, rule.units, None, rule.eps))
        # Units of gradients from a hundredth to all of their parameter's norm.
        sizes = 10.0 ** np.linspace(-2, 0, shape[-1] if shape else 1)
        gradients.append(np.float32(drawn(*shape, seed=i) * (sizes if shape else 0.3)))
        weights.append(drawn(*shape, seed=10 + i))
    clipped, fractions = FAST.clip_all(
        *([ops.convert_to_tensor(a) for a in b] for b in (gradients, weights)), rules
    )
    seen = set()
    for i, rule in enumerate(rules):
        exact, over = clipped_by_hand(gradients[i], weights[i], rule)
        # Norms of 36 elements at most.
        np.testing.assert_allclose(
            ops.convert_to_numpy(clipped[i]), exact, rtol=16 * 6 * U, err_msg=TENSORS[i]
        )
        assert float(fractions[i]) == pytest.approx(over.mean(), abs=1e-6)
        seen |= set(over.flat)
    assert seen == {True, False}


def test_clip_all_of_nothing():
    assert FAST.clip_all([], [], []) == PLAIN.clip_all([], [], []) == ([], [])


@pytest.mark.skipif(BACKEND != "torch", reason="gradients without memory of their own")
def test_a_gradient_that_shares_memory_is_not_changed_in_place():
    import torch

    weight, rule = torch.tensor(drawn(3, 3, 4, 6)), ClipRule((0, 1, 2), 6, 0.01, 1e-3)
    for wide in (torch.tensor(2.0), torch.tensor(drawn(6)), torch.tensor(drawn(3, 1, 1, 1))):
        gradient = wide.clone().expand(weight.shape)
        assert 0 in gradient.stride()
        (clipped,), (fraction,) = FAST.clip_all([gradient], [weight], [rule])
        (wanted,), (share,) = PLAIN.clip_all([wide.expand(weight.shape).clone()], [weight], [rule])
        torch.testing.assert_close(clipped, wanted, rtol=16 * 6 * U, atol=0.0)
        assert torch.equal(fraction, share)
        assert torch.equal(gradient, wide.expand(weight.shape))


@pytest.mark.parametrize("nesterov", [True, False])
def test_momentum_steps(nesterov):
    weights = []
    for plain in (False, True):
        layer = WSConv2D(6, 3, name="conv", plain=plain)
        layer.build((None, 8, 8, 4))
        how = {"nesterov": nesterov, "coupled_weight_decay": 1e-2, "plain": plain}
        optimizer = SGD(0.1, momentum=0.9, **how)
        optimizer.build(layer.trainable_variables)
        for i, variable in enumerate(layer.trainable_variables):
            variable.assign(drawn(*variable.shape, seed=i))
        for step in range(3):
            gradients = [
                ops.convert_to_tensor(drawn(*v.shape, seed=10 * step + i))
                for i, v in enumerate(layer.trainable_variables)
            ]
            _apply(optimizer, gradients, layer.trainable_variables)
        weights.append([ops.convert_to_numpy(v) for v in layer.trainable_variables])
    for a, b in zip(*weights, strict=True):
        assert np.linalg.norm(a - b) <= 16 * U * np.linalg.norm(b)


def _apply(optimizer, gradients, variables):
    if BACKEND != "torch":
        optimizer.apply(gradients, variables)
        return
    import torch

    with torch.no_grad():
        optimizer.apply(gradients, variables)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("layouts", ["of parameters", "mixed"])
def test_momentum_steps_against_float64(layouts, nesterov):
    """Three steps, of tensors as they are kept; on PyTorch also with the last axis first."""
    shapes = [(3, 3, 4, 6), (16, 5), (6,), ()]

    def laid(array, i):
        tensor = ops.convert_to_tensor(array)
        if layouts == "mixed" and i % 2 and BACKEND == "torch":
            return tensor.movedim(-1, 0).contiguous().movedim(0, -1)
        return tensor

    def variable(array, i):
        return keras.Variable(lambda shape, dtype=None: laid(array, i), shape=array.shape)

    start = [drawn(*shape, seed=i) for i, shape in enumerate(shapes)]
    variables = [variable(a, i) for i, a in enumerate(start)]
    buffers = [variable(np.zeros_like(a), i + 1) for i, a in enumerate(start)]
    optimizer = SGD(0.1)
    optimizer.build(variables)
    exact = [(a.astype(float), np.zeros(a.shape)) for a in start]
    for step in range(3):
        gradients = [drawn(*shape, seed=10 * step + i + 5) for i, shape in enumerate(shapes)]
        _stepped(optimizer, variables, buffers, list(map(laid, gradients, range(4))), nesterov)
        for i, (p, b) in enumerate(exact):
            b = 0.9 * b + gradients[i]
            exact[i] = p - 0.1 * (gradients[i] + 0.9 * b if nesterov else b), b
    for v, b, wanted in zip(variables, buffers, exact, strict=True):
        for stepped, w in zip((v, b), wanted, strict=True):
            error = np.linalg.norm(ops.convert_to_numpy(stepped) - w)
            # Three sums of terms of size 1 to 3 each.
            assert error <= 16 * U * (np.linalg.norm(w) + math.sqrt(w.size))


def _stepped(optimizer, variables, buffers, gradients, nesterov):
    import contextlib

    context = contextlib.nullcontext()
    if BACKEND == "torch":
        import torch

        context = torch.no_grad()
    rate = ops.convert_to_tensor(0.1)
    with context:
        decays = [0.0] * len(variables)
        FAST.momentum_steps(optimizer, variables, buffers, gradients, decays, rate, 0.9, nesterov)
