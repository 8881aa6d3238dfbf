"""Kinds of properties and cases, by the ways in which they are judged under other conventions."""

from __future__ import annotations

import numpy as np

from nfspec.conformance.cases.case import Arrays, Case, Clip
from nfspec.conformance.properties import PROPERTIES, Property
from nfspec.conformance.properties.layers import conv_output_shape
from nfspec.conformance.properties.networks import NET_01, NET_03, case_plan
from nfspec.conformance.properties.training import STEP_01
from nfspec.plan import Pool, WSConv
from nfspec.plan.counting import output_side

NEAR_EPS = 1e-3  # of eps: there the gradient under the rule `max` is discontinuous


def value_of(asked: Property) -> Property:
    """The property that judges the values of the operation, or network, that a property is about.

    That of a network is the reduced one's, as that is the one that is trained and folded.
    """
    if follows(asked):
        return NET_03
    return next(
        (
            p
            for p in PROPERTIES.values()
            if p.method == asked.method and p.tier == 1 and p.request == "call"
        ),
        asked,
    )


def of_networks(asked: Property) -> bool:
    """True if a property compares a block or a network with the reference, tap by tap."""
    return asked.of_network is NET_01.of_network


def of_steps(asked: Property) -> bool:
    """True if a property is about one step of the optimizer."""
    return asked.of_network is STEP_01.of_network


def follows(asked: Property) -> bool:
    """True if a property is about a network that is trained, folded or asked in several batches: it
    follows from conventions that other properties show better."""
    return asked.of_network is not None and not of_networks(asked) and not of_steps(asked)


def parameters(case: Case) -> int:
    """The number of parameters of the block or network of a case; 0 for an operation."""
    return sum(p.size for p in case_plan(case).parameters.values()) if case.spec else 0


def fits(case: Case, calls: list[Arrays]) -> bool:
    """True if the gradients' dy has the shape of the output of the operation of a case."""
    dy, op = calls[0].get("dy"), case.op
    if dy is None or isinstance(op, Clip):
        return True
    if isinstance(op, WSConv):
        return dy.shape == conv_output_shape(op, case.shape)
    if isinstance(op, Pool):
        sides = (output_side(n, op.window, op.stride, op.padding) for n in case.shape[1:3])
        return dy.shape[1:3] == tuple(sides)
    return True


def discontinuous(case: Case, calls: list[Arrays]) -> bool:
    """True if a case asks for a conv's gradient where it jumps, so that no answer is wrong."""
    op = case.op
    if "dy" not in calls[0] or not isinstance(op, WSConv) or op.eps_rule != "max":
        return False
    if op.fan_in <= op.ddof:
        return True  # there is no such variance
    n_v = op.fan_in * calls[0]["kernel"].astype(np.float64).var(axis=(0, 1, 2), ddof=op.ddof)
    return bool((np.abs(n_v / op.eps - 1.0) < NEAR_EPS).any())
