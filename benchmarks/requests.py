"""The requests that a contestant's process answers, and its answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nfspec.benchmarks.works import Setup


@dataclass(frozen=True)
class Prepare:
    """Asks to make a piece of work ready, and to do it once.

    Attributes:
        make: A name of `worker.MAKERS`.
        setup: The network and its input.
        options: Keyword arguments of the maker.
    """

    make: str
    setup: Setup
    options: dict[str, Any]


@dataclass(frozen=True)
class Repeat:
    """Asks to do the work that is ready so many times."""

    runs: int


@dataclass(frozen=True)
class Build:
    """Asks to build a model with newly drawn weights.

    Attributes:
        setup: The network; it has no images.
        backend: Framework that Keras runs on.
    """

    setup: Setup
    backend: str


@dataclass(frozen=True)
class Facts:
    """Asks for versions and the device."""


@dataclass(frozen=True)
class Profile:
    """Asks to do the work that is ready so many times under the framework's profiler."""

    runs: int


Request = Prepare | Repeat | Build | Facts | Profile


@dataclass(frozen=True)
class Answer:
    """Times of a request, or an error.

    Attributes:
        error: Why there are no times; None if there are.
        first: Seconds of the first time that the work was done, for `Prepare`.
        seconds: Seconds of each time, for `Repeat` and `Build`.
        memory: For `Build`, the growth of memory at its peak, in units of the weights' bytes; None
            where the system does not tell.
        peak: For `Repeat`, bytes of the device's memory at the peak since the work was made ready;
            None where the framework does not tell.
        out_of_memory: True if the error is that the device has no memory left.
        facts: For `Facts`, versions and the device.
        kernels: For `Profile`, milliseconds and launches of each kernel in one run.
    """

    error: str | None = None
    first: float | None = None
    seconds: list[float] = field(default_factory=list)
    memory: float | None = None
    peak: int | None = None
    out_of_memory: bool = False
    facts: dict[str, str] = field(default_factory=dict)
    kernels: dict[str, tuple[float, float]] = field(default_factory=dict)
