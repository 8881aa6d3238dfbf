"""The machine: frameworks that see the device, their versions, the card."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from nfspec.benchmarks.gpu.sweeps import Start
from nfspec.benchmarks.requests import Facts
from nfspec.benchmarks.run import Process
from nfspec.compilation import BACKENDS
from nfspec.errors import InputError
from nfspec.files import content, write

FILE = "machine.json"
PACKAGES = (
    "keras", "timm", "optax", "jinja2", "ruff", "hypothesis", "packaging", "threadpoolctl", "numpy",
)  # fmt: skip
START = 300.0  # seconds that a framework has to be imported and to look for its devices


@dataclass(frozen=True)
class Machine:
    """A machine as it was found.

    Attributes:
        device: cpu or gpu.
        backends: Framework to the name of the device that it sees.
        versions: Package to version.
        card: Card, driver and memory as nvidia-smi names them; empty without one.
        absent: Sentences, each of which says what is not there.
        date: Day of the first look, ISO 8601, UTC.
    """

    device: str
    backends: dict[str, str]
    versions: dict[str, str]
    card: str
    absent: tuple[str, ...] = ()
    date: str = field(default="", compare=False)


def look(device: str, start: Start = Process) -> Machine:
    """Ask each framework that is installed, in a process of its own."""
    backends: dict[str, str] = {}
    versions, absent = _versions()
    for backend in BACKENDS:
        if find_spec(backend) is None:
            absent.append(f"{backend} is not installed")
            continue
        process = start(backend, device)
        try:
            answer = process.ask(Facts(), START)
        except TimeoutError:
            absent.append(f"{backend} does not answer within {START:g} s of its start")
            continue
        finally:
            process.end()
        if answer.error is not None:
            absent.append(f"{backend} cannot be used: {answer.error}")
        elif device == "gpu" and answer.facts["device"] == "cpu":
            absent.append(f"{backend} sees no GPU")
        else:
            backends[backend] = answer.facts["device"]
            versions[backend] = answer.facts[backend]
    card = _card() if device == "gpu" else ""
    today = datetime.now(UTC).date().isoformat()
    return Machine(device, backends, versions, card, tuple(absent), today)


def remembered(machine: Machine, folder: Path) -> Machine:
    """The machine that a folder's results are of, which is this one; write it if there is none.

    Raises:
        InputError: The results are of another one, or other versions.
    """
    path = folder / FILE
    if not path.exists():
        write(path, json.dumps(asdict(machine), indent=1) + "\n")
        return machine
    try:
        data = json.loads(content(path, 2**20))
        before = Machine(**{**data, "absent": tuple(data["absent"])})
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give another --out") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InputError(f"{path} is not what this command writes; give another --out") from None
    if before != machine:
        raise InputError(
            f"{folder} has results of another machine or of other versions "
            f"({_short(before)}; this is {_short(machine)}); give another --out"
        )
    return before


def _short(machine: Machine) -> str:
    devices = ", ".join(f"{name} {machine.versions[name]}" for name in machine.backends)
    return f"{machine.card or machine.device}: {devices or 'no framework'}"


def _versions() -> tuple[dict[str, str], list[str]]:
    versions, absent = {}, []
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            absent.append(f"{package} is not installed")
    return versions, absent


def _card() -> str:
    """One line of nvidia-smi; empty if there is none, or it fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    query = ["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run([program, *query], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().partition("\n")[0]
