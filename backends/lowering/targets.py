"""The devices that programs are made for: TPUs by their topology, this machine's CPU, and GPUs of
NVIDIA, for which programs are not compiled here."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nfspec.cost.accelerators import ACCELERATORS, Accelerator
from nfspec.errors import BackendError, InputError, suggest
from nfspec.wording import reason_of

TPUS = ("v3", "v4", "v5e", "v5p", "v6e")
CPU = "cpu"
CUDA = "cuda"
# libtpu asks the cloud which machine it is on, and complains on stderr where there is none.
NO_MACHINE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
LIBTPU = 'pip install "jax[tpu]"'


@dataclass(frozen=True)
class Target:
    """A kind of device, and how many of them, that a program is compiled for.

    Attributes:
        name: Its name on the command line, such as `tpu-v5e:2x2`.
        topology: Name of the topology that the TPU's compiler knows; empty for others.
    """

    name: str
    topology: str = ""

    @property
    def platform(self) -> str:
        return "tpu" if self.topology else self.name

    @property
    def compiles(self) -> bool:
        """True if a compiler for it is there without a device."""
        return self.name != CUDA

    @property
    def accelerator(self) -> Accelerator | None:
        """Its published figures, where `nfspec cost` has them."""
        return ACCELERATORS.get(self.name.partition(":")[0])

    def devices(self) -> Sequence[Any]:
        """Descriptions of the devices, or a device of this machine in their place.

        Raises:
            BackendError: The TPU's compiler is not installed.
            InputError: It knows no such topology.
        """
        if not self.topology:
            import jax

            return jax.devices(CPU)[:1]
        if importlib.util.find_spec("libtpu") is None:
            raise BackendError(
                f"{self.name}: the compiler of TPUs, libtpu, is not installed; {LIBTPU} installs "
                "it, on a machine without a TPU, too"
            )
        for name, value in NO_MACHINE.items():
            os.environ.setdefault(name, value)
        from jax.experimental import topologies

        try:
            described = topologies.get_topology_desc(platform="tpu", topology_name=self.topology)
        except Exception as error:  # jaxlib raises its own class, of the same base as all others
            reason = reason_of(error)
            raise InputError(
                f"target: {self.name} is no topology that the TPU's compiler knows ({reason}); "
                "expected one such as tpu-v5e:2x2 or tpu-v4:2x2x1"
            ) from None
        return described.devices


def target_of(name: str) -> Target:
    """The target of a name: `cpu`, `cuda`, or `tpu-KIND:TOPOLOGY`.

    Raises:
        InputError: There is none of that name.
    """
    if name in (CPU, CUDA):
        return Target(name)
    kind, _, sides = name.removeprefix("tpu-").partition(":")
    whole = all(side.isdigit() and int(side) for side in sides.split("x")) and bool(sides)
    if not name.startswith("tpu-") or kind not in TPUS or not whole:
        known = [f"tpu-{each}" for each in TPUS]
        near = suggest(name.partition(":")[0], (*known, CPU, CUDA))
        raise InputError(
            f"target: expected cpu, cuda, or one of {', '.join(known)} with a topology, such as "
            f"tpu-v5e:2x2; found {name!r}{near}"
        )
    return Target(name, f"{kind}:{sides}")
