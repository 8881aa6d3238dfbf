"""The target `keras`: one file, the same network on each framework."""

import subprocess
import sys
from functools import cache

import keras
import numpy as np
import pytest
from keras import ops

import nfspec
from nfspec import reference
from nfspec.conformance.compare import distance
from nfspec.generation.native import module
from nfspec.plan import StochasticDepth
from nfspec.plan.clipping import clip_rules
from nfspec.reference.rounding import Rounding
from nfspec.reference.training import clip

import networks
from .gradients import gradient_function
from .small import on_torch, outputs
from generation.mutants import Mutant, by_stage, expected, logits_differ, seed

BACKEND = keras.backend.backend()
# PyTorch compiles nothing, and takes them all.
NAMES = {
    "torch": tuple(networks.NETWORKS),
    "tensorflow": ("mixed-padding", "short-kernels", "ws-by-stage"),
    "jax": ("mixed-padding", "ws-by-stage"),
}[BACKEND]
TWO = "two-attentions"
SMALLEST = "no-shortcut-conv"
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")

LAYERS, BLOCK, NETWORK, TRAINING = (
    "layers.jinja",
    "block.jinja",
    "network.py.jinja",
    "training.jinja",
)
MUTANTS = {
    "a gamma that is left out": Mutant("expressions.jinja", "{{ times(op.gamma) }}", ""),
    "erf in place of tanh": Mutant("expressions.jinja", "approximate=True", "approximate=False"),
    "no mean taken off": Mutant(LAYERS, " - ops.mean(self.kernel, (0, 1, 2))", ""),
    "no gain": Mutant(LAYERS, 'net.ws.factors("self.gain")', '"1.0 * "'),
    "eps that is added": Mutant(LAYERS, "ops.maximum(variance, ", "(variance + ", "flat"),
    "eps without the fan-in": Mutant(LAYERS, "fan_in * %s", "%s", "timm"),
    "variance over N": Mutant(LAYERS, "(fan_in - {{ ddof }})", "fan_in", "unbiased"),
    **by_stage((BLOCK, "mid_chs, 1...,"), LAYERS, 'if self.eps_rule == "none":', "net.ws.whole"),
    "padding decided by an odd side": Mutant(
        LAYERS, "size + stride * ((side - 1) // stride) - side", "size - stride + side % 2 * 0"
    ),
    "the odd pixel before": Mutant(
        LAYERS, "(total // 2, total - total // 2)", "(total - total // 2, total // 2)"
    ),
    "a gain of attention left out": Mutant(
        LAYERS, "{{ expression.times(net.se.gain) }}", "", "attention-mid"
    ),
    "no sigmoid": Mutant(LAYERS, "ops.sigmoid(self.fc1(hidden))", "self.fc1(hidden)"),
    "a shortcut of the raw input": Mutant(BLOCK, '"x" if net.raw_shortcut else "out"', '"x"'),
    "axes of a file reversed": Mutant(
        TRAINING, '.reshape(entry["shape"])', '.reshape(entry["shape"][::-1]).T', "plain"
    ),
    "an average that counts padding": Mutant(LAYERS, " * ops.round(1 / count)", ""),
    "taps of ECA reversed": Mutant(
        LAYERS, "ops.reshape(self.kernel,", "ops.reshape(ops.flip(self.kernel),"
    ),
    "a max pool of zeros": Mutant(NETWORK, ", -np.inf)", ")", "max-pool"),
    "beta before": Mutant(BLOCK, '"%s * act(x)" % beta', '"act(%s * x)" % beta'),
    "beta of 1": Mutant(BLOCK, "self.{{ name }} = {{ name }}", "self.{{ name }} = 1.0"),
    "no skip gain": Mutant(BLOCK, '"(%s * self.skip_gain)" % alpha', "alpha"),
    "no activation after the stem's conv": Mutant(NETWORK, '"act(x)"', '"x"', "valid-stem"),
    "no final activation": Mutant(NETWORK, "act({{", "({{", "final-conv"),
    "drop rates that reach the last": Mutant(
        NETWORK, "net.drop.steps", "net.drop.steps - 1", seen_by="drops"
    ),
    "residuals rescaled": Mutant(
        LAYERS, '" / (1 - rate)" if net.drop.rescale', '" / (1 - rate)"', seen_by="drops"
    ),
    "norms by input": Mutant(
        TRAINING, "range(len(variable.shape) - 1)", "range(1, len(variable.shape))",
        seen_by="clipping",
    ),
    "a classifier that is clipped": Mutant(
        TRAINING, "return gradient\n{% endif", "pass\n{% endif", seen_by="clipping"
    ),
    "eps of clipping left out": Mutant(
        TRAINING, "ops.maximum(norm, eps)", "norm", seen_by="clipping"
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def plan_of(tmp_path_factory):
    """A function of a network's name, which returns its plan."""
    folder = tmp_path_factory.mktemp("networks")
    return cache(lambda name: nfspec.resolve(networks.network(name, folder)))


def native(plan, **options):
    return nfspec.native(plan, "keras", params=expected(plan)[0], **options)


def arrays(model, plan):
    """Canonical name to array."""
    name = module(plan, "keras").canonical
    return {name(v): ops.convert_to_numpy(v) for v in model.trainable_variables}


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_reference(name, plan_of):
    plan = plan_of(name)
    model = native(plan)
    for images, exact, bound in expected(plan)[1][: 1 if BACKEND == "jax" else None]:
        assert distance(outputs(model, images), exact) <= bound


@on_torch
@pytest.mark.parametrize("name", [TWO, "timm"])
def test_parameters_come_back_to_the_bit(name, plan_of):
    plan = plan_of(name)
    params, _ = expected(plan)
    back = arrays(native(plan), plan)
    assert back.keys() == params.keys()
    assert all(np.array_equal(back[key], value) for key, value in params.items())


@on_torch
def test_a_file_of_other_weights_is_refused(plan_of, tmp_path):
    plan = plan_of(SMALLEST)
    path = tmp_path / "w.safetensors"
    nfspec.weights.save(path, plan_of(TWO), expected(plan_of(TWO))[0])
    with pytest.raises(ValueError, match=r"other arrays than the model: .*'head.fc.kernel', 24, 3"):
        module(plan, "keras").load_safetensors(native(plan), str(path))


@pytest.mark.parametrize(
    "name", (TWO, "biased", "unbiased", "max-pool") if BACKEND == "torch" else (TWO,)
)
def test_gradients_are_those_of_the_reference(name, plan_of):
    plan = plan_of(name)
    params, ((images, answer, bound), *_) = expected(plan)
    labels = np.eye(3, dtype=np.float32)[[0, 2]]
    model = native(plan)
    logits, _, _, gradients = gradient_function(model)(images, labels)
    assert distance(ops.convert_to_numpy(logits), answer) <= bound
    exact = reference.loss_and_gradients(plan, params, images, labels).of_parameters
    rounded = [
        reference.loss_and_gradients(plan, params, images, labels, Rounding(n)).of_parameters
        for n in range(3)
    ]
    assert arrays(model, plan).keys() == exact.keys()
    for key, gradient in zip(arrays(model, plan), gradients, strict=True):
        gaps = [distance(np.asarray(each[key]), exact[key]) for each in rounded]
        bound = 3 * np.sqrt(np.mean(np.square(gaps)))
        assert distance(ops.convert_to_numpy(gradient), exact[key]) <= bound, key


def clipping_differs(plan):
    """True if a tensor is clipped otherwise than by the plan's rule. Half of the parameters are so
    small that eps is used."""
    file, model = module(plan, "keras"), native(plan)
    rng = np.random.default_rng(3)
    for n, variable in enumerate(model.trainable_variables):
        variable.assign(variable * (1e-5 if n % 2 else 1.0))
        g = np.float32(0.03 * rng.standard_normal(variable.shape))
        after = ops.convert_to_numpy(
            ops.stop_gradient(file.clip_gradient(ops.convert_to_tensor(g), variable))
        )
        rule = clip_rules(plan)[file.canonical(variable)]
        parameter = ops.convert_to_numpy(variable).astype(np.float64)
        exact, _ = clip(g.astype(np.float64), parameter, rule)
        # Two norms, a quotient and a product: rounding of sums of at most 2**14 squares.
        if np.abs(after - exact).max() > 2.0**-18 * np.abs(exact).max():
            return True
    return False


@on_torch  # on the others `fit` clips, below
@pytest.mark.parametrize("name", [TWO, "timm"])
def test_clipping_is_the_plans(name, plan_of):
    assert not clipping_differs(plan_of(name))


def drops_differ(plan):
    """True if a block's rate, or what a kept residual is multiplied by, is not the plan's."""
    keras.utils.set_random_seed(0)
    model = native(plan)
    if [block.drop_rate for block in model.blocks] != [row.drop_rate for row in plan.blocks]:
        return True
    block, row = model.blocks[-1], plan.blocks[-1]
    one = np.random.default_rng(0).standard_normal((1, 8, 8, row.in_channels))
    x = ops.convert_to_tensor(np.repeat(one.astype(np.float32), 400, 0))
    off, on = (ops.convert_to_numpy(block(t, training=on)) for t, on in ((x[:1], False), (x, True)))
    whole, residuals = off - one, on - one
    kept = np.abs(residuals).max((1, 2, 3)) > 1e-5
    share = np.mean(~kept)
    # Five standard errors of a share of 400.
    if abs(share - row.drop_rate) > 5 * (row.drop_rate * (1 - row.drop_rate) / 400) ** 0.5:
        return True
    rescale = next(op.rescale for op in plan.ops if isinstance(op, StochasticDepth))
    factor = 1 / (1 - row.drop_rate) if rescale else 1
    return not np.allclose(residuals[kept], factor * whole, atol=1e-4)


@on_torch
@pytest.mark.parametrize("name", [TWO, "biased"])
def test_drops_are_the_plans(name, plan_of):
    assert not drops_differ(plan_of(name))


@on_torch
def test_other_classes_and_channels(plan_of):
    plan = plan_of(SMALLEST)
    with pytest.warns(nfspec.weights.FitWarning):
        model = native(plan, classes=4, channels=1)
    assert outputs(model, np.zeros((2, 9, 12, 1), np.float32)).shape == (2, 4)


def test_trained_and_saved_it_loads_where_there_is_no_nfspec(plan_of, tmp_path):
    plan = plan_of(SMALLEST)
    file, model = module(plan, "keras"), native(plan, drop_rate=0.0)
    before = arrays(model, plan)
    x = np.random.default_rng(0).standard_normal((4, 9, 12, 3)).astype(np.float32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # TensorFlow would take XLA, which compiles for a quarter of a minute.
    model.compile(file.SGD(1.0), loss, loss_weights=[1e4], jit_compile=BACKEND == "jax")
    model.fit(x, np.array([0, 1, 2, 0]), batch_size=4, verbose=0)
    clipped = 0
    for key, value in arrays(model, plan).items():
        rule, old = clip_rules(plan)[key], before[key]
        axes = rule.axes if rule.axes is not None else tuple(range(value.ndim))
        step, norm = (np.sqrt(np.sum(t**2, axes)) for t in (value - old, old))
        if rule.clipping is None:
            assert np.linalg.norm(value - old) > np.linalg.norm(old)
        else:
            # A step is a difference of two numbers that are rounded to 2**-24 of their size.
            most = rule.clipping * np.maximum(norm, rule.eps)
            assert np.all(step <= most + 2.0**-20 * norm + 1e-9), key
            clipped += np.any(step > 0.99 * most)
    assert clipped > len(before) // 2
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "net.py").write_text(nfspec.generate(plan, to="keras"))
    program = (
        "import sys; sys.path.insert(0, '.')\n"
        "import keras, net, numpy\n"
        "model = keras.saving.load_model('m.keras')\n"
        "assert type(model) is net.NFNet and type(model.optimizer) is net.SGD\n"
        "numpy.save('y.npy', model.predict(numpy.load('x.npy'), verbose=0))\n"
        "assert not {'nfspec', 'safetensors'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, check=True)
    exact = model.predict(x, verbose=0).astype(np.float64)
    # Another compilation may take sums in another order.
    assert distance(np.load(tmp_path / "y.npy"), exact) < 2.0**-16


@on_tensorflow
def test_one_trace_for_all_sizes_with_and_without_xla(plan_of):
    import tensorflow as tf

    plan = plan_of(TWO)
    model = native(plan)
    spec = tf.TensorSpec((None, None, None, 3))
    traced = tf.function(lambda x: model(x, training=False), input_signature=[spec])
    for images, exact, bound in expected(plan)[1]:
        assert distance(traced(images).numpy(), exact) <= bound
    plan = plan_of(SMALLEST)
    model = native(plan)
    images, exact, bound = expected(plan)[1][0]
    compiled = tf.function(lambda x: model(x, training=False), jit_compile=True)
    assert distance(compiled(images).numpy(), exact) <= bound


@on_tensorflow
def test_exported_for_all_sizes_with_a_named_output(plan_of, tmp_path):
    import tensorflow as tf

    plan = plan_of("max-pool")
    module(plan, "keras").export(native(plan), str(tmp_path / "saved"))
    serve = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    assert list(serve.structured_outputs) == ["logits"]
    for images, exact, bound in expected(plan)[1]:
        assert distance(serve(images=tf.constant(images))["logits"].numpy(), exact) <= bound


@on_torch
def test_weights_are_standardised_in_float32(plan_of):
    plan = plan_of(TWO)
    exactly = native(plan).stem[1].standardised()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = native(plan)
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.array_equal(*map(ops.convert_to_numpy, (model.stem[1].standardised(), exactly)))
    images, exact, _ = expected(plan)[1][0]
    # Rounding to 8 bits after each of about 40 operations.
    assert distance(outputs(model, images), exact) < 40 * 2.0**-8


@on_torch
def test_the_same_spec_gives_the_same_bytes_which_pass_ruff(plan_of, tmp_path):
    paths = []
    for name in networks.NETWORKS:
        text = nfspec.generate(plan_of(name), to="keras")
        paths.append(tmp_path / f"{name.replace('-', '_')}.py")
        paths[-1].write_text(text)
    assert text == nfspec.generate(plan_of(name), to="keras")
    command = ["ruff", "check", "--isolated", "--line-length", "100", "--select"]
    run = [sys.executable, "-m", *command, "E,F,I,UP,B,SIM,C4", *map(str, paths)]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


CHECKS = {
    "logits": lambda plan: logits_differ(plan, "keras"),
    "drops": drops_differ,
    "clipping": clipping_differs,
}


@on_torch
@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_is_seen(name, plan_of, monkeypatch):
    mutant = MUTANTS[name]
    plan = plan_of(mutant.network)
    seed(monkeypatch, "keras", mutant)
    module(plan, "keras")  # it is Python
    assert CHECKS[mutant.seen_by](plan)


def test_native_params_are_those_that_were_given(plan_of, tmp_path):
    """As they were given, and as a file of nfspec's has them."""
    plan = plan_of(TWO)
    params = expected(plan)[0]
    model = nfspec.native(plan, "keras", params=params)
    found = nfspec.native_params(model, "keras")
    nfspec.weights.save(tmp_path / "a.safetensors", plan, found)
    for each in (found, nfspec.weights.load(tmp_path / "a.safetensors", plan)):
        assert each.keys() == params.keys()
        assert all(each[name].tobytes() == params[name].tobytes() for name in params)
