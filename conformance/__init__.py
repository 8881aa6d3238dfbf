"""Proof that implementations run the same network: cases, bounds, workers, faults, reports.

    results = conform(Settings("nfnet-f0", subjects=("torch",)), "reports")
    print(results.verdict)
    check(MyPort, "nfnet-f0")  # raises an AssertionError if MyPort is not conformant

The kit imports the core and, in a worker's process, `backends`. Its rooms import each other in this
order: `cases`, `subjects`, `bounds`, `properties`, `faults`, `workers`, `running`, `report`,
`conventions`. `runs` makes complete runs of them, `checking` makes one that raises, `compare` runs
one network on a photograph.

A name of this module is imported when it is first used (PEP 562), as a worker's process needs none.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from nfspec.errors import BackendError

if TYPE_CHECKING:
    from nfspec.conformance.cases.results import Results
    from nfspec.conformance.checking import check
    from nfspec.conformance.running.settings import Settings
    from nfspec.conformance.runs import conform, seed_faults

__all__ = ["Results", "Settings", "check", "conform", "seed_faults"]

_HOMES = {
    "Results": "cases.results",
    "Settings": "running.settings",
    "check": "checking",
    "conform": "runs",
    "seed_faults": "runs",
}
# An extra, as frameworks are.
PACKAGES = ("cloudpickle", "hypothesis", "jinja2", "packaging", "threadpoolctl")


def __getattr__(name: str) -> Any:
    if name == "subjects":
        return importlib.import_module(f"{__name__}.subjects")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    absent = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if absent:
        raise BackendError(
            f"conform: {', '.join(absent)} not installed; run: pip install {' '.join(absent)}"
        )
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
