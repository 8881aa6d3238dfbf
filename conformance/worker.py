"""The child's side: one process for each framework, answering requests over an inherited pipe.

Started by `nfspec.conformance.pool`. A request is a dict with an `op` of the table below; the reply
a dict with `result`, or with `error`, the traceback as text.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from nfspec import weights
from nfspec.compilation import compile, select
from nfspec.conformance.trial import params_digest, trial_params
from nfspec.resolver import resolve
from nfspec.spec import Spec


class Session:
    """What a worker remembers between requests: the model built last."""

    def __init__(self, backend: Any):
        select(backend)
        from nfspec.backends.running import full_float32

        full_float32()
        self.backend = backend
        self.forward: Callable[[Any], dict[str, Any]] | None = None

    def facts(self) -> dict[str, str]:
        from nfspec.backends.running import facts

        return facts()

    def build(self, spec: dict[str, Any], seed: int, path: str | None) -> dict[str, Any]:
        """Build a model with taps from a spec's fields and seeded or stored weights."""
        from nfspec.backends.running import forward_function

        network = Spec.model_validate(spec)
        plan = resolve(network)
        params = weights.load(path, plan) if path else trial_params(plan, seed)
        start = time.perf_counter()
        model = compile(network, self.backend, params, taps=True)
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


def main(descriptor: int, backend: str) -> None:
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
            session = session or Session(backend)
            operations: dict[str, Callable[..., Any]] = {
                "facts": session.facts,
                "build": session.build,
                "run": session.run,
            }
            reply = {"result": operations[request.pop("op")](**request)}
        except Exception:  # whatever went wrong belongs to this request, and is shown with it
            reply = {"error": traceback.format_exc()}
        pipe.send(reply)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
