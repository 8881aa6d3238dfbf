"""Faults of adaptive gradient clipping, the optimizer and the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from nfspec.conformance.cases.case import Clip
from nfspec.conformance.cases.precision import truncated
from nfspec.conformance.faults.base import Fault, of_arrays, patched, training_alone
from nfspec.plan import Plan

CLIP = "nfspec.backends.kernels.plain:clip"
NORMS = "nfspec.backends.kernels.plain:unit_norms"
SGD = "nfspec.backends.optimizers.sgd:SGD.update_step"
STEP = ("STEP-01", "TRAIN-01")


def _agc(**changes: Callable[[Any], Any]) -> dict[str, Any]:
    """A change of the `[agc]` table, in descriptions of one parameter and in plans."""

    def of_clip(op: Any) -> Any:
        if not isinstance(op, Clip):
            return op
        return replace(op, **{name: value(op) for name, value in changes.items()})

    def of_plan(plan: Plan) -> Plan:
        update = {name: value(plan.agc) for name, value in changes.items()}
        return replace(plan, agc=plan.agc.model_copy(update=update))

    return {"op": of_clip, "of_plan": of_plan}


def _recipe(**changes: Any) -> Callable[[Plan], Plan]:
    def change(plan: Plan) -> Plan:
        assert plan.recipe is not None
        return replace(plan, recipe=plan.recipe.model_copy(update=changes))

    return change


def _excluding(plan: Plan) -> Plan:
    return replace(plan, agc=plan.agc.model_copy(update={"exclude": ()}))


def _factor(change: Callable[[Any, Any, Any, Any], Any]) -> Any:
    """A patch of the factor of a unit's gradient, which becomes `change(ops, norm of the gradient,
    norm of the parameter, rule)`."""

    def wrap(original: Any) -> Any:
        def clip(gradient: Any, parameter: Any, rule: Any) -> Any:
            from keras import ops

            from nfspec.backends.kernels.plain import unit_norms

            if rule.clipping is None:
                return original(gradient, parameter, rule)
            norm, of_parameter = (unit_norms(a, rule.axes) for a in (gradient, parameter))
            factor = change(ops, norm, of_parameter, rule)
            return gradient * factor, ops.ones((), "float32")

        return clip

    return patched(CLIP, wrap)


def _eps_added(ops: Any, norm: Any, of_parameter: Any, rule: Any) -> Any:
    limit = rule.clipping * (of_parameter + rule.eps)
    return ops.where(norm > limit, limit / ops.maximum(norm, 1e-6), 1.0)


def _always(ops: Any, norm: Any, of_parameter: Any, rule: Any) -> Any:
    """Small gradients scaled up to the limit, too."""
    return rule.clipping * ops.maximum(of_parameter, rule.eps) / ops.maximum(norm, 1e-6)


def _soft(ops: Any, norm: Any, of_parameter: Any, rule: Any) -> Any:
    """A gradient that nears the limit smoothly and is never left alone."""
    limit = rule.clipping * ops.maximum(of_parameter, rule.eps)
    return limit / (limit + norm)


def _norm(change: Callable[[Any, Any, Any], Any]) -> Any:
    """A patch of the norm of a unit: `change(ops, x, axes)` takes its place."""

    def wrap(original: Any) -> Any:
        def unit_norms(x: Any, axes: Any) -> Any:
            from keras import ops

            return original(x, axes) if axes == () else change(ops, x, axes)

        return unit_norms

    return patched(NORMS, wrap)


def _wrong_axis(ops: Any, x: Any, axes: Any) -> Any:
    """Over the last axis, as rows of a transposed kernel would be."""
    over = axes if axes is None else (len(x.shape) - 1,)
    return ops.sqrt(ops.sum(x * x, axis=over, keepdims=True))


def _narrow_norm(ops: Any, x: Any, axes: Any) -> Any:
    """Squares and sum in bfloat16, as of a gradient that is not widened first."""
    square = ops.square(ops.cast(x, "bfloat16"))
    return ops.cast(ops.sqrt(ops.sum(square, axis=axes, keepdims=True)), "float32")


def _update(change: Callable[[Any, Any, Any, Any, Any], None]) -> Any:
    """A patch of SGD's step: `change(ops, optimizer, gradient, variable, rate)` takes its place."""

    def wrap(original: Any) -> Any:
        def update_step(optimizer: Any, gradient: Any, variable: Any, rate: Any) -> None:
            from keras import ops

            change(ops, optimizer, gradient, variable, ops.cast(rate, variable.dtype))

        return update_step

    return patched(SGD, wrap)


def _parts(optimizer: Any, variable: Any) -> tuple[Any, float]:
    decays = optimizer._var_key(variable) in optimizer._decays
    buffer = optimizer._buffers[optimizer._get_variable_index(variable)]
    return buffer, optimizer.coupled_weight_decay if decays else 0.0


def _decoupled(ops: Any, optimizer: Any, gradient: Any, variable: Any, rate: Any) -> None:
    """Weight decay outside the momentum, as in Keras's own optimizers."""
    buffer, decay = _parts(optimizer, variable)
    moved = optimizer.momentum * buffer + gradient
    step = gradient + optimizer.momentum * moved + decay * variable
    optimizer.assign(buffer, moved)
    optimizer.assign_sub(variable, rate * step)


def _rate_in_buffer(ops: Any, optimizer: Any, gradient: Any, variable: Any, rate: Any) -> None:
    """The learning rate inside the momentum, as in Keras's SGD."""
    buffer, decay = _parts(optimizer, variable)
    gradient = rate * (gradient + decay * variable)
    moved = optimizer.momentum * buffer + gradient
    optimizer.assign(buffer, moved)
    optimizer.assign_sub(variable, gradient + optimizer.momentum * moved)


CLIPPING = training_alone(
    Fault("agc-lambda", "lambda a hundredth larger", ("AGC-01", "EXACT-04"),
          **_agc(clipping=lambda a: a.clipping * 1.01)),
    Fault("agc-eps", "eps ten times as large", ("AGC-01",), **_agc(eps=lambda a: a.eps * 10.0)),
    Fault("agc-tensor-norm", "one norm for the whole tensor", ("AGC-01", "AGC-04"),
          **_agc(unit=lambda a: "tensor" if a.unit != "tensor" else "squeeze")),
    Fault("agc-unit-rule", "timm's units for DeepMind's, or the reverse", ("AGC-01",),
          **_agc(unit=lambda a: "squeeze" if a.unit == "timm" else "timm")),
    Fault("agc-eps-added", "lambda·(‖W‖ + eps)", ("AGC-01", "AGC-03"),
          patch=_factor(_eps_added)),
    Fault("agc-always", "units within their limit are scaled up to it", ("AGC-01", "AGC-05"),
          patch=_factor(_always)),
    Fault("agc-soft", "limit / (limit + ‖G‖) for the factor", ("AGC-01", "AGC-02"),
          patch=_factor(_soft)),
    Fault("agc-axis", "norms over the wrong axis", ("AGC-01",), patch=_norm(_wrong_axis)),
    Fault("agc-rms", "root mean square for the norm", ("AGC-01",), patch=_norm(
        lambda ops, x, axes: ops.sqrt(ops.mean(x * x, axis=axes, keepdims=True)))),
    Fault("agc-l1", "L1 norms", ("AGC-01",), patch=_norm(
        lambda ops, x, axes: ops.sum(ops.abs(x), axis=axes, keepdims=True))),
    Fault("agc-bf16", "norms of gradients rounded to bfloat16", ("AGC-01",),
          arrays=of_arrays(Clip, lambda op, call: {"gradient": truncated(call["gradient"], 7)})),
    Fault("agc-narrow-norm", "norms taken in bfloat16", ("AGC-01",), patch=_norm(_narrow_norm)),
    Fault("agc-gradient-scaled", "gradients still scaled for float16", ("AGC-01",),
          arrays=of_arrays(Clip, lambda op, call: {
              "gradient": call["gradient"] * np.float32(1024.0)})),
    Fault("agc-head", "the classifier clipped, too", STEP, of_plan=_excluding),
    Fault("sgd-decay-on-gains", "weight decay on gains", STEP,
          of_plan=_recipe(weight_decay_exclude=("bias", "skip_gain"))),
    Fault("sgd-no-decay", "no weight decay", STEP, of_plan=_recipe(weight_decay=0.0)),
    Fault("sgd-no-nesterov", "plain momentum", STEP, of_plan=_recipe(nesterov=False)),
    Fault("sgd-momentum", "momentum 0.9001", STEP, of_plan=_recipe(momentum=0.9001)),
    Fault("sgd-decoupled", "weight decay outside the momentum", STEP, patch=_update(_decoupled)),
    Fault("sgd-rate-in-buffer", "the learning rate inside the momentum", STEP,
          patch=_update(_rate_in_buffer)),
    Fault("loss-no-smoothing", "no label smoothing", ("TRAIN-01",),
          of_plan=_recipe(label_smoothing=0.0)),
)  # fmt: skip
