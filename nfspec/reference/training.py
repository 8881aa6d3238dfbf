"""The training step in float64, as functions of arrays and of dicts from name to array.

Sources: Brock et al. 2021 (arXiv:2102.06171 §4.1 and §5); deepmind-research/nfnets/{optim,utils,
experiment}.py; Foret et al. 2021 (arXiv:2010.01412, eq. 2 and 3) for SAM, which that code lacks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nfspec.arguments import instance, number, whole
from nfspec.errors import InputError
from nfspec.language.tables import Recipe
from nfspec.plan import Plan
from nfspec.plan.clipping import LEAST_GRADIENT_NORM, ClipRule, clip_rules
from nfspec.reference.gradients import Gradients, loss_and_gradients
from nfspec.reference.inputs import array_of, as_images, as_params, finite
from nfspec.reference.rounding import Rounding

Array = NDArray[np.float64]
Arrays = Mapping[str, Array]


@dataclass(frozen=True, eq=False)  # arrays have no equality of their own
class TrainingState:
    """The state between two steps, by canonical name.

    Attributes:
        params: The parameters.
        momentum: The optimizer's buffers, without the learning rate.
        averages: Moving averages of the parameters; empty if the recipe's `ema_decay` is 0.
        step: Steps taken.
    """

    params: Arrays
    momentum: Arrays
    averages: Arrays
    step: int

    @classmethod
    def start(cls, plan: Plan, params: Mapping[str, ArrayLike]) -> TrainingState:
        """Before the first step: buffers are zero, averages the parameters themselves.

        Raises:
            InputError: The plan has no recipe.
            WeightError: Names or shapes are not the plan's.
        """
        ordered = {name: value.copy() for name, value in as_params(plan, params).items()}
        zeros = {name: np.zeros(value.shape) for name, value in ordered.items()}
        return cls(ordered, zeros, dict(ordered) if recipe_of(plan).ema_decay else {}, 0)


@dataclass(frozen=True)
class StepReport:
    """Loss and clip fractions of one step.

    Attributes:
        loss: Loss of the whole batch, in nats, at the parameters whose gradient was used: with
            SAM the perturbed ones, else those before the step.
        clip_fractions: Canonical name to the fraction of its units that were clipped, of each
            parameter that has a lambda.
    """

    loss: float
    clip_fractions: dict[str, float]


def recipe_of(plan: Plan) -> Recipe:
    """The plan's recipe.

    Raises:
        InputError: It has none.
    """
    instance("plan", plan, Plan, "nfspec.resolve")
    if plan.recipe is None:
        raise InputError(
            f"{plan.name} has no [recipe] to train by; add the table to its spec, or extend one "
            "that has it, such as nfnet-f0"
        )
    return plan.recipe


def smoothed(
    labels: ArrayLike,
    classes: int,
    smoothing: float,
    class_weights: Sequence[float] | None = None,
) -> Array:
    """Targets `(1 - smoothing) · y + smoothing / classes` (experiment.py, `_loss_fn`).

    Args:
        labels: y as class numbers, (N,), or as distributions, (N, classes), such as mixup makes.
        classes: Number of classes.
        smoothing: Between 0 and 1.
        class_weights: w, a weight for each class. The target of an image is multiplied with
            `Σ_k y_k · w_k`, and so is its loss; the mean stays one over the number of images.

    Raises:
        InputError: Labels of another shape or dtype, or out of range; another number of weights.
    """
    classes = whole("classes", classes, 1)
    smoothing = number("smoothing", smoothing, 0.0, 1.0)
    y = array_of(labels, "fiu")
    if not isinstance(y, str) and y.ndim == 1 and y.dtype.kind != "f":
        if y.size and not 0 <= y.min() <= y.max() < classes:
            raise InputError(f"labels: expected 0 to {classes - 1}; found {y.min()} to {y.max()}")
        y = np.eye(classes)[y]
    elif isinstance(y, str) or y.ndim != 2 or y.shape[1] != classes:
        given = y if isinstance(y, str) else f"{y.dtype} of shape {y.shape}"
        raise InputError(
            f"labels: expected integers of shape (N,) or distributions of shape (N, {classes}); "
            f"found {given}"
        )
    y = finite("labels", y.astype(np.float64))
    targets = (1.0 - smoothing) * y + smoothing / classes
    if class_weights is None:
        return targets
    return (y @ np.asarray(weights_of(class_weights, classes)))[:, None] * targets


def weights_of(weights: Sequence[float], classes: int) -> tuple[float, ...]:
    """A weight for each class, checked.

    Raises:
        InputError: Another number of them, one that is negative or not finite, or all 0.
    """
    found = tuple(number("class_weights", weight, 0.0) for weight in weights)
    if len(found) != classes or not any(found):
        what = "all of them 0" if len(found) == classes else f"{len(found)} weights"
        raise InputError(
            f"class_weights: expected {classes} weights, one for each class; found {what}"
        )
    return found


def learning_rate(step: float, peak: float, steps: float, warmup: float, final: float) -> float:
    """Linear from 0 to `peak` at step `warmup`, then a cosine to `final` at step `steps`.

    Args:
        step: Steps taken before this one; from `steps` on, the rate stays `final`.
        peak: The highest rate.
        steps: Steps of the whole training.
        warmup: Steps of the linear rise; may be a fraction (5 epochs are 1563.9 steps of 4096
            images).
        final: The last rate.

    Source: optim.py, `WarmupCosineDecay`.

    Raises:
        InputError: The warm-up is not shorter than the training, or a number is negative or not
            finite.
    """
    for name, value in {"step": step, "peak": peak, "final": final}.items():
        number(name, value, 0.0)
    number("steps", steps, 0.0, above=True)
    if not 0 <= number("warmup", warmup) < steps:
        raise InputError(f"warmup: expected 0 to less than {steps} steps; found {warmup}")
    if warmup and step <= warmup:
        return peak * step / warmup
    done = min((step - warmup) / (steps - warmup), 1.0)
    return final + 0.5 * (peak - final) * (1.0 + math.cos(math.pi * done))


def clip(gradient: Array, parameter: Array, rule: ClipRule) -> tuple[Array, float]:
    """Adaptive gradient clipping of one tensor (optim.py, `SGD_AGC`; arXiv:2102.06171, eq. 3).

    Where a unit's ‖G‖ is over `limit = λ · max(‖W‖, eps)`, its G is scaled by `limit / max(‖G‖,
    1e-6)`. A unit is left as it is where G has a NaN or W is not finite; where G has an infinity,
    that element becomes NaN and the others 0.

    Args:
        gradient: G, in the parameter's shape.
        parameter: W, in the canonical layout.
        rule: `nfspec.plan.clipping.clip_rule` of the parameter; axes None: the tensor is one unit,
            empty: each element is.

    Returns:
        The gradient, and the fraction of units that were clipped.
    """
    if rule.clipping is None:
        return gradient, 0.0
    axes = tuple(range(gradient.ndim)) if rule.axes is None else rule.axes
    of_parameter, of_gradient = (
        np.sqrt((value**2).sum(axis=axes, keepdims=True)) for value in (parameter, gradient)
    )
    limit = rule.limits(of_parameter)
    clipped = of_gradient > limit
    with np.errstate(invalid="ignore"):  # an infinite gradient, as said
        scaled = gradient * (limit / np.maximum(of_gradient, LEAST_GRADIENT_NORM))
    return np.where(clipped, scaled, gradient), float(clipped.mean())


def descend(
    parameter: Array, gradient: Array, momentum: Array, rate: float, decay: float, recipe: Recipe
) -> tuple[Array, Array]:
    """One step of SGD (optim.py, `SGD.update_param`).

    The weight decay is coupled: it passes through the momentum. The buffer is without the learning
    rate, which scales all of it when it is used.

    Args:
        parameter: w.
        gradient: Clipped gradient of the loss.
        momentum: The buffer.
        rate: Learning rate.
        decay: Weight decay; 0 for a role that is excluded.
        recipe: Gives `momentum` and `nesterov`.

    Returns:
        The new parameter and the new buffer.
    """
    gradient = gradient + decay * parameter
    momentum = recipe.momentum * momentum + gradient
    step = gradient + recipe.momentum * momentum if recipe.nesterov else momentum
    return parameter - rate * step, momentum


def ema(average: Array, value: Array, decay: float, step: int, warm: bool) -> Array:
    """A moving average `d · average + (1 - d) · value` (utils.py, `tf1_ema` if warm, else `ema`).

    Args:
        average: Before this step; at first the initial parameter.
        value: The parameter after this step.
        decay: d; if warm, `min(decay, (1 + step) / (10 + step))`.
        step: Steps taken before this one, 0 at the first.
        warm: True if the decay warms up.
    """
    d = min(decay, (1.0 + step) / (10.0 + step)) if warm else decay
    return d * average + (1.0 - d) * value


def perturbation(gradients: Arrays, rho: float) -> dict[str, Array]:
    """SAM's step away from the parameters: `rho · g / ‖g‖`, the norm over all parameters together.

    0 where that norm is 0. Source: Foret et al. 2021 (arXiv:2010.01412, eq. 2 with p = 2).
    """
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
    return {name: rho * g / norm if norm else np.zeros(g.shape) for name, g in gradients.items()}


def _gradients(
    plan: Plan, params: Arrays, x: ArrayLike, targets: ArrayLike, rounding: Rounding | None
) -> Gradients:
    """The gradient that a step descends along; with SAM, that at the perturbed parameters."""
    recipe = recipe_of(plan)
    if recipe.sam_rho:
        images = as_images(plan, x)
        first = max(1, round(recipe.sam_fraction * len(images)))
        part = np.asarray(targets)[:first]
        ascent = loss_and_gradients(plan, params, images[:first], part, rounding)
        away = perturbation(ascent.of_parameters, recipe.sam_rho)
        params = {name: value + away[name] for name, value in params.items()}
    return loss_and_gradients(plan, params, x, targets, rounding)


def train_step(
    plan: Plan,
    state: TrainingState,
    x: ArrayLike,
    targets: ArrayLike,
    learning_rate: float,
    rounding: Rounding | None = None,
    rules: Mapping[str, ClipRule] | None = None,
) -> tuple[TrainingState, StepReport]:
    """One step on one batch: gradient (with SAM, that of the perturbed point), clip, decay,
    momentum, average, as `plan.agc` and `plan.recipe` say. Nothing is dropped, see `gradients`.

    With SAM the gradient that finds the perturbed point is not clipped, and is of the first
    `max(1, round(sam_fraction · N))` images; the step starts from the unperturbed parameters.

    Args:
        plan: The network and how it trains.
        state: `TrainingState.start(plan, params)`, or what the last step returned.
        x: Images, (N, H, W, channels).
        targets: (N, classes), smoothed already: `smoothed(labels, classes, label_smoothing)`.
        learning_rate: Learning rate of this step.
        rounding: Perturb every operation as rounding would; exact if not given.
        rules: Canonical name to rule of clipping; those of the plan if not given.

    Raises:
        InputError: The plan has no recipe; images or targets of another shape; a rate that is
            negative or not finite; a state that is not of `TrainingState`.
        WeightError: The state's parameters are of another plan.
    """
    recipe, rules = recipe_of(plan), rules or clip_rules(plan)
    instance("state", state, TrainingState, "TrainingState.start")
    learning_rate = number("learning_rate", learning_rate, 0.0)
    gradients = _gradients(plan, state.params, x, targets, rounding)
    params, momentum, fractions = {}, {}, {}
    for name, parameter in plan.parameters.items():
        gradient, fraction = clip(gradients.of_parameters[name], state.params[name], rules[name])
        decay = recipe.decay_of(parameter.role)
        params[name], momentum[name] = descend(
            state.params[name], gradient, state.momentum[name], learning_rate, decay, recipe
        )
        if rounding:
            params[name] = rounding.output(params[name])
            momentum[name] = rounding.output(momentum[name])
        if rules[name].clipping is not None:
            fractions[name] = fraction
    averages = {
        name: ema(average, params[name], recipe.ema_decay, state.step, recipe.ema_warm)
        for name, average in state.averages.items()
    }
    after = TrainingState(params, momentum, averages, state.step + 1)
    return after, StepReport(gradients.loss, fractions)
