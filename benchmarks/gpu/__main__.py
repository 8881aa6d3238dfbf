"""`python -m nfspec.benchmarks.gpu`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from nfspec.arguments import one_of
from nfspec.benchmarks.gpu import machine, report
from nfspec.benchmarks.gpu.items import SCALES, Made, left_out
from nfspec.benchmarks.gpu.running import Entry, run
from nfspec.console import say
from nfspec.errors import InputError, NfspecError
from nfspec.files import sweep, write
from nfspec.outputs import alone, require_own

MOST_MINUTES = 10_000
REPORT = "REPORT.md"

Out = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the results.")]
Minutes = Annotated[
    float,
    typer.Option(
        min=0.1,
        max=MOST_MINUTES,
        metavar="N",
        help="Time to take. What does not fit is said, and the same command goes on with it.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="gpu|cpu", help="Device to measure; cpu tries the same with a small network."
    ),
]


def main(out: Out = Path("gpu"), minutes: Minutes = 8.0, device: Device = "gpu") -> None:
    """Measure a GPU: conformance, forward passes and training steps beside timm and a plain JAX
    port, clipping, and the kernels of a step.

    Uses the frameworks that are installed, of whichever version. Every result is a file of its own,
    written when it is there; the same command goes on where it was stopped. REPORT.md has it all.
    To measure something again, delete its file.
    """
    try:
        one_of("--device", device, tuple(SCALES))
        require_own(out, machine.FILE, force=False)
        with alone(out):
            _measure(out.absolute(), 60.0 * minutes, device)
    except NfspecError as error:
        say(str(error))
        raise typer.Exit(2) from None
    except OSError as error:
        say(f"{error.filename or out}: {error.strerror or error}")
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        say(f"interrupted; the same command goes on with what is in {out}")
        raise typer.Exit(130) from None


def _measure(out: Path, seconds: float, device: str) -> None:
    begun = time.monotonic()
    sweep(out)
    found = machine.remembered(machine.look(device), out)
    for sentence in found.absent:
        say(f"{sentence}; what needs it is left out")
    if not found.backends:
        raise InputError(f"no framework here sees a {device.upper()}, so there is nothing to do")
    made = Made(SCALES[device], device, found.backends, found.versions, out)
    lacking = left_out(made)

    def written(entries: list[Entry]) -> None:
        write(out / REPORT, report.markdown(found, entries, lacking))

    left = seconds - (time.monotonic() - begun)
    entries = run(made.items(), out, left, say, written)
    written(entries)
    todo = sum(not entry.finished for entry in entries)
    say(f"wrote {out / REPORT}" + (f"; {todo} items are left for another time" if todo else ""))


if __name__ == "__main__":
    typer.run(main)
