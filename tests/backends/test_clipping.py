"""Clipping of one tensor in float32 against float64, against optax and timm, and at the edges."""

from dataclasses import replace
from functools import cache
from importlib.metadata import version
from itertools import product

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from packaging.version import Version

from nfspec.backends.clipping import clip_all
from nfspec.language.tables import AGC
from nfspec.plan.clipping import clip_rule


def clip(gradient, parameter, rule):
    (clipped,), (fraction,) = clip_all([gradient], [parameter], [rule], plain=False)
    return clipped, fraction


U = 2.0**-24  # unit roundoff of float32
LAMBDA, EPS = 0.01, 1e-3

TENSORS = [
    ("skip_gain", ()),
    ("gain", (6,)),
    ("bias", (6,)),
    ("kernel", (7, 4)),
    ("head", (1, 6)),
    ("kernel", (2, 3, 4)),
    ("kernel", (3, 3, 4, 6)),
    ("kernel", (1, 1, 1, 6)),
    ("kernel", (2, 3, 1, 2, 4)),
]
UNITS = ["squeeze", "timm", "tensor"]
SIZES = [1e-6, 1e-3, 1.0, 1e2]


def rule_of(role, shape, unit="squeeze", clipping=LAMBDA, eps=EPS):
    given = {"enabled": True, "exclude": (), "roles": {}, "names": {}}
    return clip_rule(AGC(clipping=clipping, eps=eps, unit=unit, **given), "x", role, shape)


@cache
def clipper(rule):
    """`clip`, jitted on JAX, where each operation on a new shape would be compiled by itself."""
    if keras.backend.backend() != "jax":
        return lambda g, p: clip(g, p, rule)
    import jax

    return jax.jit(lambda g, p: clip(g, p, rule))


def run(g, p, rule, dtypes=("float32", "float32")):
    """Clipped gradient in float32, and the clip fraction."""
    g, p = (
        ops.cast(ops.convert_to_tensor(np.float32(x)), t)
        for x, t in zip((g, p), dtypes, strict=True)
    )
    clipped, fraction = clipper(rule)(g, p)
    assert keras.backend.standardize_dtype(clipped.dtype) == dtypes[0]
    return ops.convert_to_numpy(ops.cast(clipped, "float32")), float(fraction)


def norms(x, role, unit):
    """The norm of each element's unit: optim.py's `unitwise_norm`, or timm/utils/agc.py's."""
    x = np.asarray(x, np.float64)
    if unit == "timm" and role == "gain":
        return np.abs(x)  # (O, 1, 1, 1) there
    if unit == "tensor" or (x.ndim if unit == "timm" else np.squeeze(x).ndim) <= 1:
        return np.full(x.shape, np.sqrt((x**2).sum()))
    axes = 0 if unit == "squeeze" and x.ndim == 3 else tuple(range(x.ndim - 1))
    return np.broadcast_to(np.sqrt((x**2).sum(axes, keepdims=True)), x.shape)


def exact(g, p, role, unit="squeeze", clipping=LAMBDA, eps=EPS):
    """Clipped gradient in float64, and which of its elements were clipped."""
    g = np.asarray(g, np.float64)
    limit = clipping * np.maximum(norms(p, role, unit), eps)
    norm = norms(g, role, unit)
    clipped = norm > limit
    return np.where(clipped, g * (limit / np.maximum(norm, 1e-6)), g), clipped


def bound(out, role, unit):
    """Largest rounding error of a clipped gradient in float32.

    A sum of n squares in any order is within n·u of itself (Higham 2002, §4.2, and u for each
    square), so its root within n·u/2 + u. Two norms, lambda and the two constants, a product, a
    quotient and the product with the gradient: at most 6 roundings more. What is not clipped is
    within it too, as at the limit the two cases meet.
    """
    n = norms(np.ones_like(out), role, unit) ** 2
    return np.abs(out) * (2 * (n / 2 + 1) + 6) * U


def draw(shape, seed, sizes=(1.0, 1.0)):
    """A gradient and a parameter of these sizes, their units from 0.1 to 10 times that."""
    rng = np.random.default_rng(seed)
    of_units = 10.0 ** rng.uniform(-1, 1, (2, *[1] * (len(shape) - 1), *shape[-1:]))
    drawn = rng.standard_normal((2, *shape)) * of_units
    return tuple(np.float32(x * size) for x, size in zip(drawn, sizes, strict=True))


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(("role", "shape"), TENSORS, ids=str)
def test_against_float64(role, shape, unit):
    rule, happened = rule_of(role, shape, unit), set()
    for seed, sizes in enumerate(product(SIZES, repeat=2)):
        g, p = draw(shape, seed, sizes)
        output, fraction = run(g, p, rule)
        out, clipped = exact(g, p, role, unit)
        assert (np.abs(output - out) <= bound(out, role, unit)).all()
        # Each unit has as many elements as any other, so units and elements have one mean.
        assert fraction == pytest.approx(clipped.mean(), abs=1e-6)
        happened |= {("clipped", bool(c)) for c in clipped.flat}
        happened |= {("eps", bool(n < EPS)) for n in norms(p, role, unit).flat}
    assert len(happened) == 4


def other_layout(x, role):
    """As timm has it: OIHW, OI, and gains (O, 1, 1, 1)."""
    return x.reshape(-1, 1, 1, 1) if role == "gain" else np.moveaxis(x, -1, 0) if x.ndim else x


def timms(g, p, role, clipping=LAMBDA, eps=EPS):
    import torch

    from standin import timm

    parameter = torch.nn.Parameter(torch.tensor(other_layout(p, role)))
    parameter.grad = torch.tensor(other_layout(g, role))
    timm.utils.agc.adaptive_clip_grad(parameter, clipping, eps)
    out = parameter.grad.numpy()
    return out.reshape(g.shape) if role == "gain" else np.moveaxis(out, 0, -1) if g.ndim else out


@cache
def optax_update(clipping, eps):
    import jax
    import optax

    return jax.jit(optax.adaptive_grad_clip(clipping, eps).update)


def optaxs(g, p, role, clipping=LAMBDA, eps=EPS):
    return np.asarray(optax_update(clipping, eps)(g, (), p)[0])


def peer(backend):
    """The peer that this framework has, and the unit rule that is its."""
    return {"jax": ("squeeze", optaxs), "torch": ("timm", timms)}.get(backend) or pytest.skip(
        "no peer on TensorFlow"
    )


@pytest.mark.parametrize(("role", "shape"), TENSORS, ids=str)
def test_against_a_peer(role, shape, backend):
    unit, theirs = peer(backend)
    if len(shape) > 4 and theirs is optaxs and Version(version("optax")) < Version("0.2.5"):
        pytest.skip("optax 0.2.4 has no rule for it")
    for seed, sizes in enumerate(product(SIZES, repeat=2)):
        g, p = draw(shape, seed, sizes)
        clipped, _ = run(g, p, rule_of(role, shape, unit))
        # Both may be off by the bound.
        assert (np.abs(clipped - theirs(g, p, role)) <= 2 * bound(clipped, role, unit)).all()


def test_a_unit_at_its_bound_is_left_and_one_beyond_is_not():
    rule = rule_of("kernel", (2, 3), clipping=0.5)
    p = np.array([[6, 6, 3], [8, 8, 4]])  # norms 10, 10, 5
    g = np.array([[3, 6, 3], [4, 8, 4.001]])  # norms 5, 10, 5.0008; bounds 5, 5, 2.5
    clipped, fraction = run(g, p, rule)
    np.testing.assert_array_equal(clipped[:, :2], [[3, 3], [4, 4]])
    assert clipped[0, 2] == pytest.approx(3 * 2.5 / np.hypot(3, 4.001), rel=16 * U)
    assert fraction == pytest.approx(2 / 3)


def test_the_least_gradient_norm_guards_the_division_and_nothing_else(backend):
    """The guard is 1e-6, as in optim.py. Both norms, and lambda · eps, are below it."""
    kept, scaled = 2.0**-23, 2.0**-22
    rule = rule_of("skip_gain", (), clipping=2.0**-13, eps=2.0**-10)  # bound 2^-23
    assert run(kept, 0.0, rule) == (np.float32(kept), 0.0)
    clipped, fraction = run(scaled, 0.0, rule)
    assert (clipped, fraction) == (pytest.approx(scaled * kept / 1e-6, rel=6 * U), 1.0)
    if backend != "tensorflow":  # the peers clip what is at its bound, and so make it smaller here
        _, theirs = peer(backend)
        shrunk = theirs(np.float32([kept]), np.float32([0.0]), "bias", 2.0**-13, 2.0**-10)
        assert shrunk == pytest.approx(kept * kept / 1e-6, rel=6 * U)


@pytest.mark.parametrize(("role", "shape"), TENSORS, ids=str)
def test_gradients_of_zero_stay(role, shape):
    zeros = np.zeros(shape)
    for p in (zeros, zeros + 1):
        clipped, fraction = run(zeros, p, rule_of(role, shape))
        assert not clipped.any() and fraction == 0


@pytest.mark.parametrize(("role", "shape"), TENSORS, ids=str)
def test_tensors_of_zeros_are_not_frozen(role, shape):
    """Skip gains and biases start at zero; without eps their bound would be zero for ever."""
    g, zeros = draw(shape, 0)[0], np.zeros(shape)
    clipped, fraction = run(g, zeros, rule_of(role, shape))
    assert fraction == 1
    limit = np.full(shape, LAMBDA * EPS)
    assert norms(clipped, role, "squeeze") == pytest.approx(limit, rel=64 * U)


def test_gains_are_one_unit_by_squeeze_and_clipped_one_by_one_by_timm():
    p, g = np.ones(4), np.array([4.0, 0.0, 0.0, 0.25])  # lambda 0.5: bounds 1 and 0.5
    together, _ = run(g, p, rule_of("gain", (4,), "squeeze", 0.5))
    each, fraction = run(g, p, rule_of("gain", (4,), "timm", 0.5))
    assert np.linalg.norm(together) == pytest.approx(1.0, rel=16 * U)
    np.testing.assert_array_equal(each, [0.5, 0.0, 0.0, 0.25])
    assert fraction == 0.25


@pytest.mark.parametrize("unit", ["squeeze", "timm"])
def test_dense_kernels_have_a_norm_for_each_output_not_for_each_input(unit):
    p, g = np.ones((4, 3)), np.zeros((4, 3))
    g[:, 1] = 8.0  # of one output: its norm is 16, its bound 0.5 · 2
    clipped, fraction = run(g, p, rule_of("kernel", (4, 3), unit, 0.5))
    np.testing.assert_array_equal(clipped[:, 1], np.full(4, 0.5))
    assert not clipped[:, [0, 2]].any()
    assert fraction == pytest.approx(1 / 3)


@pytest.mark.parametrize("of_parameter", ["float32", "the gradient's"])
def test_norms_are_in_float32_whatever_the_gradients_dtype(of_parameter):
    def half(dtype):
        return dtype, "float32" if of_parameter == "float32" else dtype

    # 300² is beyond float16. In float32: norms 500 and 5, scale 0.5 · 5 / 500.
    clipped, _ = run([300, 400], [3, 4], rule_of("bias", (2,), clipping=0.5), half("float16"))
    np.testing.assert_array_equal(clipped, [1.5, 2.0])
    # bfloat16 has 8 bits, so that a sum of ones in it would stay at 256.
    ones = np.ones(4096)
    clipped, _ = run(ones, ones / 64, rule_of("bias", (4096,), clipping=0.5), half("bfloat16"))
    np.testing.assert_array_equal(clipped, ones / 128)


def test_norms_are_in_float64_where_the_parameter_is(backend):
    if backend == "jax":
        pytest.skip("JAX has no float64 unless it is switched on for the whole process")
    # Norms 5e20, whose square is beyond float32, and 5.
    clipped, _ = run([3e20, 4e20], [3, 4], rule_of("bias", (2,), clipping=0.5), ["float64"] * 2)
    np.testing.assert_allclose(clipped, [1.5, 2.0], rtol=U)


NAN, INF = np.nan, np.inf
# One unit to a column: gradient, parameter, and what becomes of it with lambda 0.5.
ODD = {
    "finite": ((0, 6, 8), (0, 6, 8), (0, 3, 4)),
    "gradient has a NaN": ((NAN, 6, 8), (0, 6, 8), (NAN, 6, 8)),
    "gradient has an infinity": ((INF, 6, 8), (0, 6, 8), (NAN, 0, 0)),
    "gradient has both": ((INF, NAN, 8), (0, 6, 8), (INF, NAN, 8)),
    "gradient's squares overflow": ((0, 1e20, 8), (0, 6, 8), (0, 0, 0)),
    "parameter has a NaN": ((0, 6, 8), (NAN, 6, 8), (0, 6, 8)),
    "parameter has an infinity": ((0, 6, 8), (INF, 6, 8), (0, 6, 8)),
    "parameter's squares overflow": ((0, 6, 8), (0, 1e20, 8), (0, 6, 8)),
    "both have infinities": ((INF, 6, 8), (INF, 6, 8), (INF, 6, 8)),
}
# Where the peers differ from the original: they keep a unit if its norm is below the bound, which
# is never so with a NaN, and scale all else.
PEERS = {
    "gradient has a NaN": (NAN, NAN, NAN),
    "gradient has both": (NAN, NAN, NAN),
    "parameter has a NaN": (NAN, NAN, NAN),
    "both have infinities": (NAN, NAN, NAN),
}


def test_what_is_not_finite_stays_in_its_unit(backend):
    g, p, expected = (np.float32(columns).T for columns in zip(*ODD.values(), strict=True))
    clipped, fraction = run(g, p, rule_of("kernel", g.shape, clipping=0.5))
    for i, what in enumerate(ODD):
        np.testing.assert_array_equal(clipped[:, i], expected[:, i], what)
    assert fraction == pytest.approx(3 / len(ODD))
    if backend != "tensorflow":
        theirs = peer(backend)[1](g, p, "kernel", 0.5)
        for i, what in enumerate(ODD):
            np.testing.assert_array_equal(theirs[:, i], PEERS.get(what, expected[:, i]), what)


def test_what_is_left_out_comes_back_as_it_is():
    rule = replace(rule_of("head", (2,)), clipping=None)
    g = ops.convert_to_tensor(np.float32([NAN, 1e9]))
    clipped, fraction = clip(g, ops.zeros(2), rule)
    assert clipped is g and float(fraction) == 0


def test_a_list_of_gradients_may_have_gaps():
    rule = rule_of("bias", (2,), clipping=0.5)
    g, p = ops.convert_to_tensor(np.float32([6, 8])), ops.convert_to_tensor(np.float32([3, 4]))
    (first, none, last), fractions = clip_all([g, None, g], [p, p, g], [rule] * 3, plain=False)
    np.testing.assert_array_equal(ops.convert_to_numpy(first), [1.5, 2.0])
    np.testing.assert_array_equal(ops.convert_to_numpy(last), [3, 4])
    assert none is None
    assert list(map(float, fractions)) == [1, 0, 1]


cases = given(
    tensor=st.sampled_from(TENSORS),
    unit=st.sampled_from(UNITS),
    seed=st.integers(0, 2**32 - 1),
    sizes=st.tuples(st.sampled_from(SIZES), st.sampled_from(SIZES)),
)
quick = settings(derandomize=True, deadline=None, database=None, max_examples=40)


@quick
@cases
def test_clipping_twice_is_clipping_once(tensor, unit, seed, sizes):
    role, shape = tensor
    rule = rule_of(role, shape, unit)
    g, p = draw(shape, seed, sizes)
    once, _ = run(g, p, rule)
    twice, _ = run(once, p, rule)
    assert (np.abs(twice - once) <= 2 * bound(once, role, unit)).all()


@quick
@cases
def test_never_longer_than_the_bound_and_never_turned(tensor, unit, seed, sizes):
    role, shape = tensor
    g, p = draw(shape, seed, sizes)
    clipped, _ = run(g, p, rule_of(role, shape, unit))
    limit = LAMBDA * np.maximum(norms(p, role, unit), EPS)
    slack = 1 + bound(np.ones(shape), role, unit)
    assert (norms(clipped, role, unit) <= limit * slack).all()
    # One factor to a unit, but for the rounding of its product with each element.
    factor = norms(clipped, role, unit) / norms(g, role, unit)
    assert (np.abs(clipped - g * factor) <= 2 * U * np.abs(clipped)).all()
    assert (factor <= 1 + U).all()


@quick
@cases
def test_gradient_and_parameter_scale_together(tensor, unit, seed, sizes):
    """By a power of two, which changes no mantissa, if norms are above eps and 1e-6 throughout."""
    role, shape = tensor
    rule = rule_of(role, shape, unit)
    g, p = (np.where(np.abs(x) < 1, np.float32(1), x) for x in draw(shape, seed, sizes))
    clipped, fraction = run(g, p, rule)
    for factor in (2.0**-4, 2.0**9):
        scaled, same = run(g * factor, p * factor, rule)
        np.testing.assert_array_equal(scaled, clipped * factor)
        assert same == fraction


@quick
@cases
def test_units_do_not_see_each_other(tensor, unit, seed, sizes):
    role, shape = tensor
    rule = rule_of(role, shape, unit)
    g, p = draw(shape, seed, sizes)
    clipped, _ = run(g, p, rule)
    if rule.units > 1:  # the last place of the last axis is in no unit with the others
        g[..., -1], p[..., -1] = 1e3, 1e-6
        changed, _ = run(g, p, rule)
        np.testing.assert_array_equal(changed[..., :-1], clipped[..., :-1])
        assert (changed[..., -1] != g[..., -1]).all()
