"""Before a training starts: its folder, room for it on disk and in memory, and its processes."""

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
from pathlib import Path
from typing import Any

from nfspec.cli.text import compact
from nfspec.counting import parameter_count
from nfspec.errors import InputError, WeightError
from nfspec.memory import accumulation, training_bytes
from nfspec.plan import Plan
from nfspec.runs import Run
from nfspec.weights.files import replacing

FLOAT32 = 4  # bytes
CHILD = "NFSPEC_CHILD"  # set for the processes that `start_processes` starts


def prepare_folder(folder: Path, resume: bool) -> None:
    """Make the folder of a training, or see that there is one to go on with.

    Raises:
        InputError: There is none, or already one, or nothing can be written there.
    """
    begun = (folder / "run.json").exists()
    if resume and not begun:
        raise InputError(f"{folder}: no training there to resume; start it without --resume")
    if begun and not resume:
        raise InputError(
            f"{folder}: holds a training; go on with it by --resume, or give another --out"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / ".writable") as probe:
            probe.write_bytes(b"")
        (folder / ".writable").unlink()
    except (OSError, WeightError) as error:
        raise InputError(f"{folder}: cannot be written to ({error}); give another --out") from None


def require_disk(folder: Path, plan: Plan, run: Run) -> None:
    """See that three checkpoints, the one that is being written and the weights have room.

    Raises:
        InputError: They have not.
    """
    copies = 2 + bool(run.recipe.ema_decay)  # parameters, momentum, averages
    needed = parameter_count(plan) * FLOAT32 * (4 * copies + 2)
    needed -= sum(path.stat().st_size for path in folder.rglob("*.safetensors"))  # of before
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: {compact(needed)}B are needed there for checkpoints and weights, "
            f"{compact(free)}B are free; free some, or give another --out"
        )


def require_memory(plan: Plan, run: Run, devices: int, memory: int) -> None:
    """See that a device can train its part of a batch, as far as that can be told beforehand.

    Args:
        memory: Bytes that each device may use.

    Raises:
        InputError: It cannot; says in how many parts it could.
    """
    images, how = run.batch // run.accumulation // devices, (plan.train_size, run.recipe.precision)
    needed = training_bytes(plan, images, *how, accumulate=run.accumulation > 1)
    try:
        parts = accumulation(plan, images, memory, *how)
    except InputError:
        parts = 0
    if parts == 1:
        return
    advice = "take a smaller --size, or a device with more"
    if parts:
        advice = f"take --accumulation {run.accumulation * parts}, or a smaller --batch"
    raise InputError(
        f"{images} images of {plan.train_size} px at a time need about {compact(needed)}B to train "
        f"{plan.name}, and {compact(memory)}B are free; {advice}"
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether a framework says that memory did not suffice."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ in ("OutOfMemoryError", "ResourceExhaustedError")
        or "RESOURCE_EXHAUSTED" in text
        or "can't allocate memory" in text
    )


def is_first(backend: str) -> bool:
    """Whether this is the first process of a training, as its launcher says."""
    if backend == "tensorflow" and "TF_CONFIG" in os.environ:
        return int(json.loads(os.environ["TF_CONFIG"])["task"]["index"]) == 0
    names = {"torch": "RANK", "jax": "KERAS_DISTRIBUTION_PROCESS_ID"}
    return os.environ.get(names.get(backend, ""), "0") == "0"


def start_processes(devices: int) -> int:
    """Run this command in a process for each device, with the environment that torchrun gives.

    Not by torchrun itself, which prints a traceback of its own where one of them ends with a
    message, and kills them half a minute after Ctrl-C. They stop when this process does.

    Returns:
        Their exit status, of the first one that failed.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cores = max(1, (os.cpu_count() or 1) // devices)
    shared = {"WORLD_SIZE": str(devices), "LOCAL_WORLD_SIZE": str(devices), CHILD: "1"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "nfspec", *sys.argv[1:]],
            env={"OMP_NUM_THREADS": str(cores), **os.environ, **shared}
            | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.PIPE,  # closed when this process ends, in whatever way
            start_new_session=True,  # so that signals reach them through this process alone
        )
        for rank in range(devices)
    ]

    def pass_on(number: int, frame: Any) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _first_failure(processes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_failure(processes: list[subprocess.Popen[bytes]]) -> int:
    """Wait for all; where one fails, the others, which wait for it, are given ten seconds."""
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
