"""Faults of layers that drop at random, and of folded networks that go on with old weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nfspec.conformance.faults.base import Fault, patched, training_alone
from nfspec.plan import Dropout, Plan, StochasticDepth

DROP = "nfspec.backends.layers.drop:Drop"
CALL, DRAWS, ZERO = f"{DROP}.call", f"{DROP}.draws", f"{DROP}.drop"
NETWORK = "nfspec.backends.network:Network.call"
SEED = "nfspec.backends.training.devices:seed_of"
FOLDED = "nfspec.backends.layers.conv:Conv2D.call"
LAYERS = ("DROP-01", "DROP-02")


def _rate(change: Any) -> Any:
    """A change of the rate of a stochastic depth or dropout operation; a rate of 0 stays 0."""

    def changed(op: Any) -> Any:
        if not isinstance(op, StochasticDepth | Dropout) or not op.rate:
            return op
        return replace(op, rate=change(op.rate))

    return changed


def _rescaled_otherwise(original: Any) -> Any:
    """The opposite rescaling: values that are kept are divided by 1 - rate where they should not
    be, and are not where they should."""

    def drop(layer: Any, x: Any, drawn: Any) -> Any:
        factor = 1.0 - layer.rate
        return original(layer, x, drawn) * (factor if layer.rescale else 1.0 / factor)

    return drop


def _draws(change: Any) -> Any:
    """A patch of the shape of the random numbers: `change(layer, shape of the images)` gives it."""

    def wrap(original: Any) -> Any:
        return lambda layer, x: change(layer, tuple(x.shape))

    return patched(DRAWS, wrap)


def _in_batch(layer: Any, shape: Any) -> Any:
    return (1, *((1,) * (len(shape) - 1) if layer.per_image else shape[1:]))


def _in_channel(layer: Any, shape: Any) -> Any:
    return (shape[0] if layer.per_image else 1, *(1 for _ in shape[1:-1]), shape[-1])


def _in_image(layer: Any, shape: Any) -> Any:
    """The shape of the other kind: dropout draws once for each image, stochastic depth for each
    element."""
    return shape if layer.per_image else (shape[0], *(1 for _ in shape[1:]))


def _always(original: Any) -> Any:
    return lambda layer, x, training=False: original(layer, x, training=True)


def _never(original: Any) -> Any:
    return lambda layer, x, training=False: x


def _same_draw(original: Any) -> Any:
    def call(layer: Any, x: Any, training: Any = False) -> Any:
        import keras

        if not training or layer.rate == 0.0:
            return x
        return layer.drop(x, keras.random.uniform(layer.draws(x), dtype="float32", seed=7))

    return call


def _training_lost(original: Any) -> Any:
    def call(network: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        return original(network, inputs, training=False, mask=mask)

    return call


def _mode_lost(original: Any) -> Any:
    """The network ignores `train()` on PyTorch, and the argument `training` on the others, which
    have no `train()`."""

    def call(network: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        import keras

        heeded = keras.backend.backend() == "torch" and training is not None
        return original(network, inputs, training=training if heeded else False, mask=mask)

    return call


def _rates(change: Any) -> Any:
    """A change of a plan: `change` gets the rates of its blocks as a list and returns new ones."""

    def of_plan(plan: Plan) -> Plan:
        drops = [op for op in plan.ops if isinstance(op, StochasticDepth)]
        new = dict(zip((op.name for op in drops), change([op.rate for op in drops]), strict=True))
        return replace(
            plan,
            ops=tuple(replace(op, rate=new[op.name]) if op.name in new else op for op in plan.ops),
        )

    return of_plan


def _no_drop(plan: Plan) -> Plan:
    """The plan with a dropout rate of 0 before the classifier."""
    return replace(
        plan,
        ops=tuple(replace(op, rate=0.0) if isinstance(op, Dropout) else op for op in plan.ops),
    )


def _first_weights(original: Any) -> Any:
    """A conv that keeps the kernel of its first call, whatever the weights become."""

    def call(layer: Any, x: Any) -> Any:
        import keras

        if not hasattr(layer, "packed"):
            layer.packed = tuple(_value(layer.named[name]) for name in ("kernel", "bias"))
        kernel, bias = (keras.ops.convert_to_tensor(v, x.dtype) for v in layer.packed)
        return layer.kernels.convolve_activated(
            x, kernel, bias, layer.strides, layer.padding, layer.data_format,
            layer.dilation, layer.kind, layer.slope,
        )  # fmt: skip

    return call


def _value(variable: Any) -> Any:
    """A variable's value as a NumPy array, also while TensorFlow traces a graph."""
    import keras
    import numpy as np

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.init_scope():
            return variable._value.numpy()
    value = variable._value
    return np.array(value.detach().cpu() if keras.backend.backend() == "torch" else value)


DROPS = training_alone(
    Fault("drop-rate-kept", "the rate taken for the probability of being kept", LAYERS,
          op=_rate(lambda rate: 1.0 - rate)),
    Fault("drop-rate-off", "rates half as large", LAYERS,
          op=_rate(lambda rate: 0.5 * rate)),
    Fault("drop-rescaling", "kept values not divided by 1 - rate, or divided without need",
          LAYERS, patch=patched(ZERO, _rescaled_otherwise)),
    Fault("drop-batch", "one draw for the whole batch", LAYERS, patch=_draws(_in_batch)),
    Fault("drop-channel", "one draw for each channel", LAYERS, patch=_draws(_in_channel)),
    Fault("drop-kinds", "stochastic depth drops elements, and dropout whole images", LAYERS,
          patch=_draws(_in_image)),
    Fault("drop-inference", "drops in inference, too", LAYERS, patch=patched(CALL, _always),
          alone="nfspec's networks do not call these layers in inference"),
    Fault("drop-never", "nothing dropped in training", LAYERS, patch=patched(CALL, _never)),
    Fault("drop-same", "the same draw in every call", LAYERS, patch=patched(CALL, _same_draw)),
    Fault("drop-replicas", "every replica draws the same", LAYERS, patch=patched(
        SEED, lambda original: lambda seed, rank: seed)),
    Fault("drop-training-lost", "layers are not told that the network is trained",
          ("DROP-03", "DROP-04"), patch=patched(NETWORK, _training_lost)),
    Fault("drop-mode-lost", "train() does not reach the layers that drop", ("DROP-03",),
          patch=patched(NETWORK, _mode_lost)),
    Fault("drop-constant-rate", "every block drops at the last one's rate", ("DROP-03",),
          of_plan=_rates(lambda rates: [rates[-1]] * len(rates) if rates else [])),
    Fault("drop-reversed", "the rates of the blocks in reverse", ("DROP-03",),
          of_plan=_rates(lambda rates: rates[::-1])),
    Fault("drop-no-dropout", "no dropout before the classifier", ("DROP-03",), of_plan=_no_drop),
    Fault("drop-not-trained", "a step of training drops nothing", ("DROP-04",),
          patch=patched(NETWORK, _training_lost)),
    Fault("fold-stale", "a folded network goes on with the weights of its first call",
          ("FOLD-01",), patch=patched(FOLDED, _first_weights), alone="only in a folded network"),
)  # fmt: skip
