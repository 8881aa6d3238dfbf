"""Operations, specs and plans under other conventions than a spec states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from nfspec.conformance.cases.case import Case, Clip, local_names
from nfspec.conformance.cases.reduction import reduced_plan
from nfspec.conformance.conventions.defects import Defect, defects
from nfspec.conformance.properties.base import Array
from nfspec.conformance.properties.networks import Network, block_plan
from nfspec.errors import SpecError
from nfspec.language.spec import Spec
from nfspec.plan import (
    ECA,
    Activation,
    Conv,
    Dense,
    Dropout,
    GlobalPool,
    Operation,
    Plan,
    Pool,
    Residual,
    SqueezeExcite,
    StochasticDepth,
    WSConv,
    unknown_operation,
)
from nfspec.plan.activations import DEEPMIND_GAMMA
from nfspec.plan.arithmetic import gamma_of
from nfspec.plan.clipping import ClipRule, clip_rules
from nfspec.plan.resolver import resolve

# Dotted name in the language to value, and the part of the computation to a `Defect`.
Fields = dict[str, Any]
IMAGE = (1, 64, 64, 1)  # a shape that every window fits into


def altered_op(op: Operation | Clip, fields: Fields, spec: Spec) -> Operation | Clip:
    """An operation, or a `Clip`, under other conventions, and then with the defects among them.

    Args:
        op: The operation as the spec has it.
        fields: The conventions that differ.
        spec: The spec, for the conventions that do not.
    """
    changes = _changes(op, fields, spec)
    other = replace(op, **{name: value for name, value in changes.items() if value is not None})
    for defect in defects(fields):
        other = defect.alter(other)
    return other


def altered_values(op: Operation | Clip, fields: Fields, values: Mapping[str, Any]) -> Fields:
    """The arrays of an operation, by local name, as defects change them."""
    changed = dict(values)
    for defect in defects(fields):
        changed = {name: defect.value(op, name, value) for name, value in changed.items()}
    return changed


def _changes(op: Operation | Clip, fields: Fields, spec: Spec) -> Fields:
    """Fields of an operation to their values; None for one that stays."""
    get = fields.get
    match op:
        case WSConv():
            return _conv_changes(op, fields, spec)
        case Activation():
            return _activation_changes(op, fields)
        case Pool():
            # The padding of an average is the same in every dialect.
            return {"padding": get("conv.padding")} if op.kind == "max" else {}
        case SqueezeExcite():
            activation, gamma = get("se.activation", op.activation), op.gamma
            rule = get("se.gamma", spec.se.gamma)
            if "se.gamma" in fields or (activation != op.activation and isinstance(rule, str)):
                gamma = gamma_of(rule, activation, op.slope)
            return {"gain": get("attention.gain"), "activation": activation, "gamma": gamma}
        case ECA():
            return {"gain": get("attention.gain")}
        case Clip():
            return {"unit": get("agc.unit"), "eps": get("agc.eps")}
        case StochasticDepth():
            return {"rescale": get("stochastic_depth.rescale")}
        case Residual() | GlobalPool() | Dense() | Dropout() | Conv():
            return {}  # no convention is about it
        case _:
            raise unknown_operation(op, "conventions")


def _conv_changes(op: WSConv, fields: Fields, spec: Spec) -> Fields:
    get, activation = fields.get, spec.activation
    gamma = op.gamma
    at = get("activation.gamma_at", "weight" if gamma != 1.0 else "activation")
    if at == "activation":
        gamma = 1.0
    elif gamma == 1.0 or "activation.gamma" in fields:
        rule = get("activation.gamma", activation.gamma)
        gamma = gamma_of(rule, activation.kind, activation.slope)
    return {
        "eps_rule": get("ws.eps_rule"),
        "eps": get("ws.eps"),
        "ddof": get("ws.ddof"),
        "dtype": get("ws.dtype"),
        "padding": get("conv.padding"),
        "gamma": gamma,
    }


def _activation_changes(op: Activation, fields: Fields) -> Fields:
    get = fields.get
    kind = get("activation.kind", op.kind) if op.kind.startswith("gelu") else op.kind
    slope = get("activation.slope", op.slope) if kind == "leaky_relu" else op.slope
    gamma = op.gamma
    if get("activation.gamma_at") == "weight":
        gamma = 1.0
    elif get("activation.gamma_at") == "activation" and gamma == 1.0:
        gamma = DEEPMIND_GAMMA[kind]
    if gamma != 1.0 and "activation.gamma" in fields:
        gamma = gamma_of(fields["activation.gamma"], kind, slope)
    beta_at = get("activation.beta_at")
    return {"kind": kind, "slope": slope, "gamma": gamma, "beta_at": beta_at}


def altered_spec(spec: Spec, fields: Fields) -> Spec:
    """A spec with fields changed; GELUs alone become another GELU."""
    data = spec.model_dump(by_alias=True)
    for name, value in fields.items():
        table, _, key = name.partition(".")
        if isinstance(value, Defect) or not data[table]:
            continue  # no field, or one of a table that the spec lacks
        if name != "activation.kind" or data[table][key].startswith("gelu"):
            data[table][key] = value
    return Spec.model_validate(data)


def altered_plan(case: Case, fields: Fields, spec: Spec) -> Plan | None:
    """The plan of a case under other conventions; None if there is no such network."""
    try:
        other = altered_spec(spec, fields)
        plan = reduced_plan(other, case.drops) if case.reduced else resolve(other)
    except SpecError:
        return None
    for defect in defects(fields):
        plan = defect.plan(replace(plan, ops=tuple(map(defect.alter, plan.ops))))
    return block_plan(plan, case.block) if case.block else plan


def altered_params(plan: Plan, params: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    """Parameters of a plan, or of a part of it, by canonical name, as defects change them."""
    changed = dict(params)
    for defect in defects(fields):
        for op in plan.ops:
            for local, name in local_names(op).items():
                if name in changed:
                    changed[name] = defect.value(op, local, changed[name])
    return changed


def altered_rules(
    rules: Mapping[str, ClipRule], shapes: Mapping[str, tuple[int, ...]], fields: Fields
) -> dict[str, ClipRule]:
    """The rules of clipping of parameters, by canonical name, as defects change them."""
    changed = dict(rules)
    for defect in defects(fields):
        changed = {name: defect.rule(shapes[name], rule) for name, rule in changed.items()}
    return changed


def times(op: Any, shape: tuple[int, ...], fields: Fields) -> Any:
    """The factor of each element of an operation's output that defects make, given the shape of
    its input; None for none."""
    factor = None
    for defect in defects(fields):
        own = defect.times(op, shape)
        factor = own if factor is None else factor if own is None else factor * own
    return factor


def altered_network(case: Case, fields: Fields, spec: Spec) -> Network | None:
    """The network of a case under other conventions; None if there is none."""
    plan = altered_plan(case, fields, spec)
    if plan is None:
        return None
    shapes = {name: parameter.shape for name, parameter in plan.parameters.items()}
    rules = altered_rules(clip_rules(plan), shapes, fields)
    nothing = {name: np.zeros(()) for name in shapes}
    changed = altered_params(plan, nothing, fields)

    def change(op: Operation, x: Array, out: Array) -> Array:
        factor = times(op, x.shape, fields)
        return out if factor is None else factor * out

    return Network(
        plan,
        rules=rules,
        params=(
            None
            if all(changed[name] is value for name, value in nothing.items())
            else lambda params: altered_params(plan, params, fields)
        ),
        change=change if any(times(op, IMAGE, fields) is not None for op in plan.ops) else None,
    )
