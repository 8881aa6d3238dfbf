"""The child's side: one process for each subject, device and mode, answering over a pipe.

Started by `nfspec.conformance.workers.pool`. A request is a dict with an `op` of the table below;
the reply a dict with `result`, or with `error`, the traceback as text, and `kind`, its sort.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from nfspec import weights
from nfspec.compilation import compile
from nfspec.conformance import subjects
from nfspec.conformance.cases.case import Arrays, Case, digest
from nfspec.conformance.cases.weights import params_digest, trial_params
from nfspec.conformance.faults import NO_FAULT, Fault, fault_named
from nfspec.conformance.properties import PROPERTIES, Property
from nfspec.conformance.properties.folding import WAYS, folded_weights
from nfspec.conformance.properties.network_drops import shown
from nfspec.conformance.properties.networks import case_plan
from nfspec.conformance.properties.networks import weights as trial_weights
from nfspec.conformance.properties.training import DONE, STEPS
from nfspec.conformance.workers import frameworks
from nfspec.errors import BackendError, InputError
from nfspec.language.spec import Spec
from nfspec.plan.resolver import resolve
from nfspec.rewrites.folding import fold

Outputs = dict[str, Any]
MAX_FUNCTIONS = 256  # compiled functions kept


class Session:
    """What a worker remembers between requests: compiled functions, and the model built last."""

    def __init__(self, subject: str, mode: str):
        made = subjects.load(subject)
        self.framework = frameworks.load(made.framework)
        self.framework.set_mode(mode)
        self.subject = made(mode)
        self.mode = mode
        self.name: Any = made.framework
        self.fault = NO_FAULT
        self.forward: Callable[[Any], dict[str, Any]] | None = None
        self._functions: dict[Any, Callable[..., Any]] = {}

    def facts(self) -> dict[str, Any]:
        """Versions, device and switches of this process."""
        package = getattr(self.subject, "package", "")
        return {**frameworks.facts(self.name, package), "switches": self.framework.switches()}

    def case(
        self, case: dict[str, Any], fault: str = "", arrays: list[Arrays] | None = None
    ) -> dict[str, Any]:
        """Run a case.

        Args:
            case: Its JSON fields.
            fault: Name of a fault to inject.
            arrays: The case's arrays, where making them takes the reference.
        """
        wanted = Case.parse(case)
        asked = PROPERTIES[wanted.property]
        self._inject(fault_named(fault))
        calls = asked.calls(wanted) if arrays is None else arrays
        reply = {"inputs": digest(calls), "case": wanted.id, "pid": os.getpid()}
        calls = [self.fault.arrays(wanted.op, call) for call in calls]
        with self.fault.patch():
            reply["outputs"] = getattr(self, f"_{asked.request}")(asked, wanted, calls)
        return self.fault.reply(reply)

    def _inject(self, fault: Fault) -> None:
        if fault != self.fault:
            if fault.in_functions or self.fault.in_functions:
                self._functions.clear()
            self.fault = fault

    def _method(self, asked: Property) -> Callable[..., Any]:
        return subjects.method_of(self.subject, asked.method)

    def _compiled(self, asked: Property, case: Case, make: Callable[..., Any]) -> Any:
        """A function of the subject, compiled; the same object for the same description."""
        key = (asked.method, make, case.op, case.spec, case.reduced, case.block)
        if key not in self._functions:
            if len(self._functions) >= MAX_FUNCTIONS:
                self._functions.clear()
            if case.op is not None:
                description: Any = self.fault.op(case.op)
            else:
                description = self.fault.plan(self._plan(case))
            self._functions[key] = make(self._method(asked)(description))
        return self._functions[key]

    def _plan(self, case: Case) -> Any:
        plan = case_plan(case)
        if case.digest:
            whole = case_plan(Case(case.property, spec=case.spec))
            if whole.digest != case.digest:
                raise InputError(f"{case.spec}: not the spec that the case is of; it has changed")
        return plan

    def _call(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        function = self._compiled(asked, case, self.framework.compiled)
        found = [function(*call.values()) for call in calls]
        if len(found) == 1:
            return {"y": found[0]}
        return {f"y{i}": y for i, y in enumerate(found)}

    def _pull(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        function = self._compiled(asked, case, self.framework.gradient)
        (call,) = calls
        names = [name for name in call if name != "dy"]
        return dict(zip(names, function(*call.values()), strict=True))

    def _twice(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        function = self._compiled(asked, case, self.framework.compiled)
        first = function(calls[0]["gradient"], calls[0]["parameter"])
        return {"y0": first, "y1": function(first, calls[0]["parameter"])}

    def _params(self, case: Case, plan: Any) -> Arrays:
        everything = trial_weights(case.spec, case.reduced, case.seed)
        return self.fault.params({name: everything[name] for name in plan.parameters})

    def _network(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        function = self._compiled(asked, case, self.framework.compiled)
        params = self._params(case, self._plan(case))
        found = [function(call["x"], params) for call in calls]
        if len(found) == 1:
            return dict(found[0])
        return {f"{i}/{tap}": y for i, taps in enumerate(found) for tap, y in taps.items()}

    def _block(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        function = self._compiled(asked, case, self.framework.compiled)
        return {"block": function(calls[0]["x"], self._params(case, self._plan(case)))}

    def _drop(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        """Outputs of a layer that drops: of two calls in each of two replicas, and of inference.

        The layer is made anew, so that its draws depend on the case alone.
        """
        make = self._method(asked)
        op, x = self.fault.op(case.op), calls[0]["x"]
        replicas = [make(op, case.seed, replica) for replica in range(2)]
        steps = [(i, step) for step in range(2) for i in range(2)]
        found = {f"{i}/{step}": replicas[i](x, True) for i, step in steps}
        return {**found, "inference": replicas[0](x, False)}

    def _ways(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        """Taps of a network in training, called twice in each way."""
        plan = self.fault.plan(self._plan(case))
        params = shown(plan, self._params(case, plan))
        ways = self._method(asked)(plan, params, case.seed)
        return {
            f"{way}/{call}/{tap}": y
            for way, forward in ways.items()
            for call in range(2)
            for tap, y in forward(calls[0]["x"]).items()
        }

    def _folded(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        """A folded network's logits, and those after each way of changing its weights."""
        plan, x = self._plan(case), calls[0]["x"]
        first, *others = folded_weights(case)
        forward, change = self._method(asked)(plan, first)
        found = {"before": forward(x)}
        for way, params in zip(WAYS, others, strict=True):
            if way in change:
                forward(x)  # uses the old weights once more, so that all copies of them exist
                change[way](fold(plan, params).params)
                found[way] = forward(x)
        return found

    def _train(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        plan, (call,) = self.fault.plan(self._plan(case)), calls
        params = self._params(case, plan)
        return self._method(asked)(plan, params, call["x"], call["labels"], STEPS)

    def _step(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        plan, (call,) = self.fault.plan(self._plan(case)), calls
        parts = [
            {name: call[f"{kind}/{name}"] for name in plan.parameters}
            for kind in ("parameter", "momentum", "gradient")
        ]
        return self._method(asked)(plan, *parts, DONE)

    def _weights(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        """Into a model, out of it, into a file, and from there into another model and out of it."""
        through = self._method(asked)
        plan = self._plan(case)
        first = through(plan, None)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "weights.safetensors")
            weights.save(path, plan, through(plan, self._params(case, plan)))
            again = through(plan, weights.load(path, plan))
        return {
            **{f"init/{name}": value for name, value in first.items()},
            **{f"file/{name}": value for name, value in again.items()},
        }

    def build(self, spec: dict[str, Any], seed: int, path: str | None) -> dict[str, Any]:
        """Build a model with taps from a spec's fields and seeded or stored weights."""
        from nfspec.backends.running import forward_function

        network = Spec.model_validate(spec)
        plan = resolve(network)
        params = weights.load(path, plan) if path else trial_params(plan, seed)
        start = time.perf_counter()
        model = compile(network, self.name, params, taps=True)
        seconds = time.perf_counter() - start
        self.forward = forward_function(model)
        return {"seconds": seconds, "params": params_digest(params), "spec": plan.digest}

    def run(self, x: Any, repeats: int) -> dict[str, Any]:
        """Evaluate the model on images (N, H, W, C); the first call compiles."""
        assert self.forward is not None
        seconds = []
        for _ in range(1 + repeats):
            start = time.perf_counter()
            taps = self.forward(x)
            seconds.append(time.perf_counter() - start)
        return {"taps": taps, "first": seconds[0], "seconds": seconds[1:]}


def _kind(error: Exception) -> str:
    if isinstance(error, subjects.NotOffered):
        return "not offered"
    return "missing" if isinstance(error, BackendError) else "error"


def main(descriptor: int, subject: str, mode: str) -> None:
    # Frameworks print to stdout, which belongs to the parent's own output.
    os.dup2(2, 1)
    pipe = Connection(descriptor)
    session: Session | None = None
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        try:
            started = session is not None
            session = session or Session(subject, mode)
            operations: dict[str, Callable[..., Any]] = {
                "facts": session.facts,
                "case": session.case,
                "build": session.build,
                "run": session.run,
            }
            reply = {"result": operations[request.pop("op")](**request)}
        except Exception as error:  # whatever went wrong belongs to this request
            short = isinstance(error, InputError | BackendError | subjects.NotOffered)
            text = str(error) if short else traceback.format_exc()
            kind = "unusable" if isinstance(error, InputError) and not started else _kind(error)
            reply = {"error": text, "kind": kind}
        pipe.send(reply)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
