"""The model that a plan is compiled to."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import keras

from nfspec.backends.layers import Conv2D
from nfspec.backends.layers.base import NFLayer
from nfspec.backends.layers.drop import Drop
from nfspec.backends.lent import Lends
from nfspec.backends.misfit import explained
from nfspec.backends.settings import Float32Data
from nfspec.backends.steps import Region, by_regions, part_of, regions_of, steps_of
from nfspec.language.spec import Spec
from nfspec.plan import Conv, Plan
from nfspec.plan.initialise import init
from nfspec.plan.remat import DEPTHS
from nfspec.plan.resolver import resolve
from nfspec.rewrites.folding import Folded, fold
from nfspec.rewrites.scalars import move_scalars, without_features

Base: Any = keras.Model
COMPILING: Callable[[], bool] = bool  # which is False
if keras.backend.backend() == "torch":
    from torch.compiler import is_compiling

    from nfspec.backends.module import TorchModel

    Base, COMPILING = TorchModel, is_compiling


def executed(plan: Plan, *, taps: bool, plain: bool) -> Plan:
    """The plan whose operations become layers: with its scalars moved, unless it is to be plain."""
    plan = plan if plain else move_scalars(plan)
    return plan if taps else without_features(plan)


def spec_of(plan: Plan) -> str:
    """A spec that a plan is resolved from, as JSON; its table of fine-tuning is not known.

    Empty where a spec does not say all of the plan, such as one whose operations were changed.
    """
    data = json.loads(plan.canonical)
    data |= {"name": plan.name, "source": plan.source}
    data["agc"] = plan.agc.model_dump(mode="json")
    data["recipe"] = plan.recipe and plan.recipe.model_dump(mode="json")
    text = json.dumps(data)
    folded = any(isinstance(op, Conv) for op in plan.ops)
    return text if plan_of(text, folded) == plan else ""


def plan_of(spec: str, folded: bool) -> Plan:
    """The plan of a spec, JSON, or of the network that is folded from it."""
    plan = resolve(Spec.model_validate_json(spec))
    return fold(plan, init(plan)).plan if folded else plan


class TracedOnce:
    """A model whose optimizer TensorFlow builds before the first step: a step that makes the
    optimizer's variables is traced twice."""

    def make_train_function(self: Any, force: bool = False) -> Any:
        optimizer = getattr(self, "optimizer", None)
        if keras.backend.backend() == "tensorflow" and optimizer and not optimizer.built:
            with self.distribute_strategy.scope():
                optimizer.build(self.trainable_variables)
        return super().make_train_function(force)  # type: ignore[misc]  # of keras.Model


@keras.saving.register_keras_serializable(package="nfspec")
class Network(TracedOnce, Lends, Float32Data, Base):  # type: ignore[misc]  # Keras has no types
    """A functional model that knows its plan, and keeps it through copies and files.

    On PyTorch it is a module like any other: see `nfspec.backends.module`.

    Attributes:
        folded: The network it was folded from, if `nfspec.fold` or `nfspec.compile` returned it;
            copies and files do not keep the original parameters.
    """

    folded: Folded | None = None
    _plan: Plan | None = None
    regions: tuple[Region, ...] = ()  # of the steps, where some are computed again
    _remat: str = "none"
    _replicated: tuple[Any] | None = None  # a tuple, so that it is not taken for a part of this
    _in_parts = False  # over processes

    @property
    def plan(self) -> Plan | None:
        """The network as it was written: the plan that it was compiled from, or a folded model's
        folded plan. None where it was loaded from a file and no spec says that plan."""
        spec = next((layer.spec for layer in self._made if layer.spec), "")
        if self._plan is None and spec:
            folded = any(isinstance(layer, Conv2D) for layer in self._made)
            self._plan = plan_of(spec, folded)
        return self._plan

    def keep_plan(self, plan: Plan) -> None:
        """Set `plan`. It has no setter, as TensorFlow reads an attribute before it sets it."""
        self._plan = plan

    def compute_again(self, what: str) -> None:
        """Compute the stem and each block, or each stage, again in the backward pass."""
        self._remat = what
        if DEPTHS[what]:
            steps = steps_of(self)
            # Past Keras, which would track the layers a second time.
            object.__setattr__(self, "steps", steps)
            object.__setattr__(self, "regions", regions_of(*steps, part_of(DEPTHS[what])))

    @property
    def executed_plan(self) -> Plan | None:
        """The plan whose operations the layers are: `plan` with its scalars moved, unless it is
        plain."""
        taps = isinstance(self.output, dict | list)
        return self.plan and executed(self.plan, taps=taps, plain=self._made[0].plain)

    @property
    def _made(self) -> list[NFLayer]:
        """The layers that the plan's operations became."""
        return [layer for layer in self.layers if isinstance(layer, NFLayer)]

    @property
    def dtype_policy(self) -> Any:
        """The layers' policy, by which Keras decides whether to scale the loss."""
        return self._made[0].dtype_policy

    def get_config(self) -> dict[str, Any]:
        if self._plan is not None and not any(layer.spec for layer in self._made):
            self._made[0].spec = spec_of(self._plan)
        return super().get_config()

    def __reduce__(self) -> Any:
        # Keras's files, by which models are copied, say neither of these.
        fixed = [
            v.canonical
            for v in _parameters(self)
            if not (v.trainable and getattr(v.value, "requires_grad", True))
        ]
        training = getattr(self, "training", False)
        return _copied, (*super().__reduce__(), fixed, training, self._plan, self._remat)

    def replicate(self, engine: Callable[[Any], Any], in_parts: bool = False) -> None:
        """On PyTorch, train through a module of several processes from now on.

        Args:
            engine: A function of a module to the one that is called, such as
                DistributedDataParallel.
            in_parts: That module has to be called in inference, too, as it gathers the parameters.
        """
        import torch

        class Whole(torch.nn.Module):  # type: ignore[misc]  # PyTorch's types are not read
            def __init__(self, network: Network):
                super().__init__()
                self.network = network

            def forward(self, inputs: Any, training: bool = True) -> Any:
                with self.network.alone():
                    return self.network.call(inputs, training=training)

        self._replicated = (engine(Whole(self)),)
        self._in_parts = in_parts

    def call_through(self, engine: Callable[[Any], Any]) -> None:
        """On PyTorch, call the stem and each block, or what is computed again together, through
        the module that has its parameters.

        Args:
            engine: A function of that module to the one that is called.
        """
        again = DEPTHS[self._remat]
        steps, wanted = steps_of(self)
        regions = regions_of(steps, wanted, part_of(again or DEPTHS["block"]))
        through = tuple(
            region._replace(
                again=region.again and bool(again),
                module=engine(self.get_submodule(region.part)) if region.part else None,
            )
            for region in regions
        )
        object.__setattr__(self, "regions", through)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Without what `replicate` did: gradients are those of this process."""
        replicated, self._replicated = self._replicated, None
        try:
            yield
        finally:
            self._replicated = replicated

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if COMPILING():
            return super().__call__(*args, **kwargs)
        with explained(self, args[:1]):
            return super().__call__(*args, **kwargs)

    def stateless_call(self, trainable: Any, others: Any, *args: Any, **kwargs: Any) -> Any:
        with explained(self, args[:1]):  # Keras's loop on JAX comes this way alone
            return super().stateless_call(trainable, others, *args, **kwargs)

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if self._replicated is not None and (training or self._in_parts):
            return self._replicated[0](inputs, bool(training))
        symbolic = isinstance(inputs, keras.KerasTensor)
        if self.regions and not symbolic and keras.backend.backend() != "torch":
            return by_regions(self, inputs, bool(training), _draw, partial(_computed, training))
        return super().call(inputs, training=training, mask=mask)

    def train_step(self, *args: Any) -> Any:
        if keras.backend.backend() == "torch":
            # Keras lets go of the last step's gradients after the forward pass (as of 3.15); before
            # it, their memory is used again at once, which saves a tenth of the step on CPUs.
            self.zero_grad()
        return super().train_step(*args)


def _computed(training: Any, layer: keras.layers.Layer, read: list[Any]) -> Any:
    x = read[0] if len(read) == 1 else read
    return layer(x, training=bool(training)) if isinstance(layer, Drop) else layer(x)


def _draw(layer: Drop, shape: tuple[Any, ...]) -> Any:
    return keras.random.uniform(shape, dtype="float32", seed=layer.seed_generator)


def _parameters(model: Network) -> Iterator[keras.Variable]:
    for layer in model._made:
        yield from layer.named.values()


def _copied(
    make: Callable[..., Network],
    args: Any,
    fixed: list[str],
    training: bool,
    plan: Plan | None = None,
    remat: str = "none",
) -> Network:
    """A copied network whose parameters are trained, or not, as the original's are."""
    model = make(*args)
    model._plan = plan
    model.compute_again(remat)
    for variable in _parameters(model):
        if variable.canonical in fixed:
            variable.trainable = False
    if training:
        model.train()
    return model
