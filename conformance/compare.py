"""The main job: one network on several frameworks, tap by tap against the float64 reference.

A tap's distance is the relative L2 norm of its difference from the reference. Its bound is three
times the distance that float32 rounding gives a correct implementation, sampled by running the
reference with every operation perturbed (`nfspec.reference.rounding`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nfspec import reference, weights
from nfspec.compilation import missing
from nfspec.conformance.cases.weights import params_digest, trial_params
from nfspec.conformance.workers.pool import Worker, WorkerError
from nfspec.errors import NfspecError
from nfspec.language.spec import Spec
from nfspec.plan.free_memory import require_free_memory, require_free_memory_for_images
from nfspec.plan.resolver import resolve
from nfspec.reference.rounding import Rounding

SAMPLES = 3  # perturbed runs
SIGMAS = 3.0

Progress = Callable[[str], None]


@dataclass
class Run:
    """One framework's part: distances by tap, seconds, facts; or why there are none."""

    backend: str
    problem: str = ""  # empty: it ran
    installed: bool = True
    distance: dict[str, float] = field(default_factory=dict)
    build_seconds: float = 0.0
    first_seconds: float = 0.0
    forward_seconds: float = 0.0  # the best of three
    facts: dict[str, str] = field(default_factory=dict)


@dataclass
class Comparison:
    """What `compare` found.

    Attributes:
        bound: Tap to the largest distance that rounding explains.
        runs: One for each framework asked for.
        reference_seconds: Time of the exact float64 run.
    """

    taps: tuple[str, ...]
    bound: dict[str, float]
    runs: tuple[Run, ...]
    reference_seconds: float

    @property
    def ran(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if not run.problem)

    def beyond(self, run: Run) -> tuple[str, ...]:
        """The taps at which a framework is further away than rounding explains, in order."""
        return tuple(tap for tap in self.taps if not run.distance[tap] <= self.bound[tap])

    @property
    def same(self) -> bool:
        """Whether at least one framework ran, none failed, and every tap is within its bound."""
        failed = any(run.problem and run.installed for run in self.runs)
        return bool(self.ran) and not failed and not any(self.beyond(run) for run in self.ran)


def distance(found: NDArray[np.floating], exact: NDArray[np.float64]) -> float:
    """Relative L2 norm of a difference; infinite where shapes differ or a value is not finite."""
    if found.shape != exact.shape or not np.isfinite(found).all():
        return float("inf")
    norm = float(np.linalg.norm(exact))
    gap = float(np.linalg.norm(found.astype(np.float64) - exact))
    return gap / norm if norm else (0.0 if gap == 0.0 else float("inf"))


def compare(
    spec: Spec,
    images: NDArray[np.float32],
    backends: tuple[str, ...],
    *,
    seed: int = 0,
    weights_path: str | None = None,
    progress: Progress = lambda message: None,
) -> Comparison:
    """Run a network on each framework, in a process of its own, and on the reference.

    Args:
        spec: The network.
        images: (N, H, W, channels), float32.
        backends: Frameworks; those not installed are reported and left out.
        seed: Seed of the weights, where no file is given.
        weights_path: A safetensors file of canonical names.
        progress: Told what is being done.
    """
    plan = resolve(spec)
    require_free_memory(plan, "compare the frameworks with", 1 + len(backends))
    require_free_memory_for_images(plan, images.shape)
    runs = {backend: Run(backend) for backend in backends}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for backend, run in runs.items():
            if (message := missing(backend)) is not None:
                run.problem, run.installed = message, False
                continue
            workers[backend] = stack.enter_context(Worker(backend))
            workers[backend].send("facts")  # imports the framework while the reference runs
        progress("weights")
        params = weights.load(weights_path, plan) if weights_path else trial_params(plan, seed)
        progress("float64 reference")
        start = time.perf_counter()
        exact = reference.forward(plan, params, images)
        reference_seconds = time.perf_counter() - start
        squares = dict.fromkeys(exact, 0.0)
        for sample in range(SAMPLES):
            progress(f"reference with float32 rounding, {sample + 1} of {SAMPLES}")
            rounded = reference.forward(plan, params, images, rounding=Rounding(sample))
            for tap, value in rounded.items():
                squares[tap] += distance(value, exact[tap]) ** 2
        bound = {tap: SIGMAS * float(np.sqrt(square / SAMPLES)) for tap, square in squares.items()}
        fields = spec.model_dump(by_alias=True)
        digest = params_digest(params)
        for backend, worker in workers.items():
            run = runs[backend]
            try:
                run.facts = worker.receive()
                progress(f"{backend}: building")
                built = worker.ask("build", spec=fields, seed=seed, path=weights_path)
                if (built["params"], built["spec"]) != (digest, plan.digest):
                    raise WorkerError(f"{backend}: built other weights or another spec than asked")
                run.build_seconds = built["seconds"]
                progress(f"{backend}: forward pass")
                ran = worker.ask("run", x=images, repeats=3)
            except NfspecError as error:
                run.problem = str(error)
                continue
            run.first_seconds, run.forward_seconds = ran["first"], min(ran["seconds"])
            run.distance = {tap: distance(ran["taps"][tap], exact[tap]) for tap in exact}
    return Comparison(tuple(exact), bound, tuple(runs.values()), reference_seconds)
