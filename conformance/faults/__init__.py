"""Seeded faults: proof that the properties can fail.

Each is one mistake that a port, or the kit itself, could make. Workers inject them, so that every
framework has the same ones; a run with `--faults` says which property killed each, on each.

They import `cases`, and patch `backends` inside a worker.
"""

from nfspec.conformance.faults.base import NO_FAULT, Fault, parametric
from nfspec.conformance.faults.clipping import CLIPPING
from nfspec.conformance.faults.convs import CONVS
from nfspec.conformance.faults.drops import DROPS
from nfspec.conformance.faults.harness import HARNESS
from nfspec.conformance.faults.networks import NETWORKS

FAULTS: dict[str, Fault] = {
    fault.name: fault for fault in (*CONVS, *NETWORKS, *DROPS, *CLIPPING, *HARNESS)
}


def fault_named(name: str) -> Fault:
    """A fault of the list, or one of a size, such as `gain+1e-05`; none if the name is empty.

    Raises:
        InputError: No such fault.
    """
    if not name:
        return NO_FAULT
    return FAULTS[name] if name in FAULTS else parametric(name)


__all__ = ["FAULTS", "NO_FAULT", "Fault", "fault_named"]
