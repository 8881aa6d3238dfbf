"""Check whether a network fits the memory of this machine, before any of it is allocated."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from nfspec.errors import InputError
from nfspec.plan import Plan
from nfspec.plan.counting import parameter_count, shapes

FLOAT32, FLOAT64 = 4, 8  # bytes
UNLIMITED = 2**60  # bytes; control groups of version 1 write a number beyond it where there is none
# The line of memory.stat for caches that the kernel frees when memory is short: version 2, and 1.
CACHES = ("inactive_file", "total_inactive_file")


def require_free_memory(plan: Plan, purpose: str, copies: int) -> None:
    """Require that a network's parameters fit the memory that is free.

    Args:
        plan: The network.
        purpose: A verb for the message, such as "compile".
        copies: Float32 copies of all parameters that exist at one time, at least, not counting
            those that the caller has.

    Raises:
        InputError: They do not fit.
    """
    needed = copies * FLOAT32 * parameter_count(plan)
    _require(plan, purpose, needed, "a smaller network; nfspec show says which part of it is large")


def require_free_memory_for_images(plan: Plan, shape: tuple[int, ...]) -> None:
    """Require that the float64 reference has room for the operation that takes most memory.

    Args:
        plan: The network.
        shape: Shape of the images, (N, H, W, C).

    Raises:
        InputError: It has not, or the images are too small for the network.
    """
    images, height, width, _ = shape
    outputs, needed = shapes(plan, height, width), 0
    for op in plan.ops:
        arrays = images * sum(math.prod(outputs[name]) for name in (*op.inputs, op.name))
        needed = max(needed, FLOAT64 * (arrays + sum(p.size for p in op.parameters)))
    many = "an image" if images == 1 else f"{images} images"
    purpose = f"evaluate {many} of {height} x {width} px in float64 with"
    _require(plan, purpose, needed, "fewer or smaller images, or a smaller network")


def _require(plan: Plan, purpose: str, needed: int, advice: str) -> None:
    free = free_memory()
    if needed > free:
        raise InputError(
            f"{plan.name}: to {purpose} this network of {parameter_count(plan):,} parameters takes "
            f"at least {needed / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free; take a "
            f"machine with more, or {advice}"
        )


def free_memory() -> int:
    """Bytes that this process may still take.

    This is the smallest of three numbers: the free memory of the machine, the rest that the limits
    of the process's control groups leave, and the rest that its own limits of address space leave.
    It is `sys.maxsize` if the system tells none of them.
    """
    return max(0, min([_of_machine(), *_of_groups(), *_of_limits()]))


def _table(path: str | Path) -> dict[str, int]:
    """Name to number, from the lines of a file such as memory.stat; empty if there is no file."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    words = [line.replace(":", " ").split() for line in lines]
    return {each[0]: int(each[1]) for each in words if len(each) > 1 and each[1].isdecimal()}


def _number(path: Path) -> int | None:
    """The number that a file holds; None if there is no such file, or it says "max"."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _of_machine() -> int:
    table = _table("/proc/meminfo")  # in units of 1,024 bytes
    if "MemAvailable" in table:
        return 1024 * (table["MemAvailable"] + table.get("SwapFree", 0))
    try:
        import psutil  # on macOS and Windows; nfspec[train] installs it there
    except ImportError:
        return sys.maxsize
    return int(psutil.virtual_memory().available)


def _of_groups(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> list[int]:
    """The bytes left under each memory limit of the process's control groups, version 1 or 2.

    A limit holds for all groups below, so each group up to the root counts. In a container the
    path may be the host's; then only the root can be seen.
    """
    try:
        lines = own.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    left = []
    for controllers, path in (line.split(":", 2)[1:] for line in lines if line.count(":") >= 2):
        if controllers == "":
            base, limit, usage = root, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit, usage = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        below = base / path.lstrip("/")
        for group in (below, *below.parents):
            most, used = _number(group / limit), _number(group / usage)
            if most is not None and used is not None and most < UNLIMITED:
                table = _table(group / "memory.stat")
                left.append(most - used + max(table.get(name, 0) for name in CACHES))
            if group == base:
                break
    return left


def _of_limits() -> list[int]:
    """The bytes left under the limits of address space and of data (`ulimit -v`, `ulimit -d`)."""
    try:
        import resource
    except ImportError:  # Windows
        return []
    table, left = _table("/proc/self/status"), []  # in units of 1,024 bytes
    for kind, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most = resource.getrlimit(kind)[0]
        if most != resource.RLIM_INFINITY:
            left.append(most - 1024 * table.get(name, 0))
    return left
