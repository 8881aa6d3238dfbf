"""Training with the original's optimiser, against the original's ten steps.

The original in float32 is 2e-7 from itself in float64 after one step (relative L2, per tensor),
1.2e-6 in the losses before each step, and 2e-5 of a tensor's norm in sums after ten.
"""

from functools import cache

import keras
import numpy as np
import pytest

import nfspec
import nfspec.plan.clipping
from nfspec.backends.optimizers import EMA, SGD

from .gradients import golden_model, gradient_function, smoothed
from .small import small_params, small_plan, small_spec, some_compiled, with_recipe
from golden import NETWORKS, golden, relative


def sgd(plan, learning_rate=None, **changes):
    """The SGD of a plan's recipe, at a constant rate."""
    recipe = plan.recipe
    return SGD(
        learning_rate or recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        coupled_weight_decay=recipe.weight_decay,
        weight_decay_exclude=recipe.weight_decay_exclude,
        **changes,
    )


def stepper(weights, optimizer):
    """A function that applies gradients as the framework's users would: compiled, but for torch."""
    optimizer.build(weights)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(lambda gradients: optimizer.apply(gradients, weights))
    if backend == "torch":
        return lambda gradients: optimizer.apply(gradients, weights)
    import jax

    jitted = jax.jit(optimizer.stateless_apply)

    def step(gradients):
        state = [v.value for v in optimizer.variables]
        values, state = jitted(state, gradients, [v.value for v in weights])
        for variable, value in zip(weights, values, strict=True):
            variable.assign(value)
        for variable, value in zip(optimizer.variables, state, strict=True):
            variable.assign(value)

    return step


def train(network, optimizer, steps):
    """Steps on a golden network's one batch; yields the loss before each, and the parameters."""
    model = golden_model(network)
    step, gradients = stepper(model.trainable_variables, optimizer), gradient_function(model)
    for _ in range(steps):
        _, loss, _, grads = gradients(golden(network)["x"], smoothed(network))
        step(grads)
        yield float(loss), nfspec.params_of(model)


# The gradients of the others are in test_golden.py, and the step is one tensor's after another's,
# by the same rules as elsewhere.
MANY = some_compiled(NETWORKS, ("nfnet_tiny",))


@pytest.mark.parametrize("network", MANY)
def test_ten_steps_are_the_originals(network):
    g = golden(network)
    optimizer = nfspec.agc(g.training_plan, sgd(g.training_plan))
    runs = list(train(network, optimizer, 10))

    first, exact = runs[0][1], g.named("agc/step1")
    assert {name: relative(first[name], exact[name]) for name in exact} == pytest.approx(
        dict.fromkeys(exact, 0.0), abs=2e-6
    )
    assert [loss for loss, _ in runs] == pytest.approx(list(g["agc/losses"]), rel=1e-5)
    final, exact = runs[9][1], g.named("agc/step10_l2_sum")
    for name, (norm, total) in exact.items():
        value = final[name].astype(np.float64)
        assert np.linalg.norm(value) == pytest.approx(norm, rel=1e-5), name
        assert value.sum() == pytest.approx(total, abs=5e-5 * norm), name


@pytest.mark.parametrize("network", MANY)
def test_without_clipping_it_goes_where_the_original_goes(network):
    g = golden(network)
    losses = [loss for loss, _ in train(network, sgd(g.training_plan), 10)]
    exact = g["sgd/losses"]
    assert losses[:3] == pytest.approx(list(exact[:3]), rel=1e-4)
    # Where the original's loss has passed 1e3 it is lost for good, in float32 a few steps earlier.
    assert np.isfinite(losses[-1]) == np.isfinite(exact[-1])


def test_clip_fractions_are_those_of_the_reference():
    g = golden("nfnet_tiny")
    optimizer = nfspec.agc(g.training_plan, sgd(g.training_plan))
    list(train("nfnet_tiny", optimizer, 1))
    state = nfspec.reference.TrainingState.start(g.training_plan, g.params)
    _, report = nfspec.reference.train_step(
        g.training_plan, state, g["x"], smoothed("nfnet_tiny"), 0.05
    )
    fractions = optimizer.clip_fractions()
    assert {name: fraction for name, (fraction, _) in fractions.items()} == pytest.approx(
        {name: report.clip_fractions[name] for name in fractions}, abs=1e-6
    )
    assert "head.fc.kernel" not in fractions
    rules = nfspec.plan.clipping.clip_rules(g.training_plan)
    assert {name: units for name, (_, units) in fractions.items()} == {
        name: rule.units for name, rule in rules.items() if rule.clipping is not None
    }


@cache
def some_weights(backend):
    """Six variables of every role but a skip gain, and two lists of gradients."""
    model = nfspec.compile(small_spec(), backend, small_params())
    wanted = ("stem.conv0", "stages.0.blocks.0.se.fc0.kernel", "head.fc")
    weights = [v for v in model.trainable_variables if v.canonical.startswith(wanted)]
    rng = np.random.default_rng(3)
    gradients = [[0.1 * rng.standard_normal(v.shape) for v in weights] for _ in range(2)]
    return weights, [[g.astype(np.float32) for g in list_] for list_ in gradients]


def stepped(weights, optimizer, gradients):
    """The weights after a step for each list of gradients, by name, from the small parameters."""
    for variable in weights:
        variable.assign(small_params()[variable.canonical])
    step = stepper(weights, optimizer)
    for list_ in gradients:
        step([keras.ops.convert_to_tensor(g) for g in list_])
    return {v.canonical: np.array(keras.ops.convert_to_numpy(v)) for v in weights}


@pytest.mark.parametrize("kind", ["Adam", "Nadam", "SGD"])
def test_any_keras_optimizer_can_be_wrapped(kind, backend):
    """As if it had been given clipped gradients; a few roundings of a step for fused arithmetic."""
    weights, gradients = some_weights(backend)
    make = getattr(keras.optimizers, kind)
    params = stepped(weights, nfspec.agc(small_plan(), make(0.01)), gradients[:1])
    rules = [nfspec.plan.clipping.clip_rules(small_plan())[v.canonical] for v in weights]
    start = [small_params()[v.canonical].astype(np.float64) for v in weights]
    clipped = [
        nfspec.reference.training.clip(g.astype(np.float64), p, rule)[0].astype(np.float32)
        for g, p, rule in zip(gradients[0], start, rules, strict=True)
    ]
    exact = stepped(weights, make(0.01), [clipped])
    assert all(relative(params[name], exact[name].astype(np.float64)) <= 1e-6 for name in exact)
    plain = stepped(weights, make(0.01), gradients[:1])
    if kind == "SGD":  # to which the length of a gradient matters in the first step
        assert relative(plain["stem.conv0.kernel"], exact["stem.conv0.kernel"]) > 1e-3


def test_gradients_are_unscaled_before_they_are_clipped(backend):
    """Under float16's loss scaling, by a power of two: the same step to a rounding."""
    weights, gradients = some_weights(backend)
    plan = with_recipe(small_plan(), learning_rate=0.5)
    plain = stepped(weights, nfspec.agc(plan, sgd(plan)), gradients[:1])
    scale = 2.0**15
    scaled = [[scale * g for g in gradients[0]]]
    loss_scale = keras.optimizers.LossScaleOptimizer(nfspec.agc(plan, sgd(plan)), scale)
    for optimizer in (loss_scale, nfspec.agc(plan, sgd(plan, loss_scale_factor=scale))):
        params = stepped(weights, optimizer, scaled)
        assert {n: relative(params[n], plain[n].astype(float)) for n in plain} == pytest.approx(
            dict.fromkeys(plain, 0.0), abs=1e-7
        )
        assert float(keras.ops.convert_to_numpy(optimizer.scale_loss(1.0))) == scale


def test_weight_decay_spares_gains_and_biases(backend):
    """Decided by role: a gain has rank 1 here, and 4 in timm, where it decays."""
    weights, gradients = some_weights(backend)
    none = [[0.0 * g for g in gradients[0]]]
    optimizer = SGD(1.0, momentum=0.0, nesterov=False, coupled_weight_decay=0.25)
    params = stepped(weights, optimizer, none)
    for name, value in params.items():
        kept = 0.75 if name.endswith("kernel") else 1.0
        assert np.array_equal(value, np.float32(kept) * small_params()[name]), name


def test_the_learning_rate_is_outside_the_momentum_buffer(backend):
    """Falling from 1 to 1/8, with momentum 1/2 and gradients g and 0 on parameters that do not
    decay: the original moves by 1.5 g and then by 1/8 · 1/4 g; with the rate inside the buffer, as
    Keras has it, the second move would be by 1/4 g."""
    weights, gradients = some_weights(backend)
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.125])
    optimizer = SGD(rate, momentum=0.5, nesterov=True)
    g = gradients[0]
    params = stepped(weights, optimizer, [g, [0.0 * x for x in g]])
    for variable, gradient in zip(weights, g, strict=True):
        start = small_params()[variable.canonical].astype(np.float64)
        exact = start - (1.5 + 0.125 * 0.25) * gradient
        # Three roundings of a few operands of at most the gradient's and the start's size.
        bound = 2.0**-22 * (np.abs(start) + 2 * np.abs(gradient))
        assert (np.abs(params[variable.canonical] - exact) <= bound).all()


def test_decay_is_coupled_and_comes_after_clipping(backend):
    """Two steps against the reference's; decay before clipping, or outside the buffer, differs."""
    weights, gradients = some_weights(backend)
    plan = with_recipe(small_plan(), weight_decay=0.5, learning_rate=0.01)
    params = stepped(weights, nfspec.agc(plan, sgd(plan)), gradients)
    rules = nfspec.plan.clipping.clip_rules(plan)
    for i, variable in enumerate(weights):
        value = start = small_params()[variable.canonical].astype(np.float64)
        momentum = np.zeros(value.shape)
        for list_ in gradients:
            clipped, _ = nfspec.reference.training.clip(
                list_[i].astype(np.float64), value, rules[variable.canonical]
            )
            decay = plan.recipe.decay_of(variable.role)
            value, momentum = nfspec.reference.training.descend(
                value, clipped, momentum, 0.01, decay, plan.recipe
            )
        # An update is off by some 8 roundings of its parts, a parameter by its own.
        bound = 2.0**-24 * (16 * np.linalg.norm(value - start) + 2 * np.linalg.norm(value))
        assert np.linalg.norm(params[variable.canonical] - value) <= bound


def test_the_learning_rate_can_be_set_from_outside(backend):
    optimizer = EMA(nfspec.agc(small_plan(), SGD(0.1)))
    optimizer.learning_rate = 0.25
    assert float(keras.ops.convert_to_numpy(optimizer.learning_rate)) == 0.25
    assert float(keras.ops.convert_to_numpy(optimizer.stepper.learning_rate)) == 0.25


def test_a_loss_scale_inside_is_refused():
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    with pytest.raises(nfspec.InputError, match=r"LossScaleOptimizer\(AGC\(\.\.\.\)\)"):
        nfspec.agc(small_plan(), scaled)


def test_a_spec_without_clipping_is_refused():
    plan = nfspec.resolve(nfspec.load("nf-regnet-b0"))
    with pytest.raises(nfspec.InputError, match="nf-regnet-b0 trains without"):
        nfspec.agc(plan, keras.optimizers.SGD(0.1))


def test_variables_of_other_layers_need_a_part_to_play(backend):
    stranger = keras.Variable(np.ones((3, 2), np.float32), name="kernel")
    optimizer = nfspec.agc(small_plan(), keras.optimizers.SGD(1.0))
    with pytest.raises(nfspec.InputError, match=rf"{stranger.path} \(3, 2\)\nname, for each"):
        optimizer.build([stranger])
    with pytest.raises(nfspec.InputError, match=r'"head\.fc\.kernal"; did you mean'):
        nfspec.agc(small_plan(), keras.optimizers.SGD(1.0), {stranger.path: "head.fc.kernal"})

    parts = {stranger.path: "stages.0.blocks.0.se.fc0.kernel"}
    optimizer = nfspec.agc(small_plan(), keras.optimizers.SGD(1.0), parts)
    optimizer = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(optimizer)
    )
    optimizer.build([stranger])
    optimizer.apply([keras.ops.convert_to_tensor(np.full((3, 2), 10.0, np.float32))])
    # Each column's gradient is cut to 0.01 of the column's norm.
    assert keras.ops.convert_to_numpy(stranger) == pytest.approx(np.full((3, 2), 0.99), rel=1e-6)
