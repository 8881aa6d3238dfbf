"""Adaptive gradient clipping of a list of gradients, for training loops in TensorFlow.

    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    gradients = agc(plan, gradients, model.trainable_variables)

Source: Brock et al. 2021 (arXiv:2102.06171 §4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from nfspec.compilation import select
from nfspec.errors import InputError
from nfspec.plan import Plan
from nfspec.plan.clipping import TreatAs, pattern_of, rules_for


def _canonical(variables: Sequence[Any], treat_as: TreatAs) -> list[str]:
    names = [getattr(v, "canonical", getattr(v, "path", v.name)) for v in variables]
    strangers = [
        (name, v)
        for name, v in zip(names, variables, strict=True)
        if not hasattr(v, "canonical") and pattern_of(name, treat_as) is None
    ]
    if len(strangers) == len(names):
        listed = ", ".join(f"{name} {tuple(v.shape)}" for name, v in strangers[:20])
        raise InputError(
            f"agc: the plan has no parameters for these variables: {listed}; give the canonical "
            "name of each variable, names=..., or, for those of other layers, a parameter that is "
            f'clipped by the same rule: treat_as={{"{strangers[0][0]}": "head.fc.kernel"}}'
        )
    return names


def _dense(gradient: Any, shape: Sequence[int]) -> Any:
    """A gradient as a tensor, where `tf.gather` and embeddings give slices, which may repeat."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, shape[0])
    return gradient


# AutoGraph would spend seconds on rewriting what is called here; nothing branches on tensors.
@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
def agc(
    plan: Plan,
    gradients: Sequence[Any],
    variables: Sequence[Any],
    names: Sequence[str] | None = None,
    *,
    treat_as: TreatAs | None = None,
    plain: bool = False,
) -> list[Any]:
    """Clip gradients by the norms of their parameters' units, as the plan's `[agc]` says.

    Call it before weight decay and momentum. Works within `tf.function`, compiled by XLA or not.

    Args:
        plan: The network.
        gradients: One for each variable, None where there is none; of the whole batch (accumulated,
            reduced over replicas) and not scaled for float16.
        variables: `model.trainable_variables`, or any tensors in the canonical layout with `names`.
            Not all of the plan's need be there.
        names: Canonical name of each variable, where the variables do not know.
        treat_as: For variables of other layers, their path to the name of the plan's parameter that
            each is clipped like, or to None: `{"decoder/*": None}`. See `nfspec.agc`. The last axis
            of a kernel is its outputs.
        plain: Use the plain kernels, as a network compiled with `plain=True` does.

    Returns:
        Gradients in the order given, None where there is none.

    Raises:
        InputError: The plan does not clip, or a variable or gradient is not the plan's.
        BackendError: Keras runs on another framework.
    """
    select("tensorflow")
    from nfspec.backends.clipping import clip_all

    known = _canonical(variables, treat_as or {}) if names is None else list(names)
    rules = rules_for(plan, known, [tuple(v.shape) for v in variables], treat_as)
    if len(gradients) != len(variables):
        raise InputError(f"agc: {len(gradients)} gradients for {len(variables)} variables")
    dense = [_dense(g, v.shape) for g, v in zip(gradients, variables, strict=True)]
    for name, gradient, variable in zip(known, dense, variables, strict=True):
        if gradient is None:
            continue
        if not tf.TensorShape(gradient.shape).is_compatible_with(variable.shape):
            raise InputError(
                f"{name}: expected a gradient of shape {tuple(variable.shape)}; found "
                f"{gradient.shape}"
            )
    return clip_all(dense, variables, rules, plain)[0]
