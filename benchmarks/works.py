"""Which work is measured, who does it, and whom each is compared with."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Contestant:
    """One way to do a piece of work.

    Attributes:
        name: In tables.
        backend: Framework that Keras runs on in its process.
        make: `module:function` within `nfspec.benchmarks`. The function takes a `Setup` and the
            options, and returns what is timed: a function without arguments.
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
        batch: Images.
        size: Their side, px.
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


def _forward(backend: str, peer: str | None) -> list[Contestant]:
    make = "ours:forward"
    return [
        Contestant(f"{backend} folded", backend, make, peer, {"folded": True}),
        Contestant(backend, backend, make, peer),
    ]


def _plain(backend: str, peer: str | None) -> Contestant:
    return Contestant(f"{backend} plain", backend, "ours:forward", peer, {"plain": True})


def contestants(work: str, backends: Collection[str], against: Collection[str]) -> list[Contestant]:
    """Who does a piece of work, peers first.

    Args:
        work: A key of `WORKS`.
        backends: Frameworks to run nfspec on.
        against: `timm`, `optax`.
    """
    timm = "timm" if "timm" in against else None
    theirs = f"timm:{work.partition('-')[0]}"
    found: list[Contestant] = []
    if work == "forward":
        if timm:
            found.append(Contestant("timm", "torch", theirs))
            how: dict[str, Any] = {"channels_last": True}
            found.append(Contestant("timm channels_last", "torch", theirs, timm, how))
        for backend in backends:
            if backend == "jax":
                found += [_plain(backend, None), *_forward(backend, "jax plain")]
            else:
                found += [*_forward(backend, timm), _plain(backend, timm)]
    elif work == "forward-bf16" and "torch" in backends:
        if timm:
            how = {"channels_last": True, "bf16": True}
            found.append(Contestant("timm", "torch", theirs, None, how))
        options = {"folded": True, "dtype": "bfloat16"}
        found.append(Contestant("torch folded", "torch", "ours:forward", timm, options))
    elif work == "step":
        if timm:
            found.append(Contestant("timm", "torch", theirs))
        for backend in backends:
            peer = timm
            if backend == "jax":
                peer = "jax plain, optax" if "optax" in against else None
                if peer:
                    found.append(Contestant(peer, backend, "optax:step"))
            found.append(Contestant(backend, backend, "ours:step", peer))
    elif work in ("agc", "optimizer"):
        if "torch" in backends:
            if timm:
                found.append(Contestant("timm", "torch", theirs))
            found.append(Contestant("torch", "torch", f"ours:{work}", timm))
        if work == "agc" and "jax" in backends:
            peer = "optax" if "optax" in against else None
            if peer:
                found.append(Contestant(peer, "jax", "optax:agc"))
            found.append(Contestant("jax", "jax", "optax:ours", peer))
    return found
