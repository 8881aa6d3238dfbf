"""nfspec's own models, layers and optimizers, on whichever framework Keras runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from nfspec.conformance.cases.case import Arrays, Clip
from nfspec.conformance.cases.precision import MODES
from nfspec.conformance.cases.reduction import RATE_STEPS
from nfspec.conformance.subjects import Function
from nfspec.plan import (
    ECA,
    Activation,
    Conv,
    Dense,
    Dropout,
    GlobalPool,
    Operation,
    Plan,
    Pool,
    Residual,
    SqueezeExcite,
    StochasticDepth,
    WSConv,
    unknown_operation,
)


class Nfspec:
    """nfspec as its users have it; a subclass names the framework."""

    framework = ""
    plain = False  # Keras's own operations, without rewrites and kernels

    def __init__(self, mode: str):
        self.policy = MODES[mode].policy

    def _layer(self, op: Operation) -> Function:
        """A layer as a function of its inputs and parameters."""
        import keras

        from nfspec.backends.compiler import layer_of

        layer = layer_of(op, "channels_last", self.policy, self.plain)
        inputs = len(op.inputs)
        # Built with zeros: drawing initial values would take most of the time, and none is used.
        prefix = f"{layer.canonical}."
        layer.given = {
            q.name.removeprefix(prefix): np.zeros(q.shape, np.float32) for q in op.parameters
        }
        layer.build(_shape(op))

        def function(*tensors: Any) -> Any:
            x, values = tensors[:inputs], tensors[inputs:]
            # Not `stateless_call`, which goes around the casts of mixed precision (Keras 3.15).
            mapping = list(zip(layer.trainable_variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return layer(x[0] if inputs == 1 else list(x))

        return function

    ws_conv = activation = pool = squeeze_excite = eca = residual = _layer

    def _head_layer(self, op: Operation) -> Function:
        """The head is in float32 in every mode, as the compiler has it."""
        return type(self)("f32")._layer(op)

    global_pool = dense = _head_layer

    def stochastic_depth(self, op: StochasticDepth, seed: int, replica: int) -> Function:
        return self._drop(op, seed, replica)

    def dropout(self, op: Dropout, seed: int, replica: int) -> Function:
        """Dropout before the classifier, in float32 in every mode like the classifier."""
        return type(self)("f32")._drop(op, seed, replica)

    def _drop(self, op: StochasticDepth | Dropout, seed: int, replica: int) -> Function:
        import keras

        from nfspec.backends.compiler import layer_of
        from nfspec.backends.training import devices

        layer = layer_of(op, "channels_last", self.policy, self.plain)
        layer.seed_generator.state.assign([devices.seed_of(seed, replica), 0])

        def function(x: Any, training: bool) -> Any:
            y = layer(keras.ops.convert_to_tensor(x), training=training)
            return keras.ops.convert_to_numpy(keras.ops.cast(y, "float32"))

        return function

    def agc(self, clip: Clip) -> Function:
        import keras

        from nfspec.backends.kernels import kernels

        rule, narrow = clip.rule, keras.DTypePolicy(self.policy).compute_dtype
        clip_all = kernels(self.plain).clip_all

        def function(gradient: Any, parameter: Any) -> Any:
            return clip_all([keras.ops.cast(gradient, narrow)], [parameter], [rule])[0][0]

        return function

    def forward(self, plan: Plan) -> Function:
        # Built with zeros, like a layer: the parameters are arguments of the function.
        zeros = {name: np.zeros(q.shape, np.float32) for name, q in plan.parameters.items()}
        model = self._model(plan, zeros, taps=True)
        order = [v.canonical for v in model.trainable_variables]
        rest = [v.value for v in model.non_trainable_variables]

        def function(x: Any, params: dict[str, Any]) -> Any:
            out, _ = model.stateless_call([params[name] for name in order], rest, x)
            return out

        return function

    def block(self, plan: Plan) -> Function:
        function = self.forward(plan)
        return lambda x, params: function(x, params)["block"]

    def _model(self, plan: Plan, params: Arrays | None = None, *, taps: bool) -> Any:
        from nfspec.backends.compiler import assemble

        how: dict[str, Any] = {
            "data_format": "channels_last",
            "dtype": self.policy,
            "plain": self.plain,
        }
        return assemble(plan, params, taps=taps, **how)

    def ways(self, plan: Plan, params: Arrays, seed: int) -> dict[str, Function]:
        import keras

        from nfspec.conformance.subjects.running import trained_ways

        keras.utils.set_random_seed(seed)
        return trained_ways(self._model(plan, params, taps=True))

    def folded(self, plan: Plan, params: Arrays) -> tuple[Function, dict[str, Function]]:
        import keras

        from nfspec.conformance.subjects.running import changes
        from nfspec.rewrites.folding import fold

        folded = fold(plan, params)
        model = self._model(folded.plan, folded.params, taps=False)

        def forward(x: Any) -> Any:
            if self.framework != "torch":
                return model.predict_on_batch(x)
            import torch

            with torch.inference_mode():
                return keras.ops.convert_to_numpy(model(keras.ops.convert_to_tensor(x)))

        return forward, changes(model)

    def train(
        self, plan: Plan, params: Arrays, x: Any, labels: Any, steps: int
    ) -> dict[str, np.ndarray[Any, Any]]:
        """By Keras's `fit`, one batch after another of the same images."""
        from nfspec.compilation import params_of
        from nfspec.training.runs import recipe

        model = self._model(plan, params, taps=False)
        trainer = recipe(plan, steps=RATE_STEPS, batch=len(x)).compile(model)
        how = {"batch_size": len(x), "shuffle": False, "verbose": 0}
        losses = trainer.fit(x, labels, epochs=1, **how).history["loss"]
        first = params_of(model)
        rest = trainer.fit(x, labels, initial_epoch=1, epochs=steps, **how)
        last = params_of(model)
        return {
            "losses": np.asarray([*losses, *rest.history["loss"]], np.float64),
            **{f"first/{name}": value for name, value in first.items()},
            **{f"last/{name}": value for name, value in last.items()},
        }

    def through(self, plan: Plan, params: Arrays | None) -> Arrays:
        """The parameters of a model: those given, or those that it is made with."""
        from nfspec.compilation import params_of

        return params_of(self._model(plan, params, taps=False))

    def step(
        self, plan: Plan, params: Arrays, momentum: Arrays, gradients: Arrays, done: int
    ) -> dict[str, np.ndarray[Any, Any]]:
        """One step of the recipe's optimizer from a given state."""
        import keras

        from nfspec.training.runs import recipe

        model = self._model(plan, params, taps=False)
        weights = model.trainable_variables
        optimizer = recipe(plan, steps=RATE_STEPS).optimizer(plain=self.plain)
        optimizer.build(weights)
        sgd = optimizer
        while hasattr(sgd, "inner"):
            sgd = sgd.inner
        for variable, buffer in zip(weights, sgd._buffers, strict=True):
            buffer.assign(momentum[variable.canonical])
        sgd.iterations.assign(done)
        given = [keras.ops.convert_to_tensor(gradients[v.canonical]) for v in weights]
        self._apply(optimizer, given, weights)
        state = {}
        for variable, buffer in zip(weights, sgd._buffers, strict=True):
            state[f"parameter/{variable.canonical}"] = keras.ops.convert_to_numpy(variable)
            state[f"momentum/{variable.canonical}"] = keras.ops.convert_to_numpy(buffer)
        return state

    def _apply(self, optimizer: Any, gradients: list[Any], weights: list[Any]) -> None:
        optimizer.apply(gradients, weights)


def _shape(op: Operation) -> Any:
    """A shape that a layer can be built with: the sides of an image do not matter."""
    match op:
        case WSConv() | Conv():
            return (None, None, None, op.in_channels)
        case SqueezeExcite() | ECA():
            return (None, None, None, op.channels)
        case Dense():
            return (None, op.in_features)
        case Residual():
            return [(None, None, None, 1)] * 2
        case Activation() | Pool() | GlobalPool() | StochasticDepth() | Dropout():
            return (None, None, None, 1)
        case _:
            raise unknown_operation(op, "nfspec.conformance.subjects.nfspec")


class JAX(Nfspec):
    framework = "jax"

    def _apply(self, optimizer: Any, gradients: list[Any], weights: list[Any]) -> None:
        """Jitted, as in training; one operation after another would be compiled for each shape."""
        import jax

        state = [v.value for v in optimizer.variables]
        values = [v.value for v in weights]
        after = jax.jit(optimizer.stateless_apply)(state, gradients, values)
        for variables, new in zip((weights, optimizer.variables), after, strict=True):
            for variable, value in zip(variables, new, strict=True):
                variable.assign(value)


class Torch(Nfspec):
    framework = "torch"


class TensorFlow(Nfspec):
    framework = "tensorflow"


class PlainJAX(JAX):
    plain = True


class PlainTorch(Torch):
    plain = True


class PlainTensorFlow(TensorFlow):
    plain = True
