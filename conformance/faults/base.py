"""Faults, and functions that make them."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nfspec.conformance.cases.case import Arrays, Clip, local_names
from nfspec.errors import InputError
from nfspec.plan import Activation, Plan, Residual, WSConv


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Fault:
    """One mistake.

    Attributes:
        name: Its name on the command line and in the kill matrix.
        what: The mistake, in a few words.
        first: Properties to try before the others; a hint to save time, not a claim.
        equivalent: Why no property can kill it; empty if one should kill it.
        alone: Reason why no property can kill it in a subject that offers its network and blocks
            alone; empty if one should.
        op: Changes a description (an operation of a plan, or a `Clip`).
        of_plan: Changes a plan, after `op` has changed its operations.
        arrays: Changes a call's arrays, given the description; of a network, the parameters of
            each of its operations.
        params: Changes a network's parameters besides.
        reply: Changes a worker's reply.
        patch: A context in which nfspec's own code is changed.
    """

    name: str
    what: str
    first: tuple[str, ...] = ()
    equivalent: str = ""
    alone: str = ""
    op: Callable[[Any], Any] = _same
    of_plan: Callable[[Plan], Plan] = _same
    arrays: Callable[[Any, Arrays], Arrays] = lambda op, call: call
    params: Callable[[Arrays], Arrays] = _same
    reply: Callable[[dict[str, Any]], dict[str, Any]] = _same
    patch: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext

    @property
    def in_functions(self) -> bool:
        """True if functions compiled with the fault differ from those without it."""
        changed = (self.op, self.of_plan, self.patch)
        return changed != (_same, _same, contextlib.nullcontext)

    def network_params(self, plan: Plan, params: Arrays) -> Arrays:
        """The parameters of a network with the fault in them.

        Args:
            plan: The network, without the fault.
            params: Its parameters.
        """
        changed = dict(self.params(params))
        for op in plan.ops:
            names = local_names(op)
            call = {local: changed[name] for local, name in names.items()}
            changed |= {names[local]: value for local, value in self.arrays(op, call).items()}
        return changed

    def plan(self, plan: Plan) -> Plan:
        """A plan with the fault in it."""
        changed = replace(plan, ops=tuple(map(self.op, plan.ops)))
        return self.of_plan(changed)


NO_FAULT = Fault("", "")
# Reasons why a network's outputs do not show a fault.
IN_GRADIENTS = "only in gradients"
IN_TRAINING = "only in training"
SUBJECT_IS_PLAIN = "nfspec.conformance.subjects.nfspec:Nfspec.plain"


def training_alone(*faults: Fault) -> tuple[Fault, ...]:
    """Faults of training, which a network's outputs do not show unless a fault says otherwise."""
    return tuple(replace(fault, alone=fault.alone or IN_TRAINING) for fault in faults)


def of_kind(kind: type[Any], /, **changes: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A change of fields of descriptions of one kind, each computed from the description."""

    def change(op: Any) -> Any:
        if not isinstance(op, kind):
            return op
        return replace(op, **{name: value(op) for name, value in changes.items()})

    return change


def of_arrays(
    kind: type[Any], change: Callable[[Any, Arrays], dict[str, Any]]
) -> Callable[[Any, Arrays], Arrays]:
    """A change of some of the arrays that descriptions of one kind are called with."""

    def changed(op: Any, call: Arrays) -> Arrays:
        if not isinstance(op, kind):
            return call
        new = {
            name: np.array(value, np.float32, order="C") for name, value in change(op, call).items()
        }
        return {**call, **new}

    return changed


def of_params(suffix: str, change: Callable[[Any], Any]) -> Callable[[Arrays], Arrays]:
    """A change of the parameters whose names end so."""

    def changed(params: Arrays) -> Arrays:
        return {
            name: np.array(change(value), np.float32) if name.endswith(suffix) else value
            for name, value in params.items()
        }

    return changed


@contextlib.contextmanager
def _replaced(where: str, make: Callable[[Any], Any]) -> Iterator[None]:
    module, _, path = where.partition(":")
    *owners, name = path.split(".")
    owner = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original = getattr(owner, name)
    setattr(owner, name, make(original))
    try:
        yield
    finally:
        setattr(owner, name, original)


def patched(where: str, make: Callable[[Any], Any]) -> Callable[[], Any]:
    """A context in which `module:attribute` is what `make` makes of the original.

    While it lasts nfspec's own subjects use the plain kernels, which are the ones that it patches.
    """

    @contextlib.contextmanager
    def context() -> Iterator[None]:
        with _replaced(SUBJECT_IS_PLAIN, lambda _: True), _replaced(where, make):
            yield

    return context


def parametric(name: str) -> Fault:
    """A fault of a size, named such as `gain+1e-05`: a parameter times 1 + 1e-05.

    Args:
        name: `gain` (of WS convs), `lambda` (of AGC), `gamma` (of activations) or `alpha`, and the
            size with its sign.

    Raises:
        InputError: No such parameter or size.
    """
    parameter = name.rstrip("0123456789.e+-")
    try:
        factor = 1.0 + float(name.removeprefix(parameter))
        changes = PARAMETRIC[parameter](factor)
    except (KeyError, ValueError):
        sizes = ", ".join(f"{known}+1e-05" for known in PARAMETRIC)
        raise InputError(f'no fault "{name}"; expected one by name, or such as {sizes}') from None
    return Fault(name, f"{parameter} times {factor!r}", **changes)


PARAMETRIC: dict[str, Callable[[float], dict[str, Any]]] = {
    # The product is rounded to float32 once more: by half of 1.2e-7 at most.
    "gain": lambda factor: {
        "arrays": of_arrays(WSConv, lambda op, call: {"gain": factor * np.float64(call["gain"])})
    },
    "lambda": lambda factor: {"op": of_kind(Clip, clipping=lambda op: op.clipping * factor)},
    "gamma": lambda factor: {"op": of_kind(Activation, gamma=lambda op: op.gamma * factor)},
    "alpha": lambda factor: {"op": of_kind(Residual, alpha=lambda op: op.alpha * factor)},
}
