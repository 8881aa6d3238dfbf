"""Around a training: room on disk and in memory, its processes, and signals that stop it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfspec.console import compact, say
from nfspec.cost.memory import accumulation, training_bytes
from nfspec.errors import InputError
from nfspec.plan import Plan
from nfspec.plan.counting import parameter_count
from nfspec.training.runs import Run

FLOAT32 = 4  # bytes
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CHILD = "NFSPEC_CHILD"  # set for the processes that `start_processes` starts


def require_disk(folder: Path, plan: Plan, run: Run) -> None:
    """Refuse a disk without room for three checkpoints, a fourth that is written, and the weights.

    Raises:
        InputError: There is too little room.
    """
    copies = 2 + bool(run.recipe.ema_decay)  # parameters, momentum, averages
    needed = parameter_count(plan) * FLOAT32 * (4 * copies + 2)
    # Files of an earlier training there are replaced.
    needed -= sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: {compact(needed)}B are needed there for checkpoints and weights, "
            f"{compact(free)}B are free; delete some files, or give another --out"
        )


def _can_shard(backend: str, run: Run) -> bool:
    """Tell whether a framework trains with kernels in parts over devices (`--shard`)."""
    # PyTorch's SAM needs each process's own gradients whole.
    return backend == "jax" or (backend == "torch" and not run.recipe.sam_rho)


def require_memory(run: Run, backend: str, devices: int, shard: bool, memory: int) -> None:
    """Refuse a batch whose estimated memory is more than a device has.

    Args:
        run: A network, and its recipe for this training.
        backend: The framework that trains it.
        devices: Devices that share a batch.
        shard: Kernels are in parts over them.
        memory: Bytes that each device may use.

    Raises:
        InputError: It is; the message says with which options it would fit.
    """
    plan, images = run.plan, run.batch // run.accumulation // devices
    size, precision = plan.train_size, run.recipe.precision

    def micro_batches(parts: int) -> int:
        """The fewest that fit; 0: not one image does."""
        try:
            return accumulation(
                plan, images, memory, size, precision, parts=parts, accumulate=run.accumulation > 1
            )
        except InputError:
            return 0

    parts = devices if shard else 1
    fewest = micro_batches(parts)
    if fewest == 1:
        return
    sharded = micro_batches(devices) if parts < devices and _can_shard(backend, run) else 0
    options = ["a smaller --size", "a device with more"]
    if fewest:
        options = [f"--accumulation {run.accumulation * fewest}", "a smaller --batch"]
    if sharded == 1:
        options.insert(0, "--shard")
    elif sharded and not fewest:
        options.insert(0, f"--shard with --accumulation {run.accumulation * sharded}")
    *others, last = options
    needed = training_bytes(plan, images, size, precision, run.accumulation > 1, parts=parts)
    raise InputError(
        f"{images} images of {size} px at a time need about {compact(needed)}B to train "
        f"{plan.name}, and {compact(memory)}B are free; take {', '.join(others)}, or {last}"
    )


def devices_of(backend: str, devices: int) -> int:
    """The number of devices of a training: torchrun's processes, or as many as were asked for.

    Raises:
        InputError: torchrun's variables are no numbers.
    """
    if backend != "torch":
        return devices
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        if not os.environ.get(name, "0").isdecimal():
            raise InputError(f'{name}: expected a number; found "{os.environ[name]}"; unset it')
    return max(1, int(os.environ.get("WORLD_SIZE", devices)))


def is_first(backend: str) -> bool:
    """Tell from the environment whether this is the first process of a training.

    Raises:
        InputError: TF_CONFIG does not say which.
    """
    if backend == "tensorflow" and "TF_CONFIG" in os.environ:
        try:
            return int(json.loads(os.environ["TF_CONFIG"])["task"]["index"]) == 0
        except (ValueError, TypeError, LookupError):
            raise InputError(
                'TF_CONFIG: expected JSON that has "cluster", and "task" with "type" and "index"; '
                "see docs/several-devices.md, or unset it"
            ) from None
    # Each is read where the other is set, as by the engines; see devices.py.
    jax = ("KERAS_DISTRIBUTION_JOB_ADDRESSES", "KERAS_DISTRIBUTION_PROCESS_ID")
    several, which = {"torch": ("WORLD_SIZE", "RANK"), "jax": jax}.get(backend, ("", ""))
    return several not in os.environ or os.environ.get(which, "0") == "0"


@contextlib.contextmanager
def _handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle the signals that ask a process to end."""
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    if before[signal.SIGHUP] is signal.SIG_IGN:  # nohup's, for what is to outlive its terminal
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, each in before.items():
            signal.signal(number, each)


@dataclass
class Asked:
    """Requests that a training stop.

    Attributes:
        caught: Number of requests so far.
        training: True once the first step may have begun, so that stopping leaves a checkpoint.
    """

    caught: int = 0
    training: bool = False

    def to_stop(self) -> bool:
        return self.caught > 0


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Asked]:
    """Count the signals that ask to end, for the training to look at; the second ends at once."""
    asked = Asked()

    def remember(number: int, frame: Any) -> None:
        asked.caught += 1
        if asked.caught > 1:
            raise KeyboardInterrupt
        when = "stopping after this step, with a checkpoint" if asked.training else "stopping"
        with contextlib.suppress(RuntimeError):  # a stream that is being written to
            say(f"{when}; again: at once")

    with _handled(remember):
        yield asked


def start_processes(devices: int) -> int:
    """Run this command in a process for each device, with the environment that torchrun gives.

    torchrun itself is not used: it prints a traceback when a process ends with a message, and
    kills all of them half a minute after Ctrl-C. The processes end when this one does.

    Returns:
        The exit status of the first one that failed; 0 if none did.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cores = max(1, (os.cpu_count() or 1) // devices)
    shared = {"WORLD_SIZE": str(devices), "LOCAL_WORLD_SIZE": str(devices), CHILD: "1"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # -P: what lies in the present folder must not stand in for a module.
    command = [sys.executable, "-P", "-m", "nfspec", *sys.argv[1:]]
    processes: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: Any) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    with contextlib.ExitStack() as stack, _handled(pass_on):
        for rank in range(devices):
            process = subprocess.Popen(
                command,
                env={"OMP_NUM_THREADS": str(cores), **os.environ, **shared}
                | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,  # closed when this process ends, in whatever way
                start_new_session=True,  # so that signals reach them through this process alone
            )
            processes.append(stack.enter_context(process))
        return _first_failure(processes)


def _first_failure(processes: list[subprocess.Popen[bytes]]) -> int:
    """Wait for all processes. If one fails, the others wait for it: they get ten seconds."""
    status, left = 0, list(processes)
    while left:
        for process in list(left):
            with contextlib.suppress(subprocess.TimeoutExpired):
                ended = process.wait(0.1 if status == 0 else 10.0)
                left.remove(process)
                status = status or ended
                continue
            if status not in (0, 130):
                process.kill()
    return status if status >= 0 else 2


def end_with_parent() -> None:
    """In a process of `start_processes`: end when the one that started it has ended."""
    if os.environ.get(CHILD) != "1":
        return

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock would be held when Python ends
            pass
        os._exit(130)

    threading.Thread(target=wait, daemon=True).start()
