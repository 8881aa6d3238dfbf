"""A profile of a piece of work: the milliseconds and launches of each kernel, and their kinds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nfspec.benchmarks import device
from nfspec.benchmarks.works import Work
from nfspec.errors import BackendError

Kernels = dict[str, tuple[float, float]]  # name to milliseconds and launches of one run

# Kinds of kernels by parts of their names, of which the first that is found decides.
KINDS = (
    ("optimizer and clipping", ("multi_tensor", "foreach", "fused_sgd", "_foreach")),
    ("copies and layouts", ("copy", "memcpy", "memset", "transpose", "nchwtonhwc", "nhwctonchw",
                            "pad", "concat", "cat_", "catarray", "fill", "to_copy")),
    ("convs", ("conv", "cudnn", "fprop", "dgrad", "wgrad", "mkldnn")),
    ("products of matrices", ("gemm", "nvjet", "cutlass", "matmul", "addmm", "::mm", "::bmm",
                              "dot")),
    ("sums and norms", ("reduce", "reduction", "norm", "sum", "mean", "_red_")),
    ("element by element", ("elementwise", "vectorized", "poi_", "fusion", "gelu", "sigmoid",
                            "aten::add", "aten::mul", "aten::sub", "aten::div", "where", "clamp")),
)  # fmt: skip
MOST = 60  # kernels that are kept, those that take longest


def kind_of(name: str) -> str:
    """The kind of a kernel by its name; "other" if the name says none."""
    low = name.lower()
    return next((kind for kind, parts in KINDS if any(part in low for part in parts)), "other")


def by_kind(kernels: Mapping[str, tuple[float, float]]) -> Kernels:
    """Milliseconds and launches of each kind, the longest first."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, (milliseconds, launches) in kernels.items():
        sums[kind_of(name)][0] += milliseconds
        sums[kind_of(name)][1] += launches
    return dict(sorted(((k, (m, n)) for k, (m, n) in sums.items()), key=lambda each: -each[1][0]))


def profiled(backend: str, work: Work, runs: int) -> Kernels:
    """The kernels of one run, by name, the longest first.

    On a GPU these are its kernels, on a CPU the framework's operations.

    Raises:
        BackendError: Nothing here reads the framework's profiles.
    """
    readers = {"torch": _torch, "jax": _jax}
    if backend not in readers:
        raise BackendError(f"{backend}: its profiles are not read")
    work()
    device.wait()
    found = readers[backend](work, runs)
    kernels = {name: (total / runs, count / runs) for name, (total, count) in found.items()}
    longest = sorted(kernels, key=lambda name: -kernels[name][0])
    rest = [kernels[name] for name in longest[MOST:]]
    others = {"others": (sum(t for t, _ in rest), sum(n for _, n in rest))} if rest else {}
    return {name: kernels[name] for name in longest[:MOST]} | others


def _torch(work: Work, runs: int) -> Kernels:
    import torch
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    cuda = torch.cuda.is_available()
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=kinds) as found:
        for _ in range(runs):
            work()
        device.wait()
    sums: dict[str, tuple[float, float]] = {}
    for event in found.key_averages():
        if cuda and event.device_type is not DeviceType.CUDA:
            continue
        microseconds = event.self_device_time_total if cuda else event.self_cpu_time_total
        sums[event.key] = (microseconds / 1e3, event.count)
    return sums


def _jax(work: Work, runs: int) -> Kernels:
    import jax

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with TemporaryDirectory(prefix="nfspec-") as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(runs):
                work()
        (path, *_) = Path(folder).rglob("*.xplane.pb")
        planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
        return _sums([plane for plane in planes if plane.name.startswith("/device:")] or planes)


def _sums(planes: Any) -> Kernels:
    """Events on the lines of streams on a GPU, on those of XLA's threads on a CPU."""
    sums: dict[str, tuple[float, float]] = {}
    for plane in planes:
        for line in plane.lines:
            if line.name.startswith(("Stream", "tf_XLA")):
                for event in line.events:
                    if not event.duration_ns or event.name.startswith("end: "):
                        continue
                    total, count = sums.get(event.name, (0.0, 0.0))
                    sums[event.name] = (total + event.duration_ns / 1e6, count + 1)
    return sums
