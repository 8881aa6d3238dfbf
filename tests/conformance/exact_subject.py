"""What a subject replies that computes in float64 and rounds once, at the end."""

import numpy as np

from nfspec import plan as p
from nfspec import reference
from nfspec.conformance.cases.precision import narrow
from nfspec.conformance.properties.base import wide
from nfspec.conformance.properties.drops import DRAWS
from nfspec.conformance.properties.networks import case_plan, weights
from nfspec.reference import derivatives, training
from nfspec.reference import operations as ops


def forward(op, x, *values):
    """One operation on its inputs and parameters."""
    match op:
        case p.WSConv():
            kernel = ops.standardise(op, *values[:2])
            return ops.conv(x, kernel, op.stride, op.groups, op.padding) + values[2]
        case p.Activation():
            return ops.activation(op, x)
        case p.Pool():
            return ops.pool(op, x)
        case p.SqueezeExcite():
            return ops.squeeze_excite(op, x, *values)
        case p.ECA():
            return ops.eca(op, x, *values)
        case p.Residual():
            shortcut, *gain = values
            return op.alpha * (gain[0] if gain else 1.0) * x + shortcut
        case p.GlobalPool():
            return x.mean(axis=(1, 2))
        case p.Dense():
            return x @ values[0] + values[1]
    # A clip: of a gradient, given the parameter.
    return training.clip(x, values[0], op.rule)[0]


def backward(op, dy, x, *values):
    dinputs, dvalues = derivatives.vjp(op, dy, [x], list(values))
    return [*dinputs, *dvalues]


def _call(case, calls):
    found = [forward(case.op, *call.values()) for call in calls]
    return {"y": found[0]} if len(found) == 1 else {f"y{i}": y for i, y in enumerate(found)}


def _pull(case, calls):
    (call,) = calls
    return dict(zip(list(call)[1:], backward(case.op, *call.values()), strict=True))


def _twice(case, calls):
    (call,) = calls
    first = narrow(forward(case.op, *call.values()), "f32").astype(np.float64)
    return {"y0": first, "y1": forward(case.op, first, call["parameter"])}


def _network(case, calls):
    plan = case_plan(case)
    whole = weights(case.spec, case.reduced, case.seed)
    params = {name: whole[name] for name in plan.parameters}
    found = [reference.forward(plan, params, call["x"]) for call in calls]
    if len(found) == 1:
        return found[0]
    return {f"{i}/{tap}": y for i, taps in enumerate(found) for tap, y in taps.items()}


def _drop(case, calls):
    """By NumPy's generator, of one stream for each replica and step."""
    x, op = calls[0]["x"], case.op
    whole = isinstance(op, p.StochasticDepth)
    shape = (len(x), *(1 for _ in x.shape[1:])) if whole else x.shape
    factor = 1.0 / (1.0 - op.rate) if getattr(op, "rescale", True) else 1.0
    found = {
        name: np.where(case.rng(f"drawn {name}").random(shape) < op.rate, 0.0, factor * x)
        for name in DRAWS
    }
    return {**found, "inference": x}


REQUESTS = {
    "drop": _drop,
    "call": _call,
    "pull": _pull,
    "twice": _twice,
    "network": _network,
    "block": _network,
}


# What is narrow on its way in: of a conv the images alone, as weights are standardised in float32.
NARROW = {"ws_conv": ("x",), "agc": (), "global_pool": (), "dense": (), "dropout": ()}


def _entering(asked, mode, call):
    names = NARROW.get(asked.method, tuple(call))
    return {name: narrow(value, mode) if name in names else value for name, value in call.items()}


def reply(asked, case, calls):
    """Outputs by name, as float32: rounded to what the mode stores, but for the head's."""
    found = REQUESTS[asked.request](
        case, [wide(_entering(asked, case.mode, call)) for call in calls]
    )
    stored = "f32" if asked.method in ("global_pool", "dense", "dropout") else case.mode
    return {name: narrow(value, stored) for name, value in found.items()}
