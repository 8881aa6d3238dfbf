"""Tiers 3 and 4: training runs of the reduced network, and single steps of its optimizer."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from nfspec import reference
from nfspec.conformance.bounds import clipping as clip_bounds
from nfspec.conformance.cases.case import DROPS, Arrays, Case
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
    Network,
    as_asked,
    case_plan,
    network,
    photographs,
    weights,
)
from nfspec.plan import Plan
from nfspec.plan.clipping import clip_rules
from nfspec.reference import TrainingState, training
from nfspec.reference.rounding import Rounding

SAMPLES = 10  # perturbed runs
STEPS = 10
FEWEST = 2  # steps, where the first alone is judged; a subject is never asked for one alone
DONE = 3  # steps before the one that is tested


def steps_of(case: Case) -> int:
    """The number of steps that a subject takes."""
    return FEWEST if case.regime == DROPS else STEPS


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


def _trajectory(
    network: Network, params: Arrays, call: Arrays, noise: Rounding | None = None
) -> tuple[dict[str, Array], list[float]]:
    """Losses, and parameters by role after the first step and the last; every clip fraction."""
    plan = network.plan
    assert plan.recipe is not None
    targets = training.smoothed(call["labels"], CLASSES, plan.recipe.label_smoothing)
    state = TrainingState.start(plan, params)
    losses: list[float] = []
    fractions: list[float] = []
    params_after: dict[str, Array] = {}
    for i in range(STEPS):
        state, report = reference.train_step(
            plan, state, call["x"], targets, _rate(plan, i), noise, network.rules
        )
        losses.append(report.loss)
        fractions += report.clip_fractions.values()
        if i in (0, STEPS - 1):
            params_after |= by_role(plan, state.params, "first" if i == 0 else "last")
    return {"losses": np.array(losses), **params_after}, fractions


def by_role(plan: Plan, values: Any, prefix: str) -> dict[str, Array]:
    """All values of each role in one vector."""
    roles: dict[str, list[Array]] = {}
    for q in plan.parameters.values():
        flat = np.asarray(values[q.name], np.float64).reshape(-1)
        roles.setdefault(f"{prefix}/{q.role}", []).append(flat)
    return {name: np.concatenate(parts) for name, parts in roles.items()}


def _trained_by_role(case: Case, calls: list[Arrays], outputs: Outputs) -> Outputs:
    """The losses, and the parameters of each role as one output."""
    plan = case_plan(case)
    reduced: dict[str, Any] = {"losses": outputs["losses"]} if "losses" in outputs else {}
    for prefix in ("first", "last"):
        names = {name: f"{prefix}/{name}" for name in plan.parameters}
        if set(names.values()) <= set(outputs):
            reduced |= by_role(plan, {k: outputs[v] for k, v in names.items()}, prefix)
    return reduced


def _expect_training(network: Network, case: Case, calls: list[Arrays]) -> Expected:
    """Nothing is right of a network whose operations differ from those of any plan, as they have no
    derivatives."""
    if network.params or network.change:
        return Expected({})
    params = weights(case.spec, True, case.seed)
    fractions: list[float] = []

    def run(noise: Rounding | None) -> dict[str, Array]:
        outputs, of_run = _trajectory(network, params, calls[0], noise)
        if noise is None:
            fractions.extend(of_run)
        return outputs

    outputs = network.within(run, case, SAMPLES, elementwise=frozenset({"losses"}))
    some = any(0.0 < fraction < 1.0 for fraction in fractions)
    return Expected(outputs, frozenset({"clipped and not, in one tensor"} if some else ()))


TRAIN_01 = Property(
    id="TRAIN-01",
    tier=3,
    title="training, ten steps of the reduced network: losses and parameters",
    request="train",
    method="train",
    cases=network("TRAIN-01", True),
    calls=_batch,
    expect=as_asked(_expect_training),
    of_network=_expect_training,
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
    gradients = reference.loss_and_gradients(plan, state.params, call["x"], targets)
    return {
        f"{kind}/{name}": np.asarray(value, np.float32)
        for kind, values in (
            ("parameter", state.params),
            ("momentum", state.momentum),
            ("gradient", gradients.of_parameters),
        )
        for name, value in values.items()
    }


def _expect_step(network: Network, case: Case, calls: list[Arrays]) -> Expected:
    """The parameters and the momentum after a step."""
    plan, rules = network.plan, network.rules or clip_rules(network.plan)
    a = wide(calls[0])
    assert plan.recipe is not None
    outputs = {}
    met = set()
    for name, rule in rules.items():
        gradient, parameter = a[f"gradient/{name}"], a[f"parameter/{name}"]
        after = clip_bounds.step(
            gradient,
            parameter,
            a[f"momentum/{name}"],
            rule,
            _rate(plan, DONE),
            plan.recipe.decay_of(plan.parameters[name].role),
            plan.recipe,
        )
        for kind, (value, terms) in after.items():
            outputs[f"{kind}/{name}"] = Expectation(value, terms)
        _, _, clipped = clip_bounds.clip(gradient, parameter, rule, MODES["f32"])
        if clipped.any() and not clipped.all():
            met.add("clipped and not, in one tensor")
    return Expected(outputs, frozenset(met))


STEP_01 = Property(
    id="STEP-01",
    tier=4,
    title="one step of the optimizer, from the reference's state",
    request="step",
    method="step",
    cases=network("STEP-01", True),
    calls=lambda case: [_state(case.spec, case)],
    sent=True,
    expect=as_asked(_expect_step),
    of_network=_expect_step,
    modes=("f32",),
    must=lambda cases: frozenset({"clipped and not, in one tensor"}),
    draws=False,
)

PROPERTIES = (TRAIN_01, STEP_01)
