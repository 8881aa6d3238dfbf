"""The target `keras`: layers of Keras, on each of its frameworks."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from nfspec.conformance.cases.case import Arrays, Clip
from nfspec.conformance.subjects import Function
from nfspec.conformance.subjects.generated import carriers, decays, given, rate, recorded
from nfspec.conformance.subjects.generated.modules import Modules, Values
from nfspec.generation.native import native
from nfspec.plan import Plan
from nfspec.reference.training import recipe_of


class KerasSource(Modules):
    framework = "tensorflow"
    target = "keras"
    call = "call"

    def _layer(self, kind: Any, channels: int, *sizes: int, **more: int) -> Any:
        layer = kind(*sizes, **more)
        layer.build((None, None, None, channels))
        return layer

    def _model(self, plan: Plan) -> Any:
        return native(plan, "keras")

    def _block(self, model: Any, stage: int, index: int) -> Any:
        return next(b for b in model.blocks if b.name == f"stages-{stage}-blocks-{index}")

    def _applied(self, layer: Any, values: Values, x: Any) -> Any:
        import keras

        # Not `stateless_call`, which goes around the casts of mixed precision (Keras 3.15).
        mapping = [(v, values[_name(v, layer)]) for v in layer.trainable_variables]
        with keras.StatelessScope(state_mapping=mapping):
            return layer(x)

    def _head_layers(self) -> tuple[Any, Any]:
        import keras

        return keras.layers.Dense, keras.layers.Dropout

    def agc(self, clip: Clip) -> Function:
        import keras

        clip_gradient = self._file(carriers.with_clipping(clip)).clip_gradient
        name = "kernel" if clip.role in ("kernel", "head") else clip.role
        layer = keras.layers.Layer(name="op")
        variable = layer.add_weight(clip.shape, name=name)

        def function(gradient: Any, parameter: Any) -> Any:
            with keras.StatelessScope(state_mapping=[(variable, parameter)]):
                return clip_gradient(gradient, variable)

        return function

    def ways(self, plan: Plan, params: Arrays, seed: int) -> dict[str, Function]:
        import keras

        keras.utils.set_random_seed(seed)
        made, model = self._file(plan), native(plan, "keras", params=params)

        def training(x: Any) -> Arrays:
            with self._watched(made, plan) as taps:
                logits = model(keras.ops.convert_to_tensor(x), training=True)
            return {
                name: keras.ops.convert_to_numpy(value)
                for name, value in (*taps.items(), ("logits", logits))
            }

        return {"training": training}

    def _optimizer(self, plan: Plan, model: Any) -> Any:
        """The file's SGD, which clips, with the recipe's step: Keras's own does not add decay to
        the gradient, and has the learning rate in its momentum."""
        import keras
        from keras import ops

        recipe, of_name, file = recipe_of(plan), decays(plan), self._file(plan)
        decay = [of_name[_name(v, model)] for v in model.trainable_variables]

        class SGD(file.SGD if plan.agc.enabled else keras.optimizers.SGD):  # type: ignore[misc]
            def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
                n = self._get_variable_index(variable)
                gradient = gradient + decay[n] * ops.convert_to_tensor(variable)
                momentum = recipe.momentum * ops.convert_to_tensor(self.momentums[n]) + gradient
                self.assign(self.momentums[n], momentum)
                step = gradient + recipe.momentum * momentum if recipe.nesterov else momentum
                self.assign_sub(variable, learning_rate * step)

        return SGD(0.0, momentum=1.0)  # has buffers, for a momentum that is not 0

    def train(self, plan: Plan, params: Arrays, x: Any, labels: Any, steps: int) -> Arrays:
        """By Keras's `train_on_batch`."""
        import keras

        model = native(plan, "keras", params=params)
        optimizer = self._optimizer(plan, model)
        loss = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=recipe_of(plan).label_smoothing
        )
        model.compile(optimizer, loss)
        losses: list[Any] = []
        after: Arrays = {}
        for done in range(steps):
            optimizer.learning_rate = rate(plan, done)
            losses.append(model.train_on_batch(x, labels))
            model.reset_metrics()
            after |= recorded(done, steps, partial(_arrays, model))
        return {"losses": np.asarray(losses, np.float32), **after}

    def step(
        self, plan: Plan, params: Arrays, momentum: Arrays, gradients: Arrays, done: int
    ) -> Arrays:
        import keras

        model = native(plan, "keras", params=params)
        optimizer = self._optimizer(plan, model)
        own = model.trainable_variables
        names = [_name(v, model) for v in own]
        optimizer.build(own)
        for name, buffer in zip(names, optimizer.momentums, strict=True):
            buffer.assign(momentum[name])
        optimizer.learning_rate = rate(plan, done)
        optimizer.apply([keras.ops.convert_to_tensor(gradients[name]) for name in names], own)
        after = zip(names, own, optimizer.momentums, strict=True)
        states: Arrays = {}
        for name, variable, buffer in after:
            states[f"parameter/{name}"] = keras.ops.convert_to_numpy(variable)
            states[f"momentum/{name}"] = keras.ops.convert_to_numpy(buffer)
        return states

    def through(self, plan: Plan, params: Arrays | None) -> Arrays:
        return _arrays(native(plan, "keras", params=given(params)))


class KerasSourceJAX(KerasSource):
    framework = "jax"


class KerasSourceTorch(KerasSource):
    framework = "torch"


def _name(variable: Any, layer: Any) -> str:
    """The canonical name of a variable within a layer, a block or a network."""
    local: str = variable.path.removeprefix(f"{layer.path}/")
    return local.replace("/", ".").replace("-", ".")


def _arrays(model: Any) -> Arrays:
    import keras

    own = model.trainable_variables
    return {_name(v, model): np.array(keras.ops.convert_to_numpy(v)) for v in own}
