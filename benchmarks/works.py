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
    """

    variant: str
    batch: int
    size: int


WORKS = {
    "forward": "forward pass in inference, float32",
    "forward-bf16": "forward pass in inference, bfloat16, one image",
    "step": "training step: loss, gradients, AGC, SGD with Nesterov momentum",
    "agc": "AGC alone, every gradient clipped",
    "optimizer": "AGC and SGD, without gradients",
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


CONTESTANTS: dict[str, Callable[[Collection[str], Collection[str]], Iterator[Contestant]]] = {
    "forward": _forward,
    "forward-bf16": _forward_bf16,
    "step": _step,
    "agc": _agc,
    "optimizer": partial(_on_torch, "optimizer"),
}


def contestants(work: str, backends: Collection[str], against: Collection[str]) -> list[Contestant]:
    """The contestants of a piece of work, peers first.

    Args:
        work: A key of `WORKS`.
        backends: Frameworks to run nfspec on.
        against: `timm`, `optax`.
    """
    return list(CONTESTANTS[work](backends, against))
