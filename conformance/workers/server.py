"""The process of a worker: it runs one subject on one device in one mode, and answers requests.

`nfspec.conformance.workers.process` starts it, as a module, and speaks with it over a pipe. It
answers each request of `nfspec.conformance.workers.requests`, or sends a `Failure`.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, assert_never

from nfspec import weights
from nfspec.compilation import compile
from nfspec.conformance import subjects
from nfspec.conformance.cases.case import DRAWN, Arrays, Case, digest
from nfspec.conformance.cases.weights import params_digest, trial_params
from nfspec.conformance.faults import NO_FAULT, Fault, fault_named
from nfspec.conformance.properties import PROPERTIES, Property
from nfspec.conformance.properties.base import Work
from nfspec.conformance.properties.folding import WAYS, folded_weights
from nfspec.conformance.properties.network_drops import shown
from nfspec.conformance.properties.networks import case_plan, case_weights
from nfspec.conformance.properties.training import DONE, steps_of
from nfspec.conformance.subjects import loading
from nfspec.conformance.workers import frameworks
from nfspec.conformance.workers.process import COMPILED_FOR
from nfspec.conformance.workers.requests import (
    BuildRequest,
    CaseRequest,
    FactsRequest,
    Failure,
    FailureKind,
    ForwardRequest,
    Request,
)
from nfspec.errors import BackendError, InputError
from nfspec.language.spec import Spec
from nfspec.plan.resolver import resolve
from nfspec.rewrites.folding import fold

Outputs = dict[str, Any]
MAX_FUNCTIONS = 256  # compiled functions kept


def _compiling(subject: str, framework: str, target: str) -> Any:
    """Compiles JAX's programs for a target from now on; None without one."""
    if not target:
        return None
    if framework != "jax":
        raise BackendError(f"{subject}: programs of jax alone can be compiled for a TPU")
    from nfspec.conformance.workers.compiling import Compiling

    return Compiling(target)


class Server:
    """A subject, and what is kept between requests: compiled functions, and the last model built.

    Args:
        subject: A name that `nfspec.conformance.subjects` knows.
        mode: Mode of the arithmetic.
    """

    def __init__(self, subject: str, mode: str):
        made = loading.load(subject)
        self.compiling = _compiling(subject, made.framework, os.environ.get(COMPILED_FOR, ""))
        self.framework = frameworks.load(made.framework)
        self.framework.set_mode(mode)
        self.subject = loading.in_mode(made, mode, subject)
        self.name: Any = made.framework
        self.fault = NO_FAULT
        self.forward: Callable[[Any], dict[str, Any]] | None = None
        self._functions: dict[Any, Callable[..., Any]] = {}

    def answer(self, request: Request) -> Any:
        """The reply to a request."""
        match request:
            case FactsRequest():
                return self._facts()
            case CaseRequest():
                return self._case(request)
            case BuildRequest():
                return self._build(request)
            case ForwardRequest():
                return self._evaluate(request)
            case _:
                assert_never(request)

    def _facts(self) -> dict[str, Any]:
        """Versions, device and switches of this process, and the methods that the subject lacks."""
        package = getattr(self.subject, "package", "")
        unknown = subjects.unknown_methods(self.subject)
        return {
            **frameworks.facts(self.name, package),
            **({"compiled_for": self.compiling.target.name} if self.compiling else {}),
            "switches": self.framework.switches(),
            **({"unknown_methods": unknown} if unknown else {}),
            "lacking": subjects.lacking(self.subject),
        }

    def _case(self, request: CaseRequest) -> dict[str, Any]:
        """The outputs of a case, and by which case, arrays and process they were computed."""
        case = request.case
        asked = PROPERTIES[case.property]
        self._inject(fault_named(request.fault))
        calls = asked.calls(case) if request.arrays is None else request.arrays
        reply = {"inputs": digest(calls), "case": case.id, "pid": os.getpid()}
        calls = [self.fault.arrays(case.op, call) for call in calls]
        before = self._calls
        with self.fault.patch():
            reply["outputs"] = WORK[asked.request](self, asked, case, calls)
        reply["programs"] = self._calls - before
        return self.fault.reply(reply)

    @property
    def _calls(self) -> int:
        """Number of calls of programs that were compiled for another device, so far."""
        return self.compiling.calls if self.compiling else 0

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
                raise InputError(f"{case.spec}: this spec has changed since the case was made")
        return plan

    def _call(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        function = self._compiled(asked, case, self.framework.compiled)
        values = [function(*call.values()) for call in calls]
        if len(values) == 1:
            return {"y": values[0]}
        return {f"y{i}": y for i, y in enumerate(values)}

    def _vjp(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        function = self._compiled(asked, case, self.framework.gradient)
        (call,) = calls
        names = [name for name in call if name != "dy"]
        return dict(zip(names, function(*call.values()), strict=True))

    def _twice(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        function = self._compiled(asked, case, self.framework.compiled)
        first = function(calls[0]["gradient"], calls[0]["parameter"])
        return {"y0": first, "y1": function(first, calls[0]["parameter"])}

    def _params(self, case: Case, plan: Any) -> Arrays:
        everything = case_weights(case)
        return self.fault.params({name: everything[name] for name in plan.parameters})

    def _network_params(self, case: Case) -> Arrays:
        plan, whole = self._plan(case), case_weights(case)
        return self.fault.network_params(plan, {name: whole[name] for name in plan.parameters})

    def _network(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        function = self._compiled(asked, case, self.framework.compiled)
        params = self._network_params(case)
        of_calls = [function(call["x"], params) for call in calls]
        if len(of_calls) == 1:
            return dict(of_calls[0])
        return {f"{i}/{tap}": y for i, taps in enumerate(of_calls) for tap, y in taps.items()}

    def _block(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        function = self._compiled(asked, case, self.framework.compiled)
        return {"block": function(calls[0]["x"], self._network_params(case))}

    def _drop(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        """Outputs of a layer that drops: two calls in each of two replicas, and one in inference.

        The layer is made anew, so that its draws depend on the case alone.
        """
        make = self._method(asked)
        op, x = self.fault.op(case.op), calls[0]["x"]
        replicas = [make(op, case.seed, replica) for replica in range(2)]
        steps = [(i, step) for step in range(2) for i in range(2)]
        trained = {f"{i}/{step}": replicas[i](x, True) for i, step in steps}
        return {**trained, "inference": replicas[0](x, False)}

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
        logits = {"before": forward(x)}
        for way, params in zip(WAYS, others, strict=True):
            if way in change:
                forward(x)  # uses the old weights once more, so that all copies of them exist
                change[way](fold(plan, params).params)
                logits[way] = forward(x)
        return logits

    def _train(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        plan, (call,) = self.fault.plan(self._plan(case)), calls
        params = self._params(case, plan)
        return self._method(asked)(plan, params, call["x"], call["labels"], steps_of(case))

    def _step(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        plan, (call,) = self.fault.plan(self._plan(case)), calls
        parts = [
            {name: call[f"{kind}/{name}"] for name in plan.parameters}
            for kind in ("parameter", "momentum", "gradient")
        ]
        return self._method(asked)(plan, *parts, DONE)

    def _weights(self, asked: Property, case: Case, calls: list[Arrays]) -> Outputs:
        """Weights that a model is made with, or those that went into a model, out of it, into a
        file, and from there into another model and out of it."""
        through = self._method(asked)
        plan = self._plan(case)
        if case.regime == DRAWN:
            return {f"init/{name}": value for name, value in through(plan, None).items()}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "weights.safetensors")
            weights.save(path, plan, through(plan, self._params(case, plan)))
            again = through(plan, weights.load(path, plan))
        return {f"file/{name}": value for name, value in again.items()}

    def _build(self, request: BuildRequest) -> dict[str, Any]:
        """Build a model; its time, and digests of its weights and of its spec."""
        from nfspec.backends.running import forward_function

        spec = Spec.model_validate(request.spec)
        plan = resolve(spec)
        stored = request.weights
        params = weights.load(stored, plan) if stored else trial_params(plan, request.seed)
        start = time.perf_counter()
        model = compile(spec, self.name, params, taps=True)
        seconds = time.perf_counter() - start
        self.forward = forward_function(model)
        return {"seconds": seconds, "params": params_digest(params), "spec": plan.digest}

    def _evaluate(self, request: ForwardRequest) -> dict[str, Any]:
        """The model's taps, and the time of the first evaluation and of each repetition."""
        assert self.forward is not None
        seconds = []
        for _ in range(1 + request.repeats):
            start = time.perf_counter()
            taps = self.forward(request.images)
            seconds.append(time.perf_counter() - start)
        return {"taps": taps, "first": seconds[0], "seconds": seconds[1:]}


# The method that does the work of each kind of property.
WORK: dict[Work, Callable[[Server, Property, Case, list[Arrays]], Outputs]] = {
    "call": Server._call,
    "vjp": Server._vjp,
    "twice": Server._twice,
    "network": Server._network,
    "block": Server._block,
    "drop": Server._drop,
    "ways": Server._ways,
    "folded": Server._folded,
    "train": Server._train,
    "step": Server._step,
    "weights": Server._weights,
}


def _kind(error: Exception) -> FailureKind:
    match error:
        case subjects.NoMethod():
            return "no method"
        case subjects.NotOffered():
            return "not offered"
        case BackendError():
            return "missing"
        case _:
            return "error"


def _failure(subject: str, error: Exception) -> Failure:
    """A failure as the parent reports it; all but errors made for people have a traceback."""
    short = isinstance(error, InputError | BackendError | subjects.NotOffered)
    text = str(error) if short else traceback.format_exc().rstrip()
    named = text.startswith(f"{subject}: ")
    return Failure(_kind(error), text if named else f"{subject}: {text}")


def _started(subject: str, mode: str) -> Server | Failure:
    try:
        return Server(subject, mode)
    except InputError as error:
        return Failure("unusable", str(error))
    except Exception as error:  # whatever a framework or a subject raises as it starts
        return _failure(subject, error)


def main(descriptor: int, subject: str, mode: str) -> None:
    """Answer requests until the parent closes the pipe.

    The parent first sends the folders that it imports from. Those that this process lacks come
    last, so that nothing there stands in for a framework.
    """
    # Frameworks print to stdout, which belongs to the parent's own output.
    os.dup2(2, 1)
    pipe = Connection(descriptor)
    sys.path.extend(folder for folder in pipe.recv() if folder not in sys.path)
    server = _started(subject, mode)
    gc.freeze()  # what was imported stays, and need not be searched again and again
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        if isinstance(server, Failure):
            pipe.send(server)
            continue
        try:
            reply = server.answer(request)
        except Exception as error:  # whatever went wrong belongs to this request
            reply = _failure(subject, error)
        pipe.send(reply)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
