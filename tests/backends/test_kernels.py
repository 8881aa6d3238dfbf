"""Each kernel against its plain twin and the float64 oracle: values and gradients, in float32.

Two float32 computations of a sum of n terms differ by about sqrt(n) roundings of 6e-8 each; the
bound is 16 times that, of the L2 norm of what is compared.
"""

import ast
import inspect
import math
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import nfspec.backends.kernels
from nfspec.backends.kernels import kernels
from nfspec.backends.layers import WSConv2D
from nfspec.backends.optimizers import SGD
from nfspec.language.tables import AGC
from nfspec.plan import Init, Pool, WSConv, activations
from nfspec.plan.activations import DEEPMIND_GAMMA
from nfspec.plan.clipping import ClipRule, clip_rule
from nfspec.reference import derivatives, operations

BACKEND = keras.backend.backend()
FAST, PLAIN = kernels(False), kernels(True)
NAMES = [
    "activate",
    "average_pool",
    "clip_all",
    "convolve",
    "convolve_activated",
    "dense",
    "momentum_steps",
    "scale_add",
    "standardise",
]
U = 2.0**-24


def drawn(*shape, seed=0, mean=0.0):
    return (np.random.default_rng(seed).standard_normal(shape) + mean).astype(np.float32)


def with_gradients(function, arrays):
    """The value y and the derivatives by every array of `sum(dy · y)`, dy being drawn."""
    if BACKEND == "jax":
        import jax

        y, back = jax.vjp(function, *map(ops.convert_to_tensor, arrays))
        found = back(ops.convert_to_tensor(drawn(*y.shape, seed=9)))
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        tensors = [tf.constant(a) for a in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            y = function(*tensors)
        found = tape.gradient(y, tensors, tf.constant(drawn(*y.shape, seed=9)))
    else:
        import torch

        tensors = [torch.tensor(a).requires_grad_() for a in arrays]
        y = function(*tensors)
        found = torch.autograd.grad(y, tensors, torch.tensor(drawn(*y.shape, seed=9)))
    return [ops.convert_to_numpy(value) for value in (y, *found)]


def assert_within(found, wanted, terms):
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert a.shape == b.shape
        distance = np.linalg.norm(a.astype(float) - b)
        # dy is random, so that its sums are as large as the root of their terms.
        size = max(np.linalg.norm(b.astype(float)), math.sqrt(b.size))
        assert distance <= 16 * math.sqrt(terms) * U * size, i


def assert_equal(name, call, *arrays, terms, exact=None):
    """A kernel, `call(kernel, *arrays)`, against its twin, and both against the oracle.

    `exact` is a function of dy and the arrays, in float64, to what `with_gradients` returns. Where
    a framework takes the twin itself there is nothing to compare it with but that.
    """
    fast, plain = getattr(FAST, name), getattr(PLAIN, name)
    found = [
        with_gradients(lambda *a, k=kernel: call(k, *a), arrays)
        for kernel in ([plain] if fast is plain else [plain, fast])
    ]
    assert_within(found[-1], found[0], terms)
    if exact is None:
        return
    dy = drawn(*found[0][0].shape, seed=9).astype(np.float64)
    wanted = [np.asarray(value) for value in exact(dy, *(a.astype(np.float64) for a in arrays))]
    for values in found:
        assert_within(values, wanted, terms)


def without_gradients(call):
    if BACKEND != "torch":
        return ops.convert_to_numpy(call())
    import torch

    with torch.inference_mode():
        return ops.convert_to_numpy(call())


@pytest.mark.parametrize("name", NAMES)
def test_every_framework_has_the_same_names(name):
    fast, plain = getattr(FAST, name), getattr(PLAIN, name)
    assert list(inspect.signature(fast).parameters) == list(inspect.signature(plain).parameters)
    defaults = [
        [p.default for p in inspect.signature(f).parameters.values()] for f in (fast, plain)
    ]
    assert defaults[0] == defaults[1]


@pytest.mark.parametrize("module", ["plain", "jax", "torch", "tensorflow"])
def test_every_file_has_every_kernel(module):
    """By its text, since only one framework is imported here."""
    path = Path(nfspec.backends.kernels.__file__).with_name(f"{module}.py")
    tree = ast.parse(path.read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            assert ast.literal_eval(node.value) == NAMES
    assert set(NAMES) <= names


def ws_conv(shape, rule, ddof, gamma=1.7, eps=1e-4):
    """An operation for the oracle, whose kernel has this shape."""
    return WSConv(
        "c", ("x",), in_channels=shape[2], out_channels=shape[3], kernel=shape[0], stride=1,
        groups=1, padding="same", eps=eps, eps_rule=rule, ddof=ddof, dtype="float32", gamma=gamma,
        kernel_init=Init("normal", 1.0), gain_init=1.0,
    )  # fmt: skip


def assert_standardised(kernel, rule, ddof, terms):
    gain = drawn(kernel.shape[3], seed=1)
    gain[0] = 0.0
    op = ws_conv(kernel.shape, rule, ddof)
    how = {"eps": op.eps, "eps_rule": rule, "ddof": ddof, "gamma": op.gamma}
    assert_equal(
        "standardise",
        lambda standardise, k, g: standardise(k, g, **how),
        kernel,
        gain,
        terms=terms,
        exact=lambda dy, k, g: (
            operations.standardise(op, k, g),
            *derivatives.standardise(op, dy, k, g),
        ),
    )


@pytest.mark.parametrize("mean", [0.0, 30.0])
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("rule", ["max", "add", "add_to_std"])
def test_standardise(rule, ddof, mean):
    # A mean of 30 std leaves rounding errors of the weights 30 times as large.
    assert_standardised(drawn(3, 3, 4, 6, mean=mean), rule, ddof, terms=36 * (1 + mean) ** 2)


@pytest.mark.parametrize("size", [1e-5, 1e-3])  # n · var is 4e-9 and 4e-5, of 1e-4
@pytest.mark.parametrize("rule", ["max", "add", "add_to_std"])
def test_standardise_a_channel_below_eps(rule, size):
    """Its own gradient is some thousand times the others', and is compared by itself."""
    kernel = drawn(3, 3, 4, 6, seed=3)
    kernel[..., 1] *= size
    gain = drawn(6, seed=1)
    op = ws_conv(kernel.shape, rule, 0)
    dy = drawn(*kernel.shape, seed=9).astype(np.float64)
    k, g = kernel.astype(np.float64), gain.astype(np.float64)
    wanted = (operations.standardise(op, k, g), *derivatives.standardise(op, dy, k, g))
    how = {"eps": op.eps, "eps_rule": rule, "ddof": 0, "gamma": op.gamma}
    for module in (FAST, PLAIN):
        found = with_gradients(
            lambda k, g, m=module: m.standardise(k, g, **how),
            (kernel, gain),
        )
        for channel in range(6):
            for a, b in zip(found, wanted, strict=True):
                near = np.linalg.norm(b[..., channel]) + 1e-2
                # The mean of dy cancels, and 1 - std / (std + eps) does where eps is added to it.
                error = np.linalg.norm(a[..., channel] - b[..., channel])
                assert error <= 16 * math.sqrt(36) * U * near, (channel, module)


@pytest.mark.parametrize("rule", ["max", "add", "add_to_std"])
def test_standardise_a_constant_channel(rule):
    """What is left is 0, exactly, for a number whose sums are exact, and its gradient is dy's."""
    kernel, gain = drawn(3, 3, 4, 6, seed=3), drawn(6, seed=1)
    kernel[..., 1] = 0.5
    op = ws_conv(kernel.shape, rule, 0)
    how = {"eps": op.eps, "eps_rule": rule, "ddof": 0, "gamma": op.gamma}
    dy = drawn(*kernel.shape, seed=9).astype(np.float64)
    wanted, _ = derivatives.standardise(op, dy, kernel.astype(float), gain.astype(float))
    for module in (FAST, PLAIN):
        value, dkernel, dgain = with_gradients(
            lambda k, g, m=module: m.standardise(k, g, **how), (kernel, gain)
        )
        assert not value[..., 1].any()
        assert dgain[1] == 0.0
        size = np.linalg.norm(wanted[..., 1])
        assert np.linalg.norm(dkernel[..., 1] - wanted[..., 1]) <= 16 * 6 * U * size


@pytest.mark.parametrize("rule", ["max", "add", "add_to_std"])
def test_standardise_a_nearly_constant_channel(rule):
    """Mean 1, std 1e-3: the subtraction of the mean is exact, as the weights are near it."""
    kernel = (1.0 + 1e-3 * drawn(3, 3, 4, 6, seed=3)).astype(np.float32)
    op = ws_conv(kernel.shape, rule, 0)
    gain = drawn(6, seed=1)
    exact = operations.standardise(op, kernel.astype(float), gain.astype(float))
    for module in (FAST, PLAIN):
        found = without_gradients(
            lambda m=module: m.standardise(
                ops.convert_to_tensor(kernel),
                ops.convert_to_tensor(gain),
                eps=op.eps,
                eps_rule=rule,
                ddof=0,
                gamma=op.gamma,
            )
        )
        # The first mean is off by a rounding of 1, a thousandth of which the second one has.
        assert np.linalg.norm(found - exact) <= 16 * 6 * U * np.linalg.norm(exact)


def convolved(strides, groups, padding, fmt):
    """The oracle's conv with its derivatives, by images in either format."""
    last = fmt == "channels_last"
    there, back = ((0, 1, 2, 3),) * 2 if last else ((0, 2, 3, 1), (0, 3, 1, 2))

    def exact(dy, x, kernel, bias):
        how = (strides, groups, padding)
        x, dy = x.transpose(there), dy.transpose(there)
        y = operations.conv(x, kernel, *how) + bias
        dx, dkernel = derivatives.conv(dy, x, kernel, *how)
        return y.transpose(back), dx.transpose(back), dkernel, dy.sum(axis=(0, 1, 2))

    return exact


def assert_convolved(side, strides, groups, padding, fmt, channels=8):
    x = drawn(2, 7, 6, channels)
    kernel = drawn(side, side, channels // groups, channels, seed=1)
    if fmt == "channels_first":
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    assert_equal(
        "convolve",
        lambda convolve, x, k, b: convolve(x, k, b, strides, padding, fmt),
        x,
        kernel,
        drawn(channels, seed=2),
        terms=2 * 7 * 6 * side * side,
        exact=convolved(strides, groups, padding, fmt),
    )


@pytest.mark.parametrize("fmt", ["channels_last", "channels_first"])
@pytest.mark.parametrize("padding", ["same", "symmetric", "valid"])
@pytest.mark.parametrize(
    ("side", "strides", "groups"), [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 2), (3, 1, 4)]
)
def test_convolve(side, strides, groups, padding, fmt):
    assert_convolved(side, strides, groups, padding, fmt)


@pytest.mark.parametrize("fmt", ["channels_last", "channels_first"])
@pytest.mark.parametrize(("strides", "groups", "channels"), [(2, 6, 12), (1, 18, 36)])
def test_convolve_in_many_groups(strides, groups, channels, fmt):
    """As many as there are convs of their own for, and more."""
    assert_convolved(3, strides, groups, "same", fmt, channels)


@pytest.mark.parametrize("kind", DEEPMIND_GAMMA)
def test_convolve_activated(kind):
    x, kernel, bias = drawn(2, 7, 6, 8), drawn(3, 3, 4, 8, seed=1), drawn(8, seed=2)
    exact = activations.apply(
        kind, operations.conv(x.astype(float), kernel.astype(float), 2, 2, "same") + bias, 0.02
    )
    for module in (FAST, PLAIN):
        found = without_gradients(
            lambda m=module: m.convolve_activated(
                ops.convert_to_tensor(x),
                ops.convert_to_tensor(kernel),
                ops.convert_to_tensor(bias),
                2,
                "same",
                "channels_last",
                kind,
                0.02,
            )
        )
        # An activation's argument is off by a rounding of what its conv sums, which is 6 in size.
        assert np.linalg.norm(found - exact) <= 16 * 6 * U * math.hypot(
            np.linalg.norm(exact), math.sqrt(exact.size)
        )


@pytest.mark.parametrize("kind", DEEPMIND_GAMMA)
def test_activate(kind):
    """Element by element. Functions built on exp or tanh are off by a few u of their argument, and
    by as much of 1, as they cancel near their zeros."""
    large = [20.0, 90.0, 1e3, 1e6, 1e12, 1e14]
    # Not -1e-20: TensorFlow has selu's slope from its output, which is 0 there.
    x = np.float32([*np.linspace(-12, 12, 500), *large, *(-v for v in large), 1e-20])
    exact = activations.apply(kind, x.astype(float), 0.02)
    dy = drawn(*x.shape, seed=9).astype(float)
    slope = derivatives.slope(kind, x.astype(float), 0.02)
    size = 1.0 + np.minimum(np.abs(x), 12.0)  # beyond it, all are as good as straight
    modules = [PLAIN] if FAST.activate is PLAIN.activate else [PLAIN, FAST]
    for module in modules:
        y, dx = with_gradients(module.activate(kind, 0.02), [x])
        assert (np.abs(y - exact) <= 4 * U * (np.abs(exact) + size)).all()
        assert (np.abs(dx - slope * dy) <= 16 * U * size * np.abs(dy)).all()
    values = without_gradients(lambda: FAST.activate(kind, 0.02)(ops.convert_to_tensor(x)))
    assert (np.abs(values - exact) <= 4 * U * (np.abs(exact) + size)).all()


@pytest.mark.parametrize("sides", [(5, 4), (1, 1)])
@pytest.mark.parametrize("scale", [(2, 1, 1, 8), (2, 8, 1, 1), ()])
def test_scale_add(scale, sides):
    """Images of one pixel, too, where the derivative by the gate sums nothing."""
    images = (2, 8, *sides) if scale == (2, 8, 1, 1) else (2, *sides, 8)
    summed = tuple(a for a in range(4) if not scale or scale[a] == 1)

    def exact(dy, branch, scale, shortcut):
        of_scale = (dy * branch).sum(axis=summed, keepdims=bool(scale.shape))
        return branch * scale + shortcut, dy * scale, of_scale, dy

    arrays = drawn(*images), drawn(*scale, seed=1), drawn(*images, seed=2)
    call = lambda scale_add, *a: scale_add(*a)  # noqa: E731
    assert_equal("scale_add", call, *arrays, terms=2 * 20, exact=exact)


@pytest.mark.parametrize("scale", [0.2, 1.0, 0.0, 2])
def test_scale_add_by_a_number(scale):
    assert_equal(
        "scale_add",
        lambda scale_add, x, y: scale_add(x, scale, y),
        drawn(2, 5, 4, 8),
        drawn(2, 5, 4, 8, seed=1),
        terms=1,
        exact=lambda dy, x, y: (scale * x + y, scale * dy, dy),
    )


def test_dense():
    arrays = drawn(3, 16), drawn(16, 5, seed=1), drawn(5, seed=2)
    assert_equal(
        "dense",
        lambda dense, *a: dense(*a),
        *arrays,
        terms=16,
        exact=lambda dy, x, k, b: (x @ k + b, dy @ k.T, x.T @ dy, dy.sum(axis=0)),
    )
    exact = arrays[0].astype(float) @ arrays[1] + arrays[2]
    found = without_gradients(lambda: FAST.dense(*map(ops.convert_to_tensor, arrays)))
    assert np.linalg.norm(found - exact) <= 64 * U * np.linalg.norm(exact)


@pytest.mark.parametrize("fmt", ["channels_last", "channels_first"])
@pytest.mark.parametrize("sides", [(6, 4), (5, 7)])
def test_average_pool(sides, fmt):
    op = Pool("p", ("x",), "avg", 2, 2, "same")
    last = fmt == "channels_last"
    there, back = ((0, 1, 2, 3),) * 2 if last else ((0, 2, 3, 1), (0, 3, 1, 2))

    def exact(dy, x):
        x, dy = x.transpose(there), dy.transpose(there)
        return [v.transpose(back) for v in (operations.pool(op, x), derivatives.pool(op, dy, x))]

    x = np.ascontiguousarray(drawn(2, *sides, 8).transpose(back))
    call = lambda pool, x: pool(x, 2, 2, "same", fmt)  # noqa: E731
    assert_equal("average_pool", call, x, terms=4, exact=exact)


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
    for (shape, rule), found, wanted in zip(RULES, results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=16 * 6 * U, err_msg=f"{shape} {rule}")
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
    found, fractions = FAST.clip_all(
        *([ops.convert_to_tensor(a) for a in b] for b in (gradients, weights)), rules
    )
    seen = set()
    for i, rule in enumerate(rules):
        exact, over = clipped_by_hand(gradients[i], weights[i], rule)
        # Norms of 36 elements at most.
        np.testing.assert_allclose(
            ops.convert_to_numpy(found[i]), exact, rtol=16 * 6 * U, err_msg=TENSORS[i]
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
        (found,), (fraction,) = FAST.clip_all([gradient], [weight], [rule])
        (wanted,), (share,) = PLAIN.clip_all([wide.expand(weight.shape).clone()], [weight], [rule])
        torch.testing.assert_close(found, wanted, rtol=16 * 6 * U, atol=0.0)
        assert torch.equal(fraction, share)
        assert torch.equal(gradient, wide.expand(weight.shape))


@pytest.mark.parametrize("nesterov", [True, False])
def test_momentum_steps(nesterov):
    found = []
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
        found.append([ops.convert_to_numpy(v) for v in layer.trainable_variables])
    for a, b in zip(*found, strict=True):
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
        for found, w in zip((v, b), wanted, strict=True):
            error = np.linalg.norm(ops.convert_to_numpy(found) - w)
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
        FAST.momentum_steps(optimizer, variables, buffers, gradients, rate, 0.9, nesterov)
