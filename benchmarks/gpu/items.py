"""The measurements of a GPU, in the order in which a person wants to know them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfspec.benchmarks.gpu.proofs import Proof
from nfspec.benchmarks.gpu.running import Item
from nfspec.benchmarks.gpu.sweeps import Sweep
from nfspec.benchmarks.works import Contestant, Setup, contestants

WORKS = {"step": "training step", "forward": "forward pass"}
# Packages that a contestant takes beside its framework, by whose work it is.
NEEDS = {
    "ours": ("keras",),
    "optax": ("keras", "optax"),
    "timm": ("timm",),
    "sources": ("jinja2", "ruff"),
    "peaks": (),
}
SECONDS = {"jax": 100.0, "tensorflow": 100.0, "torch": 40.0}  # of a sweep: most of it compilation
COMPILED = 90.0
KIT = ("keras", "hypothesis", "packaging", "threadpoolctl")


@dataclass(frozen=True)
class Scale:
    """The sizes of everything.

    Attributes:
        variant: The network.
        spec: The spec of the conformance run.
        sides: Sides of images, px.
        batches: Numbers of images; the last is one that no device has the memory for.
        modes: Modes of the conformance run.
        precisions: Modes of what is timed.
        matmul: Rows of the matrices that are multiplied.
        copied: Bytes of the array that is copied.
        profiled: Images in the step whose kernels are listed.
    """

    variant: str
    spec: str
    sides: tuple[int, ...]
    batches: tuple[int, ...]
    modes: tuple[str, ...]
    precisions: tuple[str, ...]
    matmul: int
    copied: int
    profiled: int


SCALES = {
    "gpu": Scale(
        variant="nfnet-f0",
        spec="timm/test_nfnet",
        sides=(192, 256),
        batches=tuple(2**n for n in range(6, 14)),
        modes=("f32", "tf32", "bf16"),
        precisions=("bf16", "tf32"),
        matmul=8192,
        copied=2**31,
        profiled=64,
    ),
    # The same, small, to try it where there is no GPU.
    "cpu": Scale(
        variant="timm/test_nfnet",
        spec="timm/test_nfnet",
        sides=(32, 48),
        batches=(1, 2),
        modes=("f32", "bf16"),
        precisions=("bf16", "f32"),
        matmul=512,
        copied=2**24,
        profiled=2,
    ),
}


def _steps() -> Iterator[Contestant]:
    last, both = {"channels_last": True}, {"channels_last": True, "compiled": True}
    yield Contestant("timm", "torch", "timm:step")
    yield Contestant("torch", "torch", "ours:step", "timm")
    yield Contestant("timm channels_last", "torch", "timm:step", "timm", last)
    yield Contestant("timm compiled", "torch", "timm:step", "timm", both)
    yield Contestant("torch source compiled", "torch", "sources:torch_step", "timm compiled", both)
    yield Contestant("jax plain, optax", "jax", "optax:step")
    yield Contestant("jax", "jax", "ours:step", "jax plain, optax")
    yield Contestant("jax source", "jax", "sources:jax_step", "jax plain, optax")
    yield Contestant("tensorflow", "tensorflow", "ours:step")


def _forwards() -> Iterator[Contestant]:
    last, both = {"channels_last": True}, {"channels_last": True, "compiled": True}
    folded = {"folded": True}
    yield Contestant("timm", "torch", "timm:forward")
    yield Contestant("torch folded", "torch", "ours:forward", "timm", folded)
    yield Contestant("timm channels_last", "torch", "timm:forward", "timm", last)
    yield Contestant("timm compiled", "torch", "timm:forward", "timm", both)
    name = "torch source folded compiled"
    yield Contestant(name, "torch", "sources:torch", "timm compiled", {**folded, **both})
    yield Contestant("jax plain", "jax", "ours:forward", None, {"plain": True})
    yield Contestant("jax folded", "jax", "ours:forward", "jax plain", folded)
    yield Contestant("tensorflow folded", "tensorflow", "ours:forward", None, folded)


CONTESTANTS = {"step": _steps, "forward": _forwards}


@dataclass(frozen=True)
class Made:
    """Makes the items of a machine.

    Attributes:
        scale: How large everything is.
        device: cpu or gpu.
        backends: Frameworks that see the device.
        packages: Other packages that are installed.
        folder: Folder of the results.
    """

    scale: Scale
    device: str
    backends: Collection[str]
    packages: Collection[str]
    folder: Path

    def items(self) -> list[Item]:
        """All items, the first to be measured first."""
        first, *others = self.scale.sides
        narrow, *wider = self.scale.precisions
        return [
            *self._proofs(),
            *self._peaks(),
            *self._sweeps("step", first, narrow),
            *self._sweeps("forward", first, narrow),
            *self._clipping(),
            *self._profiles(first, narrow),
            *(i for side in others for work in WORKS for i in self._sweeps(work, side, narrow)),
            *(
                item
                for precision in wider
                for side in self.scale.sides
                for work in WORKS
                for item in self._sweeps(work, side, precision)
            ),
        ]

    def lacks(self, contestant: Contestant) -> list[str]:
        """The packages that a contestant needs and that are not there."""
        whose = contestant.make.partition(":")[0]
        needed = NEEDS[whose] + (("optax",) if contestant.make == "sources:jax_step" else ())
        there = {*self.backends, *self.packages}
        return [name for name in (contestant.backend, *needed) if name not in there]

    def _proofs(self) -> Iterator[Item]:
        if any(name not in self.packages for name in KIT) or not self.backends:
            return
        proof = Proof(
            self.scale.spec,
            tuple(self.backends),
            self.device,
            self.scale.modes,
            self.folder / "conformance",
        )
        modes = ", ".join(self.scale.modes)
        title = f"every property of {self.scale.spec} in {modes}"
        yield Item("conformance", title, 120.0, proof.properties)
        yield Item("faults", "faults of narrow arithmetic", 45.0, proof.faults)

    def _sweep(
        self,
        name: str,
        title: str,
        contestant: Contestant,
        side: int,
        precision: str,
        batches: tuple[int, ...],
        profile: bool = False,
    ) -> Iterator[Item]:
        if self.lacks(contestant):
            return
        setup = Setup(self.scale.variant, batches[0], side, precision=precision)
        sweep = Sweep(contestant, setup, batches, self.device, profile)
        slug = "-".join(contestant.name.replace(",", "").split())
        seconds = COMPILED if contestant.options.get("compiled") else SECONDS[contestant.backend]
        yield Item(f"{name}-{slug}", f"{title}: {contestant.name}", seconds, sweep.measure)

    def _sweeps(self, work: str, side: int, precision: str) -> Iterator[Item]:
        for contestant in CONTESTANTS[work]():
            yield from self._sweep(
                f"{work}-{side}-{precision}",
                f"{WORKS[work]}, {side} px, {precision}",
                contestant,
                side,
                precision,
                self.scale.batches,
            )

    def _peaks(self) -> Iterator[Item]:
        backend = next((name for name in ("torch", "jax") if name in self.backends), "torch")
        rates = {precision: {"side": self.scale.matmul} for precision in self.scale.precisions}
        for precision, options in rates.items():
            contestant = Contestant("matmul", backend, "peaks:matmul", None, options)
            title = f"product of matrices, {precision}"
            yield from self._sweep(f"peak-{precision}", title, contestant, 1, precision, (1,))
        contestant = Contestant("copy", backend, "peaks:copy", None, {"size": self.scale.copied})
        yield from self._sweep("peak", "copy", contestant, 1, "f32", (1,))

    def _clipping(self) -> Iterator[Item]:
        for work in ("agc", "optimizer"):
            for contestant in contestants(work, tuple(self.backends), ("timm", "optax")):
                yield from self._sweep(work, work, contestant, self.scale.sides[0], "f32", (1,))

    def _profiles(self, side: int, precision: str) -> Iterator[Item]:
        wanted = {"torch", "timm channels_last", "torch source compiled", "jax", "jax plain, optax"}
        for contestant in CONTESTANTS["step"]():
            if contestant.name in wanted:
                title, batches = f"kernels of a step, {precision}", (self.scale.profiled,)
                yield from self._sweep(
                    "kernels", title, contestant, side, precision, batches, profile=True
                )


def left_out(made: Made) -> Mapping[str, Any]:
    """Contestants that lack a package, and which."""
    everyone = {c.name: c for work in CONTESTANTS.values() for c in work()}
    return {name: lacks for name, c in everyone.items() if (lacks := made.lacks(c))}
