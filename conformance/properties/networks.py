"""Tiers 2 to 4: blocks, whole networks, training runs, single steps, and weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from nfspec import reference
from nfspec.clipping import clip_rules
from nfspec.conformance.bounds import clipping as clip_bounds
from nfspec.conformance.bounds.bands import bands
from nfspec.conformance.case import Arrays, Case
from nfspec.conformance.precision import MODES
from nfspec.conformance.properties.base import (
    FULL_MODES,
    Array,
    Expectation,
    Expected,
    Outputs,
    Property,
    wide,
)
from nfspec.conformance.reduction import CLASSES, IMAGES, RATE_STEPS, SIDE
from nfspec.conformance.target import Target, plan_of
from nfspec.conformance.trial import trial_params
from nfspec.initialise import init
from nfspec.plan import INPUT, Block, Plan
from nfspec.reference import TrainingState, training
from nfspec.reference.rounding import Rounding

SAMPLES = 3  # perturbed runs of blocks and networks, whose rms is over many elements
TRAINING_SAMPLES = 10
STEPS = 10
NETWORK_SIDE = 64  # px of the whole network's images


def case_plan(case: Case) -> Plan:
    """The plan a case is about: a network, whole or cut, or one of its blocks."""
    plan = plan_of(case.spec, case.reduced)
    return block_plan(plan, case.block) if case.block else plan


def block_plan(plan: Plan, name: str) -> Plan:
    """A block as a plan of its own, which reads the image in place of the block before it."""
    row = next(row for row in plan.blocks if row.name == name)
    own = {op.name: op for op in plan.ops if plan.section(op) == name}
    ops = tuple(
        replace(op, inputs=tuple(at if at in own else INPUT for at in op.inputs))
        for op in own.values()
    )
    return replace(
        plan,
        channels=row.in_channels,
        ops=ops,
        taps=MappingProxyType({"block": plan.taps[name]}),
        blocks=(row,),
    )


@lru_cache(maxsize=2)
def weights(source: str, reduced: bool, seed: int) -> Arrays:
    """Trial weights of a network, every gain and bias away from its initial value."""
    return trial_params(plan_of(source, reduced), seed)


def _photographs(case: Case, count: int, side: int) -> np.ndarray[Any, Any]:
    plan = plan_of(case.spec, case.reduced)
    return case.rng("x").standard_normal((count, side, side, plan.channels)).astype(np.float32)


@lru_cache(maxsize=2)
def _block_inputs(source: str, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """What each block of a whole network reads, in float32, on images drawn from the seed."""
    plan = plan_of(source, False)
    case = Case("BLOCK-01", seed=seed, spec=source)
    x = _photographs(case, 2, NETWORK_SIDE)
    first = next(op.inputs[0] for op in plan.ops if plan.section(op) == plan.blocks[0].name)
    before = [first, *(plan.taps[row.name] for row in plan.blocks[:-1])]
    taps = {row.name: at for row, at in zip(plan.blocks, before, strict=True)}
    found = reference.forward(plan, weights(source, False, seed), x, taps)
    return {name: value.astype(np.float32) for name, value in found.items()}


def _distinct(plan: Plan) -> Iterable[Block]:
    """The first block of each shape; two that differ in beta alone are one, but for the first two
    of a stage, whose betas come from different rules."""
    seen: dict[Block, Block] = {}
    for row in plan.blocks:
        key = replace(
            row, name="", index=min(row.index, 1), beta=0.0, expected_variance=0.0,
            drop_rate=0.0, residual="",
        )  # fmt: skip
        seen.setdefault(key, row)
    return seen.values()


def _block_cases(target: Target) -> list[Case]:
    return [
        Case("BLOCK-01", spec=target.source, digest=target.spec.digest, block=row.name)
        for row in _distinct(target.plan)
    ]


def _rms(exact: dict[str, Array], band: dict[str, Array]) -> dict[str, Expectation]:
    return {
        name: Expectation(value, {"rounding": band[name]}, rms=True)
        for name, value in exact.items()
    }


def _expect_forward(case: Case, calls: list[Arrays]) -> Expected:
    plan, x = case_plan(case), calls[0]["x"]
    params = weights(case.spec, case.reduced, case.seed)
    exact = reference.forward(plan, params, x)

    def run(noise: Rounding) -> dict[str, Array]:
        return reference.forward(plan, params, x, rounding=noise)

    band = bands(run, exact, MODES[case.mode], SAMPLES)
    return Expected(_rms(exact, band), optional=frozenset(exact))


BLOCK_01 = Property(
    id="BLOCK-01",
    tier=2,
    title="block, fed with the reference's input",
    request="block",
    method="block",
    cases=_block_cases,
    calls=lambda case: [{"x": _block_inputs(case.spec, case.seed)[case.block]}],
    sent=True,
    expect=_expect_forward,
    draws=False,
)


def _network(property_id: str, reduced: bool) -> Any:
    return lambda target: [
        Case(property_id, spec=target.source, digest=target.spec.digest, reduced=reduced)
    ]


NET_01 = Property(
    id="NET-01",
    tier=3,
    title="network: stem, blocks, pool and logits",
    request="network",
    method="forward",
    cases=_network("NET-01", False),
    calls=lambda case: [{"x": _photographs(case, 2, NETWORK_SIDE)}],
    expect=_expect_forward,
    draws=False,
)


NET_03 = Property(
    id="NET-03",
    tier=3,
    title="network cut to a few narrow blocks: stem, blocks, pool and logits",
    request="network",
    method="forward",
    cases=_network("NET-03", True),
    calls=lambda case: [{"x": _photographs(case, 2, NETWORK_SIDE)}],
    expect=_expect_forward,
    draws=False,
)


def _alone(case: Case) -> list[Arrays]:
    x = _photographs(case, 4, SIDE)
    return [{"x": x}, *({"x": x[i : i + 1]} for i in range(len(x)))]


def _apart(case: Case, calls: list[Arrays], found: Outputs) -> Outputs:
    names = [f"{i}/logits" for i in range(len(calls))]
    if not set(names) <= set(found):
        return {}
    together, *alone = (found[name].astype(np.float64) for name in names)
    return {"difference": np.concatenate(alone) - together}


def _expect_alone(case: Case, calls: list[Arrays]) -> Expected:
    wanted = _expect_forward(case, calls[:1]).outputs["logits"]
    terms = {"together and alone": 2.0 * wanted.terms["rounding"]}
    return Expected({"difference": Expectation(np.zeros(wanted.value.shape), terms, rms=True)})


NET_02 = Property(
    id="NET-02",
    tier=3,
    title="network: an image's logits do not depend on its batch",
    request="network",
    method="forward",
    cases=_network("NET-02", True),
    calls=_alone,
    expect=_expect_alone,
    reduce=_apart,
    draws=False,
)


def _batch(case: Case) -> list[Arrays]:
    labels = case.rng("labels").integers(0, CLASSES, IMAGES)
    return [
        {
            "x": _photographs(case, IMAGES, SIDE),
            "labels": np.eye(CLASSES, dtype=np.float32)[labels],
        }
    ]


def _rate(plan: Plan, step: int) -> float:
    assert plan.recipe is not None
    recipe = plan.recipe
    return training.learning_rate(
        step, recipe.learning_rate, RATE_STEPS, 0.0, recipe.final_learning_rate
    )


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
    agc = plan.agc.model_copy(update={"clipping": off(plan.agc.clipping)})
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
        TRAINING_SAMPLES,
        elementwise=frozenset({"losses"}),
    )
    outputs = _rms({k: v for k, v in exact.items() if k != "losses"}, band)
    outputs["losses"] = Expectation(exact["losses"], {"rounding": band["losses"]})
    some = any(0.0 < fraction < 1.0 for fraction in fractions)
    return Expected(outputs, frozenset({"clipped and not, in one tensor"} if some else ()))


TRAIN_01 = Property(
    id="TRAIN-01",
    tier=3,
    title="training, ten steps of the cut network: losses and parameters",
    request="train",
    method="train",
    cases=_network("TRAIN-01", True),
    calls=_batch,
    expect=_expect_training,
    modes=FULL_MODES,
    must=lambda cases: frozenset({"clipped and not, in one tensor"}),
    reduce=_trained_by_role,
    draws=False,
)

DONE = 3  # steps before the one that is tested


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
    cases=_network("STEP-01", True),
    calls=lambda case: [_state(case.spec, case)],
    sent=True,
    expect=_expect_step,
    modes=("f32",),
    must=lambda cases: frozenset({"clipped and not, in one tensor"}),
    draws=False,
)


def _expect_weights(case: Case, calls: list[Arrays]) -> Expected:
    """The bits of every parameter: as drawn, and through a model, a file and another model."""
    plan = case_plan(case)
    wanted = {f"file/{k}": v for k, v in weights(case.spec, True, case.seed).items()}
    wanted |= {f"init/{k}": v for k, v in init(plan).items()}
    return Expected({k: Expectation(v.astype(np.float64)) for k, v in wanted.items()})


WEIGHTS_01 = Property(
    id="WEIGHTS-01",
    tier=4,
    title="weights: the same bits from a seed, and through a model, a file and a model",
    request="weights",
    method="weights",
    cases=_network("WEIGHTS-01", True),
    calls=lambda case: [{}],
    expect=_expect_weights,
    modes=("f32",),
    draws=False,
)

PROPERTIES = (BLOCK_01, NET_03, NET_02, NET_01, TRAIN_01, STEP_01, WEIGHTS_01)
