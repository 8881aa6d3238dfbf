"""One network on several frameworks, tap by tap against the float64 reference.

A tap's distance is the relative L2 norm of its difference from the reference. Its bound is three
times the distance that float32 rounding gives a correct implementation, sampled by running the
reference with every operation perturbed (`nfspec.reference.rounding`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nfspec import reference, weights
from nfspec.compilation import missing
from nfspec.conformance.cases.weights import params_digest, trial_params
from nfspec.conformance.workers.process import WorkerError, WorkerProcess
from nfspec.conformance.workers.requests import BuildRequest, FactsRequest, ForwardRequest
from nfspec.errors import NfspecError
from nfspec.language.spec import Spec
from nfspec.plan import Plan
from nfspec.plan.free_memory import require_free_memory, require_free_memory_for_images
from nfspec.plan.initialise import Params
from nfspec.plan.resolver import resolve
from nfspec.reference.rounding import Rounding

SAMPLES = 3  # perturbed runs
SIGMAS = 3.0

Progress = Callable[[str], None]
Images = NDArray[np.float32]
Taps = dict[str, NDArray[np.float64]]


@dataclass
class Run:
    """One framework's part.

    Attributes:
        backend: Name of the framework.
        problem: The reason why it did not run; empty if it ran.
        installed: True if it is installed.
        distance: Tap to its distance from the reference.
        build_seconds, first_seconds: Time to build the model, and of the first forward pass.
        forward_seconds: Time of a forward pass, the best of three.
        facts: Versions and device.
    """

    backend: str
    problem: str = ""
    installed: bool = True
    distance: dict[str, float] = field(default_factory=dict)
    build_seconds: float = 0.0
    first_seconds: float = 0.0
    forward_seconds: float = 0.0
    facts: dict[str, str] = field(default_factory=dict)


ComparisonVerdict = Literal[
    "THE SAME NETWORK",  # at least one framework ran, and every tap is within its bound
    "NOT THE SAME",  # a tap is beyond its bound
    "NOT SHOWN",  # a framework failed, or none ran
]


@dataclass
class Comparison:
    """The frameworks' distances from the reference.

    Attributes:
        taps: Names of the taps, in their order.
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

    @property
    def failed(self) -> tuple[Run, ...]:
        """The frameworks that are installed and did not run."""
        return tuple(run for run in self.runs if run.problem and run.installed)

    def within(self, run: Run, tap: str) -> bool:
        """True if a framework's tap is within its bound."""
        return run.distance[tap] <= self.bound[tap]

    def beyond(self, run: Run) -> tuple[str, ...]:
        """The taps at which a framework is beyond its bound, in order."""
        return tuple(tap for tap in self.taps if not self.within(run, tap))

    @property
    def verdict(self) -> ComparisonVerdict:
        if self.failed or not self.ran:
            return "NOT SHOWN"
        return "NOT THE SAME" if any(map(self.beyond, self.ran)) else "THE SAME NETWORK"

    @property
    def same(self) -> bool:
        return self.verdict == "THE SAME NETWORK"


def distance(value: NDArray[np.floating], exact: NDArray[np.float64]) -> float:
    """Relative L2 norm of a difference; infinite where shapes differ or a value is not finite."""
    if value.shape != exact.shape or not np.isfinite(value).all():
        return float("inf")
    norm = float(np.linalg.norm(exact))
    gap = float(np.linalg.norm(value.astype(np.float64) - exact))
    return gap / norm if norm else (0.0 if gap == 0.0 else float("inf"))


def compare(
    spec: Spec,
    images: Images,
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
        seed: Random seed of the weights, where no file is given.
        weights_path: A safetensors file of canonical names.
        progress: A function that is called with a line for each step.
    """
    plan = resolve(spec)
    require_free_memory(plan, "compare the frameworks with", 1 + len(backends))
    require_free_memory_for_images(plan, images.shape)
    runs = {backend: Run(backend) for backend in backends}
    with ExitStack() as stack:
        processes: dict[str, WorkerProcess] = {}
        for backend, run in runs.items():
            if (message := missing(backend)) is not None:
                run.problem, run.installed = message, False
                continue
            processes[backend] = stack.enter_context(WorkerProcess(backend))
            processes[backend].send(FactsRequest())  # imports it while the reference runs
        progress("weights")
        params = weights.load(weights_path, plan) if weights_path else trial_params(plan, seed)
        progress("float64 reference")
        start = time.perf_counter()
        exact = reference.forward(plan, params, images)
        reference_seconds = time.perf_counter() - start
        bound = bounds(plan, params, images, exact, progress)
        build = BuildRequest(spec.model_dump(by_alias=True), seed, weights_path)
        built = {"params": params_digest(params), "spec": plan.digest}
        for backend, process in processes.items():
            try:
                _run(process, runs[backend], build, built, images, exact, progress)
            except NfspecError as error:
                runs[backend].problem = str(error)
    return Comparison(tuple(exact), bound, tuple(runs.values()), reference_seconds)


def bounds(
    plan: Plan,
    params: Params,
    images: Images,
    exact: Taps,
    progress: Progress = lambda message: None,
) -> dict[str, float]:
    """Tap to `SIGMAS` times the rms distance of perturbed runs of the reference.

    Args:
        plan, params, images: The network, its weights, and images (N, H, W, channels).
        exact: Taps of the exact run.
        progress: A function that is called with a line for each run.
    """
    squares = dict.fromkeys(exact, 0.0)
    for sample in range(SAMPLES):
        progress(f"reference with float32 rounding, {sample + 1} of {SAMPLES}")
        rounded = reference.forward(
            plan, params, images, {tap: plan.taps[tap] for tap in exact}, Rounding(sample)
        )
        for tap, value in rounded.items():
            squares[tap] += distance(value, exact[tap]) ** 2
    return {tap: SIGMAS * float(np.sqrt(square / SAMPLES)) for tap, square in squares.items()}


def _run(
    process: WorkerProcess,
    run: Run,
    request: BuildRequest,
    expected: dict[str, str],
    images: Images,
    exact: Taps,
    progress: Progress,
) -> None:
    """Build and evaluate the network on one framework.

    Args:
        process: Its process, which was asked for its facts.
        run: Filled.
        request: The request to build it.
        expected: Digests of the weights and of the spec that are to be built.
        images: (N, H, W, channels).
        exact: Taps of the reference.
        progress: A function that is called with a line for each step.

    Raises:
        WorkerError: It failed, or built another network.
    """
    run.facts = process.receive()
    progress(f"{run.backend}: building")
    built = process.ask(request)
    if {name: built[name] for name in expected} != expected:
        raise WorkerError(f"{run.backend}: built other weights or another spec than requested")
    run.build_seconds = built["seconds"]
    progress(f"{run.backend}: forward pass")
    ran = process.ask(ForwardRequest(images, repeats=3))
    run.first_seconds, run.forward_seconds = ran["first"], min(ran["seconds"])
    run.distance = {tap: distance(ran["taps"][tap], exact[tap]) for tap in exact}
