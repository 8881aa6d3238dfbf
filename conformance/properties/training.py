"""Tiers 3 and 4: training runs of the cut network, and single steps of its optimiser."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from nfspec import reference
from nfspec.conformance.bounds import clipping as clip_bounds
from nfspec.conformance.bounds.bands import bands
from nfspec.conformance.cases.case import Arrays, Case
from nfspec.conformance.cases.precision import MODES
from nfspec.conformance.cases.reduction import CLASSES, IMAGES, RATE_STEPS, SIDE
from nfspec.conformance.properties.base import (
    FULL_MODES,
    Array,
    Expectation,
    Expected,
    Outputs,
    Property,
    wide,
)
from nfspec.conformance.properties.networks import (
    case_plan,
    network,
    photographs,
    rms,
    weights,
)
from nfspec.plan import Plan
from nfspec.plan.clipping import clip_rules
from nfspec.reference import TrainingState, training
from nfspec.reference.rounding import Rounding

SAMPLES = 10  # perturbed runs
STEPS = 10
DONE = 3  # steps before the one that is tested


def _batch(case: Case) -> list[Arrays]:
    labels = case.rng("labels").integers(0, CLASSES, IMAGES)
    return [
        {
            "x": photographs(case, IMAGES, SIDE),
            "labels": np.eye(CLASSES, dtype=np.float32)[labels],
        }
    ]


def _rate(plan: Plan, step: int) -> float:
    assert plan.recipe is not None
    recipe = plan.recipe
    return training.learning_rate(
        step, recipe.learning_rate, RATE_STEPS, 0.0, recipe.final_learning_rate
    )


def first_step(
    plan: Plan, params: Arrays, call: Arrays, noise: Rounding | None = None
) -> dict[str, Array]:
    """Parameters by role after one step."""
    assert plan.recipe is not None
    targets = training.smoothed(call["labels"], CLASSES, plan.recipe.label_smoothing)
    state = TrainingState.start(plan, params)
    state, _ = reference.train_step(plan, state, call["x"], targets, _rate(plan, 0), noise)
    return by_role(plan, state.params, "first")


def _rounded_constants(plan: Plan, noise: Rounding) -> Plan:
    """A plan whose constants of training are rounded, once for the whole run, as in float32."""

    def off(value: float) -> float:
        return value * (1.0 + noise.stored * float(noise.rng.standard_normal()))

    assert plan.recipe is not None
    recipe = plan.recipe.model_copy(
        update={
            name: off(getattr(plan.recipe, name))
            for name in ("learning_rate", "momentum", "weight_decay")
        }
    )
    clipping = min(off(plan.agc.clipping), 1_000.0)  # the largest that the language has
    agc = plan.agc.model_copy(update={"clipping": clipping})
    return replace(plan, recipe=recipe, agc=agc)


def _trajectory(
    plan: Plan, params: Arrays, call: Arrays, noise: Rounding | None = None
) -> tuple[dict[str, Array], TrainingState, list[float]]:
    """Losses, parameters by role after the first step and the last; the state; clip fractions."""
    assert plan.recipe is not None
    targets = training.smoothed(call["labels"], CLASSES, plan.recipe.label_smoothing)
    state = TrainingState.start(plan, params)
    losses: list[float] = []
    fractions: list[float] = []
    found: dict[str, Array] = {}
    for i in range(STEPS):
        state, report = reference.train_step(plan, state, call["x"], targets, _rate(plan, i), noise)
        losses.append(report.loss)
        fractions += report.clip_fractions.values()
        if i in (0, STEPS - 1):
            found |= by_role(plan, state.params, "first" if i == 0 else "last")
    return {"losses": np.array(losses), **found}, state, fractions


def by_role(plan: Plan, values: Any, prefix: str) -> dict[str, Array]:
    """All values of each role in one vector."""
    found: dict[str, list[Array]] = {}
    for q in plan.parameters.values():
        flat = np.asarray(values[q.name], np.float64).reshape(-1)
        found.setdefault(f"{prefix}/{q.role}", []).append(flat)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _trained_by_role(case: Case, calls: list[Arrays], found: Outputs) -> Outputs:
    plan = case_plan(case)
    outputs: dict[str, Any] = {"losses": found["losses"]} if "losses" in found else {}
    for prefix in ("first", "last"):
        names = {name: f"{prefix}/{name}" for name in plan.parameters}
        if set(names.values()) <= set(found):
            outputs |= by_role(plan, {k: found[v] for k, v in names.items()}, prefix)
    return outputs


def _expect_training(case: Case, calls: list[Arrays]) -> Expected:
    plan = case_plan(case)
    params = weights(case.spec, True, case.seed)
    exact, _, fractions = _trajectory(plan, params, calls[0])
    band = bands(
        lambda noise: _trajectory(plan, params, calls[0], noise)[0],
        exact,
        MODES[case.mode],
        SAMPLES,
        elementwise=frozenset({"losses"}),
    )
    outputs = rms({k: v for k, v in exact.items() if k != "losses"}, band)
    outputs["losses"] = Expectation(exact["losses"], {"rounding": band["losses"]})
    some = any(0.0 < fraction < 1.0 for fraction in fractions)
    return Expected(outputs, frozenset({"clipped and not, in one tensor"} if some else ()))


TRAIN_01 = Property(
    id="TRAIN-01",
    tier=3,
    title="training, ten steps of the cut network: losses and parameters",
    request="train",
    method="train",
    cases=network("TRAIN-01", True),
    calls=_batch,
    expect=_expect_training,
    modes=FULL_MODES,
    must=lambda cases: frozenset({"clipped and not, in one tensor"}),
    reduce=_trained_by_role,
    draws=False,
)


@lru_cache(maxsize=2)
def _state(source: str, case: Case) -> Arrays:
    """Parameters, momentum and gradients in float32, after a few steps of the reference."""
    plan = case_plan(case)
    assert plan.recipe is not None
    (call,) = _batch(case)
    targets = training.smoothed(call["labels"], CLASSES, plan.recipe.label_smoothing)
    state = TrainingState.start(plan, weights(source, True, case.seed))
    for i in range(DONE):
        state, _ = reference.train_step(plan, state, call["x"], targets, _rate(plan, i))
    found = reference.loss_and_gradients(plan, state.params, call["x"], targets)
    return {
        f"{kind}/{name}": np.asarray(value, np.float32)
        for kind, values in (
            ("parameter", state.params),
            ("momentum", state.momentum),
            ("gradient", found.of_parameters),
        )
        for name, value in values.items()
    }


def _expect_step(case: Case, calls: list[Arrays]) -> Expected:
    plan, a = case_plan(case), wide(calls[0])
    assert plan.recipe is not None
    outputs = {}
    met = set()
    for name, rule in clip_rules(plan).items():
        gradient, parameter = a[f"gradient/{name}"], a[f"parameter/{name}"]
        found = clip_bounds.step(
            gradient,
            parameter,
            a[f"momentum/{name}"],
            rule,
            _rate(plan, DONE),
            plan.recipe.decay_of(plan.parameters[name].role),
            plan.recipe,
        )
        for kind, (value, terms) in found.items():
            outputs[f"{kind}/{name}"] = Expectation(value, terms)
        _, _, clipped = clip_bounds.clip(gradient, parameter, rule, MODES["f32"])
        if clipped.any() and not clipped.all():
            met.add("clipped and not, in one tensor")
    return Expected(outputs, frozenset(met))


STEP_01 = Property(
    id="STEP-01",
    tier=4,
    title="one step of the optimiser, from the reference's state",
    request="step",
    method="step",
    cases=network("STEP-01", True),
    calls=lambda case: [_state(case.spec, case)],
    sent=True,
    expect=_expect_step,
    modes=("f32",),
    must=lambda cases: frozenset({"clipped and not, in one tensor"}),
    draws=False,
)

PROPERTIES = (TRAIN_01, STEP_01)
