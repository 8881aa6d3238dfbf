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
from nfspec.plan import Init, Pool, WSConv, activations
from nfspec.plan.activations import DEEPMIND_GAMMA
from nfspec.reference import derivatives, operations

from .small import drawn
from quick_xla import TWO_GENERATORS

BACKEND = keras.backend.backend()
FAST, PLAIN = kernels(False), kernels(True)
NAMES = [
    "activate",
    "assign_all",
    "average_all",
    "average_pool",
    "clip_all",
    "convolve",
    "convolve_activated",
    "dense",
    "gated",
    "momentum_steps",
    "scale_add",
    "standardise",
    "start_averages",
    "uniform",
]
U = 2.0**-24


# What `quick_xla` turns off: as users compile, exp and tanh are nearer.
OPTIMISED: dict[str, int | bool] = {"xla_backend_optimization_level": 3}
if TWO_GENERATORS:
    OPTIMISED["xla_cpu_use_fusion_emitters"] = True


def with_gradients(function, arrays, options=None):
    """The value y and the derivatives by every array of `sum(dy · y)`, dy being drawn.

    Args:
        options: On JAX, compile all at once with these options of the compiler; None: each
            operation by itself.
    """
    if BACKEND == "jax":
        import jax

        def both(*arrays):
            y, back = jax.vjp(function, *arrays)
            return y, back(ops.convert_to_tensor(drawn(*y.shape, seed=9)))

        run = both if options is None else jax.jit(both, compiler_options=options)
        y, gradients = run(*map(ops.convert_to_tensor, arrays))
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        tensors = [tf.constant(a) for a in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            y = function(*tensors)
        gradients = tape.gradient(y, tensors, tf.constant(drawn(*y.shape, seed=9)))
    else:
        import torch

        tensors = [torch.tensor(a).requires_grad_() for a in arrays]
        y = function(*tensors)
        gradients = torch.autograd.grad(y, tensors, torch.tensor(drawn(*y.shape, seed=9)))
    return [ops.convert_to_numpy(value) for value in (y, *gradients)]


def assert_within(results, wanted, terms):
    for i, (a, b) in enumerate(zip(results, wanted, strict=True)):
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
    results = [
        with_gradients(lambda *a, k=kernel: call(k, *a), arrays, {})
        for kernel in ([plain] if fast is plain else [plain, fast])
    ]
    assert_within(results[-1], results[0], terms)
    if exact is None:
        return
    dy = drawn(*results[0][0].shape, seed=9).astype(np.float64)
    wanted = [np.asarray(value) for value in exact(dy, *(a.astype(np.float64) for a in arrays))]
    for values in results:
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
@pytest.mark.parametrize("rule", ["max", "add", "add_to_std", "none"])
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
        results = with_gradients(
            lambda k, g, m=module: m.standardise(k, g, **how),
            (kernel, gain),
        )
        for channel in range(6):
            for a, b in zip(results, wanted, strict=True):
                near = np.linalg.norm(b[..., channel]) + 1e-2
                # The mean of dy cancels, and 1 - std / (std + eps) does where eps is added to it.
                error = np.linalg.norm(a[..., channel] - b[..., channel])
                assert error <= 16 * math.sqrt(36) * U * near, (channel, module)


@pytest.mark.parametrize("rule", ["max", "add", "add_to_std"])
def test_standardise_a_constant_channel(rule):
    """The result is exactly 0 for a number whose sums are exact; its gradient follows from dy."""
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
        result = without_gradients(
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
        assert np.linalg.norm(result - exact) <= 16 * 6 * U * np.linalg.norm(exact)


def convolved(strides, groups, padding, fmt, dilation):
    """The oracle's conv with its derivatives, by images in either format."""
    last = fmt == "channels_last"
    there, back = ((0, 1, 2, 3),) * 2 if last else ((0, 2, 3, 1), (0, 3, 1, 2))

    def exact(dy, x, kernel, bias):
        how = (strides, groups, padding, dilation)
        x, dy = x.transpose(there), dy.transpose(there)
        y = operations.conv(x, kernel, *how) + bias
        dx, dkernel = derivatives.conv(dy, x, kernel, *how)
        return y.transpose(back), dx.transpose(back), dkernel, dy.sum(axis=(0, 1, 2))

    return exact


def assert_convolved(side, strides, groups, padding, fmt, channels=8, dilation=1):
    x = drawn(2, 7, 6, channels)
    kernel = drawn(side, side, channels // groups, channels, seed=1)
    if fmt == "channels_first":
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    assert_equal(
        "convolve",
        lambda convolve, x, k, b: convolve(x, k, b, strides, padding, fmt, dilation),
        x,
        kernel,
        drawn(channels, seed=2),
        terms=2 * 7 * 6 * side * side,
        exact=convolved(strides, groups, padding, fmt, dilation),
    )


@pytest.mark.parametrize("fmt", ["channels_last", "channels_first"])
@pytest.mark.parametrize("padding", ["same", "symmetric", "valid"])
@pytest.mark.parametrize(
    ("side", "strides", "groups"), [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 2), (3, 1, 4)]
)
def test_convolve(side, strides, groups, padding, fmt):
    assert_convolved(side, strides, groups, padding, fmt)


@pytest.mark.parametrize("fmt", ["channels_last", "channels_first"])
@pytest.mark.parametrize("padding", ["same", "symmetric", "valid"])
@pytest.mark.parametrize(("groups", "channels"), [(1, 8), (2, 8), (18, 18)])
def test_convolve_dilated(groups, channels, padding, fmt):
    """One conv, a conv for each group, and more groups than there are convs of their own for."""
    assert_convolved(3, 1, groups, padding, fmt, channels, dilation=2)


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
        result = without_gradients(
            lambda m=module: m.convolve_activated(
                ops.convert_to_tensor(x),
                ops.convert_to_tensor(kernel),
                ops.convert_to_tensor(bias),
                2,
                "same",
                "channels_last",
                1,
                kind,
                0.02,
            )
        )
        # An activation's argument is off by a rounding of what its conv sums, which is 6 in size.
        assert np.linalg.norm(result - exact) <= 16 * 6 * U * math.hypot(
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
        y, dx = with_gradients(module.activate(kind, 0.02), [x], OPTIMISED)
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


def test_gated():
    def exact(dy, x, gate):
        return x * gate, dy * gate, (dy * x).sum(axis=(1, 2), keepdims=True)

    arrays = drawn(2, 5, 4, 8), drawn(2, 1, 1, 8, seed=1)
    assert_equal("gated", lambda gated, *a: gated(*a), *arrays, terms=20, exact=exact)


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
    result = without_gradients(lambda: FAST.dense(*map(ops.convert_to_tensor, arrays)))
    assert np.linalg.norm(result - exact) <= 64 * U * np.linalg.norm(exact)


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


@pytest.mark.parametrize("chosen", [FAST, PLAIN], ids=["fast", "plain"])
def test_selu_in_bfloat16_has_its_own_slope_just_below_0(chosen):
    """There the output is rounded to 0. A few numbers are rounded to 8 bits; `drawn` is dy."""
    selu, x = chosen.activate("selu"), np.float32([-(2.0**-9), -(2.0**-12), 2.0**-12, 3.0])
    _, slopes = with_gradients(lambda x: ops.cast(selu(ops.cast(x, "bfloat16")), "float32"), [x])
    slope = np.where(x > 0, 1.0, activations.SELU_ALPHA * np.exp(np.minimum(x, 0.0)))
    exact = activations.SELU_SCALE * slope * drawn(4, seed=9)
    assert np.abs(slopes - exact).max() <= 2.0**-5 * np.abs(exact).max()
