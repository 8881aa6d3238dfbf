"""A contestant's process: told by lines of JSON what to do, answers by lines of JSON.

{"make": "ours:forward", "setup": {…}, "options": {…}} makes the work ready and does it once;
{"runs": 2} does it so often and gives the seconds of each; {"build": {…}} builds a model.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from nfspec.benchmarks.works import Setup

STATUS = Path("/proc/self/status")


def memory(field: str) -> int:
    """Memory of this process, bytes: `VmRSS` now, `VmHWM` at its peak.

    Not `ru_maxrss`, which on Linux a process has from the one that started it.
    """
    lines = STATUS.read_text(encoding="ascii").splitlines()
    (kilobytes,) = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return 1024 * int(kilobytes)


def forget_peak() -> None:
    """Let `VmHWM` start again from what there is now."""
    with contextlib.suppress(OSError):  # a system that does not allow it
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _build(variant: str, backend: str) -> dict[str, float]:
    """Build a model with weights drawn anew: seconds, and, where the system tells, by how much
    memory grew at most."""
    from nfspec import compilation
    from nfspec.language.loader import load
    from nfspec.plan.resolver import resolve

    spec = load(variant)
    compilation.compile(load("timm/test_nfnet"), backend)  # type: ignore[arg-type]  # imports
    told = STATUS.exists()
    forget_peak()
    before, start = memory("VmRSS") if told else 0, time.perf_counter()
    model = compilation.compile(spec, backend)  # type: ignore[arg-type]
    found = {"seconds": time.perf_counter() - start}
    assert len(model.trainable_variables) > 0
    if told:
        weights = 4 * sum(p.size for p in resolve(spec).parameters.values())
        found["memory"] = max(0, memory("VmHWM") - before) / weights
    return found


def _answer(line: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    if "build" in line:
        return _build(**line["build"])
    if "runs" in line:
        seconds = []
        for _ in range(line["runs"]):
            start = time.perf_counter()
            state["work"]()
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds}
    module, _, name = line["make"].partition(":")
    make = getattr(importlib.import_module(f"nfspec.benchmarks.{module}"), name)
    state["work"] = make(Setup(**line["setup"]), **line["options"])
    start = time.perf_counter()
    state["work"]()
    return {"first": time.perf_counter() - start}


def main() -> None:
    """Serve until the input ends. Whatever frameworks print goes to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends this process
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    state: dict[str, Any] = {}
    for text in sys.stdin:
        try:
            answer = _answer(json.loads(text), state)
        except Exception as error:  # whatever a framework raises is this contestant's result
            said = str(error).strip() or type(error).__name__
            answer = {"error": f"{type(error).__name__}: {said.splitlines()[0]}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
