"""The target `jax`: the same network, and what users of JAX expect of pure functions."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export

import nfspec
from nfspec import reference
from nfspec.conformance.compare import bounds, distance
from nfspec.generation.targets import target_of
from nfspec.plan.clipping import clip_rules
from nfspec.reference.training import clip

import networks
from .mutants import expected

JAX = target_of("jax")
IDIOMS = "two-attentions"  # the network for what does not depend on the network


def native(plan, params=None, **options):
    return nfspec.native(plan, "jax", params=params, **options)


def network_of(plan):
    """The file, and parameters away from their initial values."""
    return native(plan, networks.drawn(plan)[0])


def cross_entropy(file, targets, params, images, **options):
    logits = file.apply(params, images, **options)
    return -(targets * jax.nn.log_softmax(logits)).sum(1).mean()


@pytest.fixture(scope="module")
def idioms(plan_of):
    """The file, parameters, images of odd and even sides, and their logits."""
    plan = plan_of(IDIOMS)
    file, params = network_of(plan)
    images = expected(plan)[1][0][0]
    return file, params, images, JAX.logits((file, params), images)


def within(plan, cases):
    """True if a network's logits are within the bound of the reference's in each of the cases."""
    network = network_of(plan)
    gaps = [distance(JAX.logits(network, images), exact) <= bound for images, exact, bound in cases]
    return all(gaps)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_logits_are_those_of_the_reference(name, plan_of):
    plan = plan_of(name)
    assert within(plan, expected(plan)[1][:1])  # an odd side and an even one


@pytest.mark.slow
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_logits_at_each_size_are_those_of_the_reference(name, plan_of):
    plan = plan_of(name)
    assert within(plan, expected(plan)[1])


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_parameters_come_back_to_the_bit(name, plan_of):
    plan = plan_of(name)
    params, _ = networks.drawn(plan)
    file, loaded = native(plan, params)
    assert loaded.keys() == params.keys()
    for key, value in params.items():
        assert loaded[key].shape == value.shape, key
        assert np.asarray(loaded[key]).tobytes() == value.tobytes(), key
    drawn = jax.eval_shape(file.init, jax.random.key(0))
    shapes = {key: (value.shape, value.dtype.name) for key, value in drawn.items()}
    assert shapes == {key: (value.shape, "float32") for key, value in params.items()}


@pytest.mark.parametrize("name", ["two-attentions", "max-pool"])
def test_gradients_are_those_of_the_reference(name, plan_of, derivatives):
    images, targets, rows = derivatives(name)
    file, params = network_of(plan_of(name))
    loss = partial(cross_entropy, file, targets, remat=name == "two-attentions")
    gradients = jax.jit(jax.grad(loss))(params, images)
    assert gradients.keys() == rows.keys()
    for key, (exact, bound) in rows.items():
        assert distance(np.asarray(gradients[key]), exact) <= bound, key


def test_maps_are_those_of_the_reference(plan_of):
    plan = plan_of("final-conv")
    params, (images, *_) = networks.drawn(plan)
    file, loaded = native(plan, params)
    maps = jax.jit(file.features)(loaded, images)
    assert {name: value.shape[1:] for name, value in maps.items()} == {
        "stem": (17, 23, 64), "stages.0": (9, 12, 16), "final_conv": (5, 6, 20)
    }  # fmt: skip
    ops = {"stem": "stem.act2", "stages.0": "stages.0.blocks.0", "final_conv": "final_conv"}
    ops["stages.0"] = plan.taps["stages.0.blocks.0"]
    exact = reference.forward(plan, params, images, ops)
    rounded = bounds(plan, params, images, reference.forward(plan, params, images))
    for name, value in maps.items():
        # The taps after the maps, whose bounds cover the maps', too.
        bound = rounded["features" if name == "final_conv" else "stages.0.blocks.0"]
        assert distance(np.asarray(value), exact[name]) <= bound, name


@pytest.mark.parametrize("name", ["two-attentions", "timm"])
def test_clipping_is_the_plans(name, plan_of):
    plan = plan_of(name)
    params, _ = networks.drawn(plan)
    file, loaded = native(plan, params)
    rng = np.random.default_rng(3)
    given = {
        key: np.asarray(0.03 * rng.standard_normal(value.shape), np.float32)
        for key, value in params.items()
    }
    rule = optax.stateless(file.clip_gradients)
    after, _ = jax.jit(partial(rule.update, state=optax.EmptyState()))(given, params=loaded)
    clipped = 0
    for key, own in clip_rules(plan).items():
        gradient = given[key].astype(np.float64)
        exact, _ = clip(gradient, params[key].astype(np.float64), own)
        clipped += not np.array_equal(exact, gradient)
        # Two norms, a quotient and a product: rounding of sums of at most 2**14 squares.
        assert np.abs(np.asarray(after[key]) - exact).max() <= 2.0**-18 * np.abs(exact).max(), key
    assert clipped > len(params) // 2


def test_initial_values_have_the_plans_spread(plan_of):
    plan = plan_of("biased")
    file, _ = network_of(plan)
    # Random bits of a kind that takes no time to compile.
    drawn = jax.jit(file.init)(jax.random.key(0, impl="rbg"))
    values = {key: np.asarray(value) for key, value in drawn.items()}
    for key, parameter in plan.parameters.items():
        value, init = values[key], parameter.init
        if init.kind == "constant":
            assert np.all(value == np.float32(init.value)), key
        elif value.size > 200:
            spread = {"truncated_normal": 0.8796}.get(init.kind, 1.0)
            # The standard error of a standard deviation is 1 / sqrt(2 n); five of them.
            assert abs(value.std() / (spread * init.value) - 1) < 5 / (2 * value.size) ** 0.5, key
            most = 2 * init.value if init.kind == "truncated_normal" else np.inf
            assert np.abs(value).max() <= most * (1 + 2.0**-23), key
    kernels = [value for value in values.values() if value.ndim == 4 and value.size > 200]
    assert len({float(value.flat[0]) for value in kernels}) == len(kernels)


def test_drop_rates_are_the_plans(plan_of, monkeypatch):
    plan = plan_of("biased")
    file, params = network_of(plan)
    block, rates, keys = file.block, [], []

    def spy(p, x, key, rate, *numbers):
        rates.append(rate)
        keys.append(key)
        return block(p, x, key, rate, *numbers)

    monkeypatch.setattr(file, "block", spy)
    images = jnp.zeros((1, 32, 32, 3))
    jax.eval_shape(file.apply, params, images, jax.random.key(0))
    assert rates == [row.drop_rate for row in plan.blocks]
    assert len({id(key) for key in keys}) == len(keys)


def test_whole_residuals_are_dropped_and_the_others_rescaled(plan_of):
    file, params = network_of(plan_of("biased"))
    where, numbers = list(file.BLOCKS.items())[-1]
    x = jax.random.normal(jax.random.key(1), (1, 2, 2, 24))
    many = jnp.repeat(x, 400, 0)
    # What the forward pass reads of a row are the last numbers.
    read = numbers[-(file.block.__code__.co_argcount - 5) :]

    @jax.jit
    def branches(key):
        return [
            file.block(params, images, own, 0.5, where, *read) - images
            for images, own in ((x, None), (many, key))
        ]

    residual, residuals = map(np.asarray, branches(jax.random.key(2, impl="rbg")))
    dropped = np.abs(residuals).max((1, 2, 3)) == 0
    assert abs(dropped.mean() - 0.5) < 5 * 0.5 / 400**0.5
    gap = np.abs(residuals[~dropped] - 2 * residual).max()
    assert gap <= 2.0**-20 * np.abs(x).max() * 8


def test_features_are_dropped(plan_of, monkeypatch):
    file, _ = network_of(plan_of("final-conv"))
    ones = jnp.ones((100, 1, 1, 100))
    monkeypatch.setattr(file, "features", lambda *given: {"final_conv": ones})
    monkeypatch.setattr(file, "act", lambda x: x)
    monkeypatch.setattr(file, "dense", lambda p, name, x: x)
    values = np.asarray(file.apply({}, ones, jax.random.key(0)))
    assert set(np.unique(values)) == {0.0, 2.0}
    assert abs((values == 0).mean() - 0.5) < 5 * 0.5 / values.size**0.5
    assert np.array_equal(file.apply({}, ones), ones[:, 0, 0])


def test_the_same_spec_gives_the_same_bytes(plan_of):
    plan = plan_of(IDIOMS)
    assert nfspec.generate(plan, to="jax") == nfspec.generate(plan, to="jax")


def test_a_file_has_at_most_170_lines():
    text = nfspec.generate(nfspec.load("nfnet-f0"), to="jax")
    assert text.count("\n") <= 170


@pytest.fixture(scope="module")
def alone(plan_of, tmp_path_factory):
    """Logits of a file that is run by itself, on one device and with the batch over four."""
    folder = tmp_path_factory.mktemp("alone")
    plan = plan_of(IDIOMS)
    params, batches = networks.drawn(plan)
    (folder / "net.py").write_text(nfspec.generate(plan, to="jax"))
    nfspec.weights.save(folder / "w.safetensors", plan, params)
    np.save(folder / "x.npy", np.concatenate([batches[0]] * 2))
    program = (
        "import sys; sys.path.insert(0, '.')\n"
        "import net, numpy, jax\n"
        "from jax.sharding import Mesh, NamedSharding, PartitionSpec as P\n"
        "params = net.load_weights('w.safetensors')\n"
        "x = numpy.load('x.npy')\n"
        "mesh = Mesh(jax.devices(), ('batch',))\n"
        "parts = jax.device_put(x, NamedSharding(mesh, P('batch')))\n"
        "whole = jax.device_put(params, NamedSharding(mesh, P()))\n"
        "y = jax.jit(net.apply)(whole, parts)\n"
        "assert len(y.sharding.device_set) == 4 and not y.is_fully_replicated\n"
        "numpy.save('y.npy', y)\n"
        "assert not {'nfspec', 'keras', 'flax', 'optax', 'safetensors'} & set(sys.modules)\n"
    )
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    run = [sys.executable, "-I", "-c", program]
    subprocess.run(run, cwd=folder, check=True, env={**os.environ, "XLA_FLAGS": flags})
    return np.load(folder / "y.npy")


def test_a_file_needs_jax_alone_and_its_batch_is_sharded(alone, plan_of):
    _, exact, bound = expected(plan_of(IDIOMS))[1][0]
    assert distance(alone[:2], exact) <= bound
    assert distance(alone[2:], exact) <= bound


def test_files_pass_ruff_and_mypy(plan_of, tmp_path):
    paths = []
    for name in networks.NETWORKS:
        for to in ("jax", "flax"):
            paths.append(str(tmp_path / f"{name.replace('-', '_')}_{to}.py"))
            (tmp_path / paths[-1]).write_text(nfspec.generate(plan_of(name), to=to))
    rules = "E,F,I,UP,B,SIM,C4,RUF,PTH"
    ruff = ["ruff", "check", "--isolated", "--line-length", "100", "--select", rules]
    typed = ["mypy", "--config-file", "", "--follow-imports", "skip"]
    for command in ([*ruff, *paths], [*typed, *paths[:6]]):
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_other_classes_and_channels(plan_of):
    plan = plan_of(IDIOMS)
    with pytest.warns(nfspec.weights.FitWarning) as caught:
        _, params = native(plan, networks.drawn(plan)[0], classes=4, channels=1)
    assert len(caught) == 2
    file, _ = native(plan, networks.drawn(plan)[0])
    drawn = jax.eval_shape(partial(file.init, num_classes=4, in_chans=1), jax.random.key(0))
    assert {key: value.shape for key, value in params.items()} == {
        key: value.shape for key, value in drawn.items()
    }
    with pytest.raises(
        nfspec.InputError, match="init takes key, num_classes, in_chans; found drop"
    ):
        native(plan, networks.drawn(plan)[0], drop_rate=0.1)


def test_a_file_of_other_weights_is_refused(plan_of, tmp_path):
    plan, other = plan_of("plain"), plan_of(IDIOMS)
    path = tmp_path / "w.safetensors"
    file, _ = native(plan, networks.drawn(plan)[0])
    nfspec.weights.save(path, other, networks.drawn(other)[0])
    with pytest.raises(ValueError, match=r"w.safetensors has other arrays than the network: .*'"):
        file.load_weights(str(path))
    nfspec.weights.save(path, plan, networks.drawn(plan)[0])
    with pytest.raises(ValueError, match=r"\('head.fc.bias', 3\), \('head.fc.bias', 4\)"):
        file.load_weights(str(path), num_classes=4)


@pytest.mark.parametrize("name", ["short-kernels", "valid-stem", "max-pool", "timm"])
def test_exported_with_free_sizes(name, plan_of):
    plan = plan_of(name)
    file, params = network_of(plan)
    sides = export.symbolic_shape("n, height, width")
    free = jax.ShapeDtypeStruct((*sides, plan.channels), jnp.float32)
    program = export.export(jax.jit(file.apply))(params, free)
    assert program.out_avals[0].shape == (sides[0], 3)
    if name == "max-pool":  # to run one is to compile it for each size
        cases = expected(plan)[1]
        images, exact, bound = cases[0]
        twice = (np.concatenate([images] * 2), np.concatenate([exact] * 2), bound)
        for images, exact, bound in (*cases, twice):
            assert distance(np.asarray(program.call(params, images)), exact) <= bound


def test_mapped_over_images(idioms):
    file, params, images, logits = idioms

    def one(image):
        return file.apply(params, image[None])[0]

    values = np.asarray(jax.jit(jax.vmap(one))(images))
    assert distance(values, logits.astype(np.float64)) < 1e-5


def test_bfloat16(idioms):
    file, params, images, logits = idioms
    narrow = jax.jit(file.apply)(params, images.astype(jnp.bfloat16))
    assert narrow.dtype == jnp.bfloat16
    # Rounding after each of about 30 operations.
    assert distance(np.asarray(narrow, np.float64), logits.astype(np.float64)) < 30 * 2.0**-7


def test_weights_are_standardised_in_float32(idioms):
    file, params, images, _ = idioms
    name = "stem.conv0"
    # With such a mean, bfloat16 has no digits left for what differs.
    moved = {**params, f"{name}.kernel": params[f"{name}.kernel"] + 16}
    wide = file.conv(params, name, images)
    narrow = file.conv(moved, name, images.astype(jnp.bfloat16))
    assert distance(np.asarray(narrow, np.float64), np.asarray(wide, np.float64)) < 2.0**-6


def test_blocks_are_computed_again_with_remat(idioms):
    file, params, images, _ = idioms
    program = jax.make_jaxpr(partial(file.apply, remat=True))(params, images)
    names = [equation.primitive.name for equation in program.jaxpr.eqns]
    assert sum("remat" in name or "checkpoint" in name for name in names) == len(file.BLOCKS)
