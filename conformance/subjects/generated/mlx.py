"""The target `mlx`: modules of MLX."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from nfspec.conformance.cases.case import Arrays, Clip
from nfspec.conformance.subjects import Function
from nfspec.conformance.subjects.generated import carriers, decays, given, rate, recorded, weight
from nfspec.conformance.subjects.generated.modules import Modules, Values
from nfspec.generation.native import native
from nfspec.plan import Plan
from nfspec.reference.training import recipe_of


class MlxSource(Modules):
    framework = "mlx"
    target = "mlx"
    conv = "WSConv2d"

    def _layer(self, kind: Any, channels: int, *sizes: int, **more: int) -> Any:
        return kind(*((channels, *sizes) if kind.__name__ == self.conv else sizes), **more)

    def _model(self, plan: Plan) -> Any:
        return native(plan, "mlx").eval()

    def _applied(self, layer: Any, values: Values, x: Any) -> Any:
        layer.load_weights([(weight(name), theirs(value)) for name, value in values.items()])
        return layer(x)

    def _head_layers(self) -> tuple[Any, Any]:
        from mlx import nn

        return nn.Linear, nn.Dropout

    def agc(self, clip: Clip) -> Function:
        from mlx import nn

        clip_gradients = self._file(carriers.with_clipping(clip)).clip_gradients
        name = "weight" if clip.role in ("kernel", "head") else clip.role

        def function(gradient: Any, parameter: Any) -> Any:
            held = nn.Module()
            held.op = {name: theirs(parameter)}
            return ours(clip_gradients(held, {"op": {name: theirs(gradient)}})["op"][name])

        return function

    def ways(self, plan: Plan, params: Arrays, seed: int) -> dict[str, Function]:
        import mlx.core as mx

        mx.random.seed(seed)
        made, model = self._file(plan), native(plan, "mlx", params=params)

        def training(x: Any) -> Arrays:
            with self._watched(made, plan) as taps:
                logits = model.train()(mx.array(x))
            return {name: np.array(value) for name, value in (*taps.items(), ("logits", logits))}

        return {"training": training}

    def _descend(self, plan: Plan, model: Any, optimizer: Any, gradients: Any, done: int) -> None:
        """Clip gradients, add the recipe's decay, and take a step."""
        from mlx.utils import tree_map_with_path

        if plan.agc.enabled:
            gradients = self._file(plan).clip_gradients(model, gradients)
        decay = {weight(name): value for name, value in decays(plan).items()}
        own = model.trainable_parameters()
        gradients = tree_map_with_path(lambda name, g, p: g + decay[name] * p, gradients, own)
        optimizer.learning_rate = rate(plan, done)
        optimizer.update(model, gradients)

    def _trainer(self, plan: Plan, params: Arrays) -> tuple[Any, Any]:
        """A network in training, and MLX's SGD."""
        from mlx import optimizers

        recipe = recipe_of(plan)
        how = {"momentum": recipe.momentum, "nesterov": recipe.nesterov and recipe.momentum > 0}
        return native(plan, "mlx", params=params).train(), optimizers.SGD(0.0, **how)

    def train(self, plan: Plan, params: Arrays, x: Any, labels: Any, steps: int) -> Arrays:
        import mlx.core as mx
        from mlx import nn

        model, optimizer = self._trainer(plan, params)
        smoothing = recipe_of(plan).label_smoothing

        def loss(x: Any, labels: Any) -> Any:
            return nn.losses.cross_entropy(
                model(x), labels, label_smoothing=smoothing, reduction="mean"
            )

        losses: list[float] = []
        after: Arrays = {}
        for step in range(steps):
            value, gradients = nn.value_and_grad(model, loss)(mx.array(x), mx.array(labels))
            losses.append(value.item())
            self._descend(plan, model, optimizer, gradients, step)
            after |= recorded(step, steps, partial(_arrays, plan, model.parameters()))
        return {"losses": np.asarray(losses, np.float32), **after}

    def step(
        self, plan: Plan, params: Arrays, momentum: Arrays, gradients: Arrays, done: int
    ) -> Arrays:
        import mlx.core as mx
        from mlx.utils import tree_flatten, tree_unflatten

        model, optimizer = self._trainer(plan, params)
        slopes = [(weight(name), theirs(mx.array(value))) for name, value in gradients.items()]
        buffers = [(f"{weight(n)}.v", theirs(mx.array(value))) for n, value in momentum.items()]
        optimizer.state = {**optimizer.state, **tree_unflatten(buffers)}
        self._descend(plan, model, optimizer, tree_unflatten(slopes), done)
        after = {name.removesuffix(".v"): v for name, v in tree_flatten(optimizer.state)}
        return {
            **{f"parameter/{k}": v for k, v in _arrays(plan, model.parameters()).items()},
            **{f"momentum/{name}": np.array(ours(after[weight(name)])) for name in plan.parameters},
        }

    def through(self, plan: Plan, params: Arrays | None) -> Arrays:
        return _arrays(plan, native(plan, "mlx", params=given(params)).parameters())


def theirs(value: Any) -> Any:
    """A canonical parameter (HWIO, IO) in MLX's layout (OHWI, OI)."""
    import mlx.core as mx

    return mx.moveaxis(value, -1, 0) if value.ndim > 1 else value


def ours(value: Any) -> Any:
    """The inverse of `theirs`."""
    import mlx.core as mx

    return mx.moveaxis(value, 0, -1) if value.ndim > 1 else value


def _arrays(plan: Plan, tree: Any) -> Arrays:
    """MLX's parameters by canonical name and in its layout."""
    from mlx.utils import tree_flatten

    own = dict(tree_flatten(tree))
    return {name: np.array(ours(own[weight(name)])) for name in plan.parameters}
