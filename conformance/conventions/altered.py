"""Operations, specs and plans under other conventions than a spec states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nfspec.conformance.cases.case import Case, Clip
from nfspec.conformance.cases.reduction import reduced_plan
from nfspec.conformance.properties.networks import block_plan
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
from nfspec.plan.resolver import resolve

Fields = dict[str, Any]  # dotted name in the language to value


def altered_op(op: Operation | Clip, fields: Fields, spec: Spec) -> Operation | Clip:
    """An operation, or a `Clip`, under other conventions.

    Args:
        op: The operation as the spec has it.
        fields: The conventions that differ.
        spec: The spec, for the conventions that do not.
    """
    changes = _changes(op, fields, spec)
    return replace(op, **{name: value for name, value in changes.items() if value is not None})


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
            if "se.gamma" in fields:
                gamma = gamma_of(fields["se.gamma"], activation, op.slope)
            return {"gain": get("attention.gain"), "activation": activation, "gamma": gamma}
        case ECA():
            return {"gain": get("attention.gain")}
        case Clip():
            return {"unit": get("agc.unit"), "eps": get("agc.eps")}
        case Residual() | GlobalPool() | Dense() | StochasticDepth() | Dropout() | Conv():
            return {}  # no convention is about it
        case _:
            raise unknown_operation(op, "conventions")


def _conv_changes(op: WSConv, fields: Fields, spec: Spec) -> Fields:
    get, activation = fields.get, spec.activation
    gammas = {
        "activation": 1.0,
        "weight": gamma_of(activation.gamma, activation.kind, activation.slope),
    }
    return {
        "eps_rule": get("ws.eps_rule"),
        # An eps that no spec can have is a probe's own, chosen for its rule.
        "eps": get("ws.eps") if op.eps <= 1.0 else None,
        "ddof": get("ws.ddof"),
        "padding": get("conv.padding"),
        "gamma": gammas.get(get("activation.gamma_at", "")),
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
        if name != "activation.kind" or data[table][key].startswith("gelu"):
            data[table][key] = value
    return Spec.model_validate(data)


def altered_plan(case: Case, fields: Fields, spec: Spec) -> Plan | None:
    """The plan of a case under other conventions; None if there is no such network."""
    try:
        other = altered_spec(spec, fields)
        plan = reduced_plan(other) if case.reduced else resolve(other)
    except SpecError:
        return None
    return block_plan(plan, case.block) if case.block else plan
