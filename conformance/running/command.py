"""The shell command that runs a case again, wherever it is pasted."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from nfspec.compilation import BACKENDS
from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.results import COMPILER
from nfspec.conformance.cases.target import words_of
from nfspec.conformance.subjects.loading import PICKLE
from nfspec.conformance.workers.worker import Worker

TIMEOUT = 600.0  # seconds that `nfspec conform` and `nfspec replay` wait for an answer by default


def replay_command(
    line: str,
    subject: str,
    device: str = "cpu",
    *,
    timeout: float = TIMEOUT,
    fault: str = "",
    folder: str = "",
) -> str:
    """The command, one line.

    Args:
        line: The case's JSON.
        subject: Name of the subject.
        device: cpu, gpu, tpu or tpu-compiler.
        timeout: Seconds to wait for an answer.
        fault: Name of a fault to inject; empty for none.
        folder: Folder in which it has to be run; empty if any will do.
    """
    words = ["nfspec", "replay", line]
    words += ["--backends" if subject in BACKENDS else "--subject", subject]
    if device == COMPILER:
        words += ["--device", "tpu", "--compile-only"]
    elif device != "cpu":
        words += ["--device", device]
    if timeout != TIMEOUT:
        words += ["--timeout", f"{timeout:g}"]
    if fault:
        words += ["--fault", fault]
    command = shlex.join(words)
    return f"cd {shlex.quote(folder)} && {command}" if folder else command


def command_of(case: Case, worker: Worker) -> str:
    """The command that puts a case to a worker's subject again."""
    return replay_command(
        case.line(),
        worker.subject,
        worker.device,
        timeout=worker.timeout,
        fault=worker.fault,
        folder=needed_folder([worker.subject], case.spec),
    )


def needed_folder(subjects: Iterable[str], spec: str = "") -> str:
    """The present folder, if a spec or a subject is found by its place in it; else empty.

    Args:
        subjects: Names of subjects.
        spec: A spec as a case names it. It stays as it is, as the arrays of a case depend on every
            character of its line.
    """
    here = placed("", spec) or any(placed(name) and _lies_here(name) for name in subjects)
    return str(Path.cwd()) if here else ""


def placed(subject: str, spec: str = "") -> bool:
    """True if a subject or a spec is named by a module or a relative path, not by a known name."""
    module, colon, _ = subject.rpartition(":")
    named = bool(colon) or subject.endswith(PICKLE)
    relative = named and not Path(module or subject).is_absolute()
    path = words_of(spec)[0]
    return relative or (path.endswith(".toml") and not Path(path).is_absolute())


def _lies_here(subject: str) -> bool:
    """True if a subject's module or file is in the present folder, and not an installed one."""
    module, _, _ = subject.rpartition(":")
    top = module.partition(".")[0]
    return (
        module.endswith(".py")
        or subject.endswith(PICKLE)
        or Path(top).is_dir()
        or Path(f"{top}.py").is_file()
    )
