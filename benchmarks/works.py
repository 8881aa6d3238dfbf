"""The pieces of work that are measured, their contestants, and whom each is compared with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

Work = Callable[[], Any]  # a piece of work, ready to be timed


@dataclass(frozen=True)
class Contestant:
    """One way to do a piece of work.

    Attributes:
        name: Name in tables.
        backend: Framework that Keras runs on in its process.
        make: Name of the function that makes the work ready, such as `ours:forward`: see
            `worker.MAKERS`. It takes a `Setup` and the options.
        peer: Name of the contestant that its time is divided by.
        options: Keyword arguments of `make`.
    """

    name: str
    backend: str
    make: str
    peer: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Setup:
    """The network and its input.

    Attributes:
        variant: Name of a built-in network, or a spec's path.
        batch: Number of images.
        size: Side of the images, px.
        changes: Fields of the spec that are changed, FIELD=VALUE each.
        cores: Number of cores to use, on systems that can limit it; None for all.
        precision: Mode of the arithmetic, f32, tf32 or bf16, in which training keeps its parameters
            in float32; empty for float32 as the framework computes it by itself.
    """

    variant: str
    batch: int
    size: int
    changes: tuple[str, ...] = ()
    cores: int | None = None
    precision: str = ""

    @property
    def narrow(self) -> bool:
        """True if what is multiplied is in bfloat16."""
        return self.precision == "bf16"


RATE = 1e-4  # learning rate, so small that the parameters hardly change

# Frameworks whose files of `nfspec generate` are measured.
SOURCES = {"torch": "PyTorch", "jax": "JAX", "tensorflow": "TensorFlow", "mlx": "MLX"}
READ = 8  # batches that are read in one run, more than are read ahead while others have their turn
WORKS = {
    "forward": "forward pass in inference, float32",
    "forward-bf16": "forward pass in inference, bfloat16, one image",
    "step": "training step: loss, gradients, AGC, SGD with Nesterov momentum",
    "agc": "AGC alone, every gradient clipped",
    "optimizer": "AGC and SGD, without gradients",
    **{
        f"source-{name}": f"generated source on {framework}: forward pass in inference, float32"
        for name, framework in SOURCES.items()
    },
    "decode": f"reading {READ} batches of JPEGs for training",
    "runtimes": "exported files in their runtimes: forward pass, float32",
    "source-compiled": "generated source under torch.compile: forward pass, float32",
    **{
        f"source-step-{name}": f"generated source on {SOURCES[name]}: training step"
        for name in ("torch", "jax")
    },
}


def _ours(backend: str, peer: str | None) -> list[Contestant]:
    make = "ours:forward"
    return [
        Contestant(f"{backend} folded", backend, make, peer, {"folded": True}),
        Contestant(backend, backend, make, peer),
    ]


def _plain(backend: str, peer: str | None) -> Contestant:
    return Contestant(f"{backend} plain", backend, "ours:forward", peer, {"plain": True})


def _forward(backends: Collection[str], against: Collection[str]) -> Iterator[Contestant]:
    timm = "timm" if "timm" in against else None
    if timm:
        yield Contestant("timm", "torch", "timm:forward")
        options = {"channels_last": True}
        yield Contestant("timm channels_last", "torch", "timm:forward", timm, options)
    for backend in backends:
        if backend == "jax":
            yield from (_plain(backend, None), *_ours(backend, "jax plain"))
        else:
            yield from (*_ours(backend, timm), _plain(backend, timm))


def _forward_bf16(backends: Collection[str], against: Collection[str]) -> Iterator[Contestant]:
    timm = "timm" if "timm" in against else None
    if "torch" not in backends:
        return
    if timm:
        options: dict[str, Any] = {"channels_last": True, "bf16": True}
        yield Contestant("timm", "torch", "timm:forward", None, options)
    options = {"folded": True, "dtype": "bfloat16"}
    yield Contestant("torch folded", "torch", "ours:forward", timm, options)


def _step(backends: Collection[str], against: Collection[str]) -> Iterator[Contestant]:
    timm = "timm" if "timm" in against else None
    optax = "jax plain, optax" if "optax" in against else None
    if timm:
        yield Contestant("timm", "torch", "timm:step")
    for backend in backends:
        if backend == "jax" and optax:
            yield Contestant(optax, backend, "optax:step")
        yield Contestant(backend, backend, "ours:step", optax if backend == "jax" else timm)


def _on_torch(
    work: str, backends: Collection[str], against: Collection[str]
) -> Iterator[Contestant]:
    timm = "timm" if "timm" in against else None
    if "torch" not in backends:
        return
    if timm:
        yield Contestant("timm", "torch", f"timm:{work}")
    yield Contestant("torch", "torch", f"ours:{work}", timm)


def _agc(backends: Collection[str], against: Collection[str]) -> Iterator[Contestant]:
    optax = "optax" if "optax" in against else None
    yield from _on_torch("agc", backends, against)
    if "jax" in backends:
        if optax:
            yield Contestant(optax, "jax", "optax:agc")
        yield Contestant("jax", "jax", "optax:ours", optax)


def _source(framework: str, name: str, target: str, peer: str | None) -> Iterator[Contestant]:
    """A file, plain and folded, beside nfspec's own network, plain and folded."""
    for folded in (False, True):
        kind = " folded" if folded else ""
        beside = f"{peer}{kind}" if peer else None
        options = {"folded": True} if folded else {}
        yield Contestant(f"{name}{kind}", framework, f"sources:{target}", beside, options)


def _compiled(backends: Collection[str], against: Collection[str]) -> Iterator[Contestant]:
    """`torch.compile`, which takes a C++ compiler, and minutes."""
    if "torch" not in backends:
        return
    timm = "timm" if "timm" in against else None
    compiled = {"compiled": True}
    if timm:
        yield Contestant("timm", "torch", "timm:forward")
        yield Contestant("timm compiled", "torch", "timm:forward", timm, compiled)
    yield from _ours("torch", timm)
    for folded, peer in ((False, "torch"), (True, "torch folded")):
        name = f"torch source{' folded' if folded else ''} compiled"
        options = {"folded": folded, **compiled}
        yield Contestant(name, "torch", "sources:torch", peer, options)


def _decode(backends: Collection[str], against: Collection[str]) -> Iterator[Contestant]:
    """A worker a core; no framework takes part."""
    peer = "one thread"
    yield Contestant(peer, "torch", "decoding:alone")
    yield Contestant("threads", "torch", "decoding:threads", peer)
    yield Contestant("processes", "torch", "decoding:processes", peer)


def _runtimes(backends: Collection[str], against: Collection[str]) -> Iterator[Contestant]:
    """Runtimes that people choose for CPUs, on nfspec's ONNX; and what they would have without."""
    if "torch" not in backends:
        return
    peer = "onnxruntime"
    yield Contestant(peer, "torch", "exported:onnxruntime")
    yield Contestant("openvino", "torch", "exported:openvino", peer)
    yield Contestant("torch folded", "torch", "ours:forward", peer, {"folded": True})
    if "timm" in against:
        yield Contestant("timm", "torch", "timm:forward", peer)
        yield Contestant("timm's ONNX, onnxruntime", "torch", "exported:timm", peer)


def _sources(
    framework: str, backends: Collection[str], against: Collection[str]
) -> Iterator[Contestant]:
    timm = "timm" if "timm" in against else None
    if framework != "mlx" and framework not in backends:
        return
    if timm:
        yield Contestant("timm", "torch", "timm:forward")
    if framework == "mlx":
        yield from _source("torch", "mlx source", "mlx", None)
        return
    if framework == "jax":
        yield _plain("jax", None)
    yield from _ours(framework, "jax plain" if framework == "jax" else timm)
    for target in {"torch": ("torch",), "jax": ("jax", "flax")}.get(framework, ()):
        yield from _source(framework, f"{target} source", target, framework)
    yield from _source(framework, f"keras source, {framework}", "keras", framework)


def _source_steps(
    framework: str, backends: Collection[str], against: Collection[str]
) -> Iterator[Contestant]:
    if framework not in backends:
        return
    yield from _step((framework,), against)
    yield Contestant(f"{framework} source", framework, f"sources:{framework}_step", framework)


CONTESTANTS: dict[str, Callable[[Collection[str], Collection[str]], Iterator[Contestant]]] = {
    "forward": _forward,
    "forward-bf16": _forward_bf16,
    "step": _step,
    "agc": _agc,
    "optimizer": partial(_on_torch, "optimizer"),
    **{f"source-{name}": partial(_sources, name) for name in SOURCES},
    "decode": _decode,
    "runtimes": _runtimes,
    "source-compiled": _compiled,
    **{f"source-step-{name}": partial(_source_steps, name) for name in ("torch", "jax")},
}


def contestants(work: str, backends: Collection[str], against: Collection[str]) -> list[Contestant]:
    """The contestants of a piece of work, peers first.

    Args:
        work: A key of `WORKS`.
        backends: Frameworks to run nfspec on.
        against: `timm`, `optax`.
    """
    return list(CONTESTANTS[work](backends, against))
