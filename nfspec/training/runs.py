"""A training run: a plan's recipe with the numbers of one run worked out.

Sources: deepmind-research/nfnets/{experiment,experiment_nfnets,optim}.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nfspec.arguments import instance, whole
from nfspec.errors import InputError
from nfspec.language.fields import Unit
from nfspec.language.tables import Recipe
from nfspec.plan import Plan
from nfspec.reference.training import weights_of

if TYPE_CHECKING:
    import keras

UNITS: dict[Unit, str] = {
    "squeeze": "DeepMind's",
    "timm": "timm's",
    "output": "each output's",
    "element": "each output's and number's",
    "tensor": "whole-tensor",
}


@dataclass(frozen=True)
class Run:
    """A recipe for a number of steps. Printed, it is a summary; its methods build the Keras parts.

    Attributes:
        plan: The network.
        recipe: Its `[recipe]` table.
        steps: Optimiser steps in all.
        batch: Images in a step.
        accumulation: Micro-batches in a step, each of batch / accumulation images.
        warmup: Steps of the learning rate's rise, not necessarily whole.
        class_weights: Weight of each class in the loss; None where all count the same.
    """

    plan: Plan
    recipe: Recipe
    steps: int
    batch: int
    accumulation: int
    warmup: float
    class_weights: tuple[float, ...] | None = None

    @property
    def learning_rate(self) -> float:
        """The peak learning rate, scaled with the batch if the recipe says so."""
        images = self.recipe.learning_rate_images
        return self.recipe.learning_rate * (self.batch / images if images else 1.0)

    def optimizer(self, *, plain: bool = False) -> keras.optimizers.Optimizer:
        """The optimizer: EMA around AGC around SGD, each if the recipe has it.

        Args:
            plain: Use the plain kernels, as a network compiled with `plain=True` does.
        """
        from nfspec.backends.optimizers import AGC, EMA, SGD
        from nfspec.backends.schedule import WarmupCosine

        recipe = self.recipe
        schedule = WarmupCosine(
            self.learning_rate,
            self.steps,
            self.warmup,
            recipe.final_learning_rate,
            self.accumulation,
        )
        optimizer = SGD(
            schedule,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            coupled_weight_decay=recipe.weight_decay,
            weight_decay_exclude=recipe.weight_decay_exclude,
            gradient_accumulation_steps=self.accumulation if self.accumulation > 1 else None,
            plain=plain,
        )
        if self.plan.agc.enabled:
            optimizer = AGC(optimizer, self.plan.agc, plain=plain)
        if recipe.ema_decay:
            optimizer = EMA(optimizer, recipe.ema_decay, recipe.ema_warm)
        return optimizer

    def loss(self) -> keras.losses.Loss:
        """Softmax cross-entropy of logits with label smoothing, for labels that are one-hot, mixed
        or the numbers of classes."""
        from nfspec.backends.losses import CrossEntropy

        return CrossEntropy(
            from_logits=True,
            label_smoothing=self.recipe.label_smoothing,
            class_weights=self.class_weights,
            dtype="float32",
        )

    def compile(self, model: keras.Model, **kwargs: Any) -> keras.Model:
        """Compile a model for this run.

        Args:
            model: The model that `nfspec.compile` returned, without taps. If it is plain, the
                optimizer is plain, too.
            **kwargs: As Keras's `Model.compile` takes, such as `metrics` or `jit_compile`.

        Returns:
            The model to call `fit` on: the one given, or one around it if the recipe has SAM.
        """
        from nfspec.backends.compiler import require_layer
        from nfspec.backends.layers.base import is_plain
        from nfspec.backends.settings import float32_data

        require_layer(model)
        optimizer = self.optimizer(plain=is_plain(model))
        if self.recipe.sam_rho:
            from nfspec.backends.sam import SharpnessAware

            model = SharpnessAware(model, self.recipe.sam_rho, self.recipe.sam_fraction)
        with float32_data():  # so that Keras does not round the loss that it reports
            model.compile(optimizer=optimizer, loss=self.loss(), **kwargs)
        return model

    def __str__(self) -> str:
        return "\n".join(f"{name:<13}  {fact}" for name, fact in self._facts().items() if fact)

    def _facts(self) -> dict[str, str]:
        recipe, agc = self.recipe, self.plan.agc
        epochs = self.steps * self.batch / recipe.images
        per = f", {self.accumulation} micro-batches each" if self.accumulation > 1 else ""
        nesterov = "Nesterov momentum" if recipe.nesterov else "momentum"
        unit = UNITS[agc.unit]
        excluded = f", not {' '.join(agc.exclude)}" if agc.exclude else ""
        weighted = ", with class weights" if self.class_weights is not None else ""
        fraction = f" on {recipe.sam_fraction:.0%} of the batch" if recipe.sam_fraction < 1 else ""
        return {
            "network": f"{self.plan.name}, {self.plan.train_size} px",
            "steps": f"{self.steps:,} of {self.batch:,} images{per} ({epochs:.4g} epochs)",
            "optimizer": f"SGD, {nesterov} {recipe.momentum:g}",
            "learning rate": (
                f"0 to {self.learning_rate:g} over {self.warmup:,.1f} steps, cosine to "
                f"{recipe.final_learning_rate:g}"
            ),
            "weight decay": (
                f"{recipe.weight_decay:g}, coupled, not {' '.join(recipe.weight_decay_exclude)}"
                if recipe.weight_decay
                else "none"
            ),
            "clipping": (
                f"AGC {agc.clipping:g}, eps {agc.eps:g}, {unit} units{excluded}"
                if agc.enabled
                else "none"
            ),
            "SAM": f"rho {recipe.sam_rho:g}{fraction}" if recipe.sam_rho else "",
            "average": (
                f"EMA {recipe.ema_decay:g}{', warm' if recipe.ema_warm else ''}"
                if recipe.ema_decay
                else "none"
            ),
            "loss": f"cross-entropy, label smoothing {recipe.label_smoothing:g}{weighted}",
            "precision": recipe.precision,
            "images": _preparation(recipe),
            "augmentation": _augmentation(recipe),
        }


def _preparation(recipe: Recipe) -> str:
    whole = recipe.crop_area == 1.0
    cut = "whole" if whole else f"crops of {recipe.crop_area:.0%} or more"
    return f"{cut}, half of them mirrored" if recipe.flip else cut


def _augmentation(recipe: Recipe) -> str:
    mixed = {"mixup": recipe.mixup_alpha, "CutMix": recipe.cutmix_alpha}
    layers, magnitude = recipe.randaugment_layers, recipe.randaugment_magnitude
    steps = [
        ", ".join(f"{name} {alpha:g}" for name, alpha in mixed.items() if alpha),
        f"RandAugment {layers} x {magnitude:g}" if layers else "",
    ]
    if not recipe.mix_before_augment:
        steps.reverse()
    return ", then ".join(filter(None, steps)) or "none"


def recipe(
    plan: Plan,
    *,
    steps: int | None = None,
    batch: int | None = None,
    accumulation: int = 1,
    class_weights: Sequence[float] | None = None,
) -> Run:
    """Work out a plan's training recipe for one run.

    Args:
        plan: The network, whose spec has a `[recipe]`.
        steps: Optimiser steps in all, of which the warm-up takes its share; the published run's
            if not given.
        batch: Images in a step; the published run's if not given. The learning rate scales with it
            where the recipe says so.
        accumulation: Micro-batches whose gradients are averaged before each step.
        class_weights: A weight for each class, by which the loss of its images is multiplied;
            `nfspec.reference.training.smoothed` defines it for mixed labels. All are 1 if None.

    Raises:
        InputError: The plan has no recipe, or the numbers make no run.
    """
    table = instance("plan", plan, Plan, "nfspec.resolve").recipe
    if table is None:
        raise InputError(
            f"{plan.name} has no [recipe]; add the table to its spec, or extend one that has it"
        )
    batch = table.batch if batch is None else whole("batch", batch, 1, "images")
    accumulation = whole("accumulation", accumulation, 1)
    steps = None if steps is None else whole("steps", steps, 1)
    if batch % accumulation:
        raise InputError(f"batch: {batch} images do not divide into {accumulation} micro-batches")
    exact = table.images * table.epochs / batch if steps is None else float(steps)
    warmup = exact * table.warmup_epochs / table.epochs
    if warmup >= int(exact):
        raise InputError(
            f"warmup_epochs: {table.warmup_epochs:g} of {table.epochs} epochs leave none of the "
            f"{exact:.4g} steps after the warm-up; use a shorter one (--warmup), or more epochs "
            "(--epochs)"
        )
    if class_weights is not None:
        class_weights = weights_of(class_weights, plan.tap_info["logits"].channels)
    return Run(plan, table, int(exact), batch, accumulation, warmup, class_weights)
