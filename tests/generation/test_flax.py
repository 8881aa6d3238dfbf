"""The target `flax`: the same network, and what users of Flax expect of an nnx.Module."""

import ast
import sys
from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nfspec
from nfspec.conformance.compare import distance
from nfspec.generation.native import module
from nfspec.generation.targets import target_of
from nfspec.generation.view import CLASSES
from nfspec.plan.clipping import clip_rules
from nfspec.reference.training import clip

import networks
from .mutants import Mutant, by_stage, expected, logits_differ, seed

nnx = pytest.importorskip("flax.nnx", reason="Flax is not installed")

FLAX = target_of("flax")
IDIOMS = "two-attentions"  # the network for what does not depend on the network
# Functions of arrays are those of the target `jax`, whose tests have all networks; these have
# between them what the classes do. A slow test has all, at three sizes.
SOME = ("two-attentions", "biased")

CONV, LAYERS, BLOCK, NETWORK, CLIPPING = (
    "jax/conv.jinja",  # of both targets
    "layers.jinja",
    "block.jinja",
    "network.py.jinja",
    "clipping.jinja",
)
MUTANTS = {
    "a gamma that is left out": Mutant(
        "jax/expressions.jinja", "{{ times(op.gamma) }}", "", "flat"
    ),
    "no mean taken off": Mutant(CONV, "w -= w.mean((0, 1, 2))", "w -= 0.0", "flat"),
    "eps that is added": Mutant(CONV, "jnp.maximum(variance, ", "(variance + ", "flat"),
    "eps without the fan-in": Mutant(CONV, "fan_in**0.5 * %s", "%s", "unbiased"),
    "variance over N": Mutant(CONV, '" * (fan_in / (fan_in - %s))" % ddof', '""', "unbiased"),
    **by_stage((BLOCK, "mid_chs, 1...,"), CONV, 'if {{ own }}eps_rule == "none":', "net.ws.whole"),
    "height taken for width in kernels": Mutant(CONV, '"HWIO"', '"WHIO"', "flat"),
    "an average that counts padding": Mutant(
        "jax/layers.jinja", "lax.add, *window) / count", "lax.add, *window) / 4", "flat"
    ),
    "a max pool of zeros": Mutant("jax/layers.jinja", ", -jnp.inf)", ", 0.0)", "max-pool"),
    "no gain": Mutant(LAYERS, '"self.gain[...]"', '"1"', "flat"),
    "a gain of attention left out": Mutant(
        LAYERS, "{{ expression.times(net.se.gain) }}", "", "attention-mid"
    ),
    "no sigmoid": Mutant(
        LAYERS, "jax.nn.sigmoid(self.fc1(hidden))", "self.fc1(hidden)", "attention-mid"
    ),
    "a shortcut of the raw input": Mutant(
        BLOCK, '"x" if net.raw_shortcut else "out"', '"x"', "flat"
    ),
    "numbers of another block": Mutant(
        BLOCK,
        "({{ blocks.numbers(row, columns) }})",
        "({{ blocks.numbers(row, columns[:-1]) }}, "
        "{{ blocks.numbers(blocks.rows[row.index - 1], columns[-1:]) }})",
    ),
    "no final activation": Mutant(
        NETWORK, "act(self.features(", "(self.features(", "no-shortcut-conv"
    ),
    "no final conv": Mutant(NETWORK, "self.final_conv(maps.pop(", "(maps.pop(", "final-conv"),
    "axes of a file reversed": Mutant(
        "training.jinja",
        "values.reshape(parameter.shape)",
        "values.reshape(parameter.shape[::-1]).T",
        "flat",
    ),
    "taps of ECA reversed": Mutant(LAYERS, "kernel[None, None]", "kernel[None, None, ::-1]"),
    "attention elsewhere": Mutant(
        BLOCK, "net.attention_last", "(not net.attention_last)", "attention-mid"
    ),
    "beta of 1": Mutant(BLOCK, "self.{{ name }} = {{ name }}", "self.{{ name }} = 1.0"),
    "no skip gain": Mutant(
        BLOCK, '"(%s * self.skip_gain[...]).astype(x.dtype)" % alpha if', "alpha if"
    ),
    "an activation left out": Mutant(BLOCK, "self.conv2(act(out))", "self.conv2(out)"),
    "no activation in the stem": Mutant(NETWORK, 'else "act(x)"', 'else "x"'),
    "drop rates that reach the last": Mutant(
        NETWORK, "{{ net.drop.steps }}", "{{ net.drop.steps - 1 }}", seen_by="drops"
    ),
    "residuals rescaled": Mutant(
        LAYERS, '" / (1 - self.rate)" if net.drop.rescale', '" / (1 - self.rate)"', seen_by="drops"
    ),
    "single elements dropped": Mutant(LAYERS, "(x.shape[0], 1, 1, 1)", "x.shape", seen_by="drops"),
    "a classifier that is clipped": Mutant(
        CLIPPING, "            return g\n", "            pass\n", seen_by="clipping"
    ),
    "eps of clipping left out": Mutant(
        CLIPPING, "jnp.maximum(norm, {{ clip.eps | number }})", "norm", seen_by="clipping"
    ),
    "norms by input": Mutant(CLIPPING, "range(w.ndim - 1)", "range(1, w.ndim)", seen_by="clipping"),
}


def rngs():
    """Random bits of a kind that takes no time to compile."""
    return nnx.Rngs(jax.random.key(0, impl="unsafe_rbg"))


def native(plan, params=None, **options):
    return nfspec.native(plan, "flax", params=params, **{"rngs": rngs(), **options})


def parameters(model):
    """Canonical name to array."""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, path)): np.asarray(value[...]) for path, value in flat}


@pytest.fixture(scope="module")
def idioms(plan_of):
    """A model, images of odd and even sides, exact logits, and a bound."""
    plan = plan_of(IDIOMS)
    params, cases = expected(plan)
    return native(plan, params), *cases[0]


def within(plan, cases):
    """True if a network's logits are within the bound of the reference's in each of the cases."""
    model = native(plan, expected(plan)[0])
    gaps = [distance(FLAX.logits(model, images), exact) <= bound for images, exact, bound in cases]
    return all(gaps)


@pytest.mark.parametrize("name", SOME)
def test_logits_are_those_of_the_reference(name, plan_of):
    plan = plan_of(name)
    assert within(plan, expected(plan)[1][:1])


@pytest.mark.slow
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_logits_at_each_size_are_those_of_the_reference(name, plan_of):
    plan = plan_of(name)
    assert within(plan, expected(plan)[1])


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_parameters_have_the_plans_names_and_shapes(name, plan_of):
    plan = plan_of(name)
    make = getattr(module(plan, "flax"), CLASSES[plan.family])
    flat = nnx.to_flat_state(nnx.state(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))), nnx.Param))
    shapes = {".".join(map(str, path)): value.shape for path, value in flat}
    assert shapes == {key: parameter.shape for key, parameter in plan.parameters.items()}


def test_parameters_come_back_to_the_bit(idioms, plan_of):
    params, _ = expected(plan_of(IDIOMS))
    back = parameters(idioms[0])
    assert back.keys() == params.keys()
    assert all(back[key].tobytes() == value.tobytes() for key, value in params.items())


def test_a_file_of_other_weights_is_refused(idioms, plan_of, tmp_path):
    other = plan_of("plain")
    path = tmp_path / "w.safetensors"
    nfspec.weights.save(path, other, networks.drawn(other)[0])
    file = sys.modules[type(idioms[0]).__module__]
    with pytest.raises(ValueError, match=r"w.safetensors has other arrays than the model: .*'"):
        file.load_weights(idioms[0], str(path))


def test_initial_values_have_the_plans_spread(plan_of):
    plan = plan_of("biased")
    values = parameters(native(plan))
    for key, parameter in plan.parameters.items():
        value, init = values[key], parameter.init
        if init.kind == "constant":
            assert np.all(value == np.float32(init.value)), key
        elif value.size > 200:
            spread = {"truncated_normal": 0.8796}.get(init.kind, 1.0)
            # The standard error of a standard deviation is 1 / sqrt(2 n); five of them.
            assert abs(value.std() / (spread * init.value) - 1) < 5 / (2 * value.size) ** 0.5, key


def test_gradients_are_those_of_the_reference(idioms, derivatives):
    images, targets, rows = derivatives(IDIOMS)

    def loss(model):
        logits = model(images, remat=True)
        return -(targets * jax.nn.log_softmax(logits)).sum(1).mean()

    gradients = nnx.jit(nnx.grad(loss))(nnx.view(idioms[0], deterministic=True))
    flat = {
        ".".join(map(str, path)): np.asarray(value[...])
        for path, value in nnx.to_flat_state(gradients)
    }
    assert flat.keys() == rows.keys()
    for key, (exact, bound) in rows.items():
        assert distance(flat[key], exact) <= bound, key


@pytest.mark.parametrize(("name", "factor"), [("biased", 2), ("two-attentions", 1)])
def test_whole_residuals_are_dropped(name, factor, plan_of):
    drop = module(plan_of(name), "flax").StochasticDepth(0.5, rngs=nnx.Rngs(0))
    ones = jnp.ones((4000, 1, 1, 2))
    first, second = np.asarray(drop(ones)), np.asarray(drop(ones))
    assert set(np.unique(first)) == {0.0, factor}
    assert np.array_equal(first[..., 0], first[..., 1])
    assert not np.array_equal(first, second)
    assert abs((first[..., 0] == 0).mean() - 0.5) < 5 * 0.5 / 4000**0.5


def test_training_and_inference(idioms, plan_of):
    model = nnx.clone(idioms[0])
    switches = [part for _, part in nnx.iter_graph(model) if hasattr(part, "deterministic")]
    assert len(switches) == len(plan_of(IDIOMS).blocks) + 1  # each block's, and the features'
    assert not any(part.deterministic for part in switches)
    model.eval()
    assert all(part.deterministic for part in switches)
    model.train()
    assert not any(part.deterministic for part in switches)
    viewed = nnx.view(model, deterministic=True)
    parts = [part for _, part in nnx.iter_graph(viewed) if hasattr(part, "deterministic")]
    assert all(part.deterministic for part in parts)


def test_exported_with_free_sizes(idioms):
    definition, state = nnx.split(nnx.view(idioms[0], deterministic=True))
    sides = jax.export.symbolic_shape("n, height, width")
    free = jax.ShapeDtypeStruct((*sides, 3), jnp.float32)
    program = jax.export.export(jax.jit(lambda state, x: nnx.merge(definition, state)(x)))
    assert program(state, free).out_avals[0].shape == (sides[0], 3)


def test_maps_are_of_the_images_dtype(idioms):
    model = nnx.view(idioms[0], deterministic=True)
    images = jax.ShapeDtypeStruct((2, 33, 46, 3), jnp.bfloat16)
    maps = nnx.eval_shape(lambda model, x: model.features(x), model, images)
    assert {name: (value.shape, value.dtype.name) for name, value in maps.items()} == {
        "stem": ((2, 17, 23, 64), "bfloat16"),
        "stages.0": ((2, 9, 12, 16), "bfloat16"),
        "stages.1": ((2, 5, 6, 24), "bfloat16"),
    }


def test_a_file_imports_flax_and_what_flax_needs(plan_of):
    for name in networks.NETWORKS:
        tree = ast.parse(nfspec.generate(plan_of(name), to="flax"))
        names = {part.module for part in ast.walk(tree) if isinstance(part, ast.ImportFrom)}
        for part in ast.walk(tree):
            if isinstance(part, ast.Import):
                names |= {alias.name for alias in part.names}
        assert names <= {"flax", "jax", "jax.numpy", "numpy", "functools", "json", "math", "typing"}


def test_the_same_spec_gives_the_same_bytes(plan_of):
    plan = plan_of(IDIOMS)
    assert nfspec.generate(plan, to="flax") == nfspec.generate(plan, to="flax")


def clipping_differs(plan):
    """True if a tensor is clipped otherwise than by the plan's rule, or the optimizer that the
    file's first lines show does not clip so. Parameters are so small that eps is used for some."""
    params = {key: value * np.float32(1e-5) for key, value in expected(plan)[0].items()}
    model = native(plan, params)
    file = sys.modules[type(model).__module__]
    rng = np.random.default_rng(3)
    state = nnx.state(model, nnx.Param)
    given = {}
    gradients = nnx.clone(state)
    for path, value in nnx.to_flat_state(gradients):
        key = ".".join(map(str, path))
        given[key] = np.asarray(1e-4 * rng.standard_normal(value.shape), np.float32)
        value[...] = jnp.asarray(given[key])
    rule = optax.stateless(file.clip_gradients)
    after, _ = jax.jit(partial(rule.update, state=optax.EmptyState()))(gradients, params=state)
    for path, value in nnx.to_flat_state(after):
        key = ".".join(map(str, path))
        gradient, parameter = (np.asarray(each[key], np.float64) for each in (given, params))
        exact, _ = clip(gradient, parameter, clip_rules(plan)[key])
        if not np.allclose(np.asarray(value[...]), exact, rtol=1e-4, atol=1e-12):
            return True
    return False


def drops_differ(plan):
    """True if a block's rate is not the plan's, or what is kept is not whole or is rescaled."""
    drop = module(plan, "flax").StochasticDepth(0.5, rngs=rngs())
    kept = np.asarray(drop(jnp.ones((64, 1, 1, 8))))
    if set(np.unique(kept)) != {0.0, 1.0} or np.ptp(kept, 3).any():
        return True
    make = getattr(module(plan, "flax"), CLASSES[plan.family])
    model = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    rates = [block.drop.rate for stage in model.stages for block in stage.blocks]
    return rates != [row.drop_rate for row in plan.blocks]


CHECKS = {
    "logits": lambda plan: logits_differ(plan, "flax", rngs=rngs()),
    "drops": drops_differ,
    "clipping": clipping_differs,
}


@pytest.mark.parametrize("check", ["drops", "clipping"])
def test_drops_and_clipping_are_the_plans(check, plan_of):
    assert not CHECKS[check](plan_of(IDIOMS))


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_is_seen(name, plan_of, monkeypatch):
    mutant = MUTANTS[name]
    seed(monkeypatch, "flax", mutant)
    assert CHECKS[mutant.seen_by](plan_of(mutant.network))
