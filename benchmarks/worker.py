"""A contestant's process: told by lines of JSON what to do, answers by lines of JSON.

{"make": "ours:forward", "setup": {…}, "options": {…}} makes the work ready and does it once;
{"runs": 2} does it so often and gives the seconds of each; {"build": {…}} builds a model.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from nfspec.benchmarks.works import Setup


def peak() -> int:
    """The most memory that this process had so far, bytes."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * (1 if sys.platform == "darwin" else 1024)


def _now() -> int:
    """Memory that this process has, bytes."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _build(variant: str, backend: str) -> dict[str, float]:
    """Build a model with weights drawn anew: seconds, and by how much memory grew at most."""
    import nfspec

    spec = nfspec.load(variant)
    nfspec.compile(nfspec.load("timm/test_nfnet"), backend)  # type: ignore[arg-type]  # imports
    before, start = _now(), time.perf_counter()
    model = nfspec.compile(spec, backend)  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    weights = 4 * sum(p.size for p in nfspec.resolve(spec).parameters.values())
    assert len(model.trainable_variables) > 0
    return {"seconds": seconds, "memory": max(0, peak() - before) / weights}


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
