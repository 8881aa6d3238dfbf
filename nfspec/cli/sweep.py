"""`nfspec sweep`: candidates by seeds, each trained once, and a table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from nfspec.console import WIDTH, broken, print_json, print_lines, say, table
from nfspec.design.sweeping import (
    STATE,
    Outcome,
    Plan,
    Row,
    Run,
    State,
    command_of,
    outcome_of,
    outcomes_in,
    plot,
    read_part,
    read_plan,
    rows_of,
    runs_of,
    verdict,
)
from nfspec.errors import InputError
from nfspec.outputs import alone, require_own
from nfspec.training.folders import RUN
from nfspec.training.processes import CHILD
from nfspec.wording import printable

STOPPED = 130  # the exit status of a training that was interrupted
MOST_PROCESSES = 64
PICTURE = "sweep.png"


def sweep(
    plan: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .toml file: docs/variants.md has one.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the runs. Default: the plan's name without its ending."),
    ] = None,
    processes: Annotated[
        int,
        typer.Option(min=1, max=MOST_PROCESSES, help="Trainings at a time, on this machine."),
    ] = 1,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Train part K of N alone, such as 3/8, for one of several machines with a shared "
            "disk.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Use a folder that holds other files, too.")
    ] = False,
) -> None:
    """Train candidates from several seeds, and say what the seeds allow.

    Each run is a training of nfspec train in a folder of its own. After an interruption of any
    kind the same command goes on: runs that ended are not run again, and one that was cut off goes
    on from its checkpoint. A run whose loss is not finite is listed with that reason. The table has
    the top-1 after the last epoch, as a mean over seeds with its 95 % interval. A plan to which
    specs, values or seeds are added trains what is new. On several machines with a shared disk,
    each takes a --part; the table is of all parts. Without --part, the command trains what no part
    has done.

    Nothing in a plan, spec or image is run, whoever wrote it.
    """
    made, share = read_plan(plan), read_part(part) if part is not None else None
    runs = runs_of(made)
    folder = out or plan.with_suffix("")
    require_own(folder, STATE, force)
    folder.mkdir(parents=True, exist_ok=True)
    State(folder).begin()
    place = share.place(folder) if share else folder
    with alone(place):
        ended = outcomes_in(folder)
        own = share.of(runs) if share else runs
        new = [run for run in own if run.folder not in ended]
        left = Trainings(made, folder, State(place)).run(new, processes)
    ended = outcomes_in(folder)
    rows = rows_of(runs, ended)
    if any(row.top1 for row in rows):
        plot(rows, folder / PICTURE)
    others = sum(run.folder not in ended for run in runs) - left
    if as_json:
        print_json(_json(rows, left, others))
    else:
        wrote = f"wrote {printable(str(place / STATE))}, {printable(str(folder / PICTURE))}"
        print_lines([*_report(rows, left, others), *textwrap.wrap(wrote, WIDTH)])
    if left:
        raise typer.Exit(STOPPED)


class Trainings:
    """The trainings of a sweep, each in a process of its own.

    Args:
        plan: The plan.
        folder: The sweep's folder.
        state: The outcomes so far, to which others are added.
    """

    def __init__(self, plan: Plan, folder: Path, state: State):
        self.plan, self.folder, self.state = plan, folder, state
        self.begun = time.monotonic()
        self.lock = threading.Lock()
        self.stopping = False
        self.processes: set[subprocess.Popen[bytes]] = set()

    def run(self, runs: list[Run], at_a_time: int) -> int:
        """Train what has not ended; returns the number of runs that are left."""
        numbered = [(f"run {number} of {len(runs)}", run) for number, run in enumerate(runs, 1)]
        with ThreadPoolExecutor(at_a_time) as pool:
            ended = [pool.submit(self._one, name, run) for name, run in numbered]
            try:
                return [each.result() for each in ended].count(False)
            except KeyboardInterrupt:
                self._stop()
                raise

    def _stop(self) -> None:
        """Let each training write a checkpoint and end."""
        with self.lock:
            self.stopping = True
            for process in self.processes:
                process.send_signal(signal.SIGINT)

    def _one(self, name: str, run: Run) -> bool:
        """True if a run ended, well or not; False if it is left for another time."""
        minutes = (time.monotonic() - self.begun) / 60
        if self.stopping or (self.plan.minutes is not None and minutes >= self.plan.minutes):
            return False
        if run.folder in outcomes_in(self.folder):  # of another process, meanwhile
            return True
        say(f"{name}: {run.label}, seed {run.seed}")
        outcome = self._trained(run)
        if outcome is None:
            return False
        with self.lock:
            self.state.add(run, outcome)
        say(f"{name}: {outcome.reason or f'top-1 {outcome.top1:.2%}'}")
        return True

    def _trained(self, run: Run) -> Outcome | None:
        """The outcome of a training that goes on where one was cut off; None if it was stopped."""
        folder = self.folder / run.folder
        how = ["--resume"] if (folder / RUN).exists() else ["--force"] if folder.exists() else []
        try:
            with alone(folder):  # or another process trains it: one without --part, or of another N
                pass
        except InputError:
            return None
        train, *arguments = command_of(self.plan, run, folder)
        command = [sys.executable, "-P", "-m", "nfspec", train, *how, *arguments]
        with tempfile.TemporaryFile() as said:
            with self.lock:
                if self.stopping:
                    return None
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,  # closed when this process ends, in whatever way
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    env={**os.environ, CHILD: "1"},
                    start_new_session=True,  # so that signals reach it through this process alone
                )
                self.processes.add(process)
            with process:
                status = process.wait()
            with self.lock:
                self.processes.remove(process)
            if status == 0:
                return outcome_of(folder)
            if status in (STOPPED, -signal.SIGTERM, -signal.SIGINT):
                return None
            said.seek(0)
            lines = said.read().decode("utf-8", "replace").strip().splitlines()
            return Outcome(None, reason=printable(lines[-1] if lines else f"status {status}"))


def _interval(row: Row) -> str:
    return "" if row.half is None else f"± {100 * row.half:.2f}"


def _report(rows: list[Row], left: int, others: int) -> list[str]:
    room = WIDTH - 30
    lines = [["candidate", "seeds", "top-1 %", "95 %"]]
    for row in rows:
        mean = f"{100 * row.mean:.2f}" if row.top1 else "none"
        lines.append([row.label, str(len(row.top1)), mean, _interval(row)])
    failed = [(row.label, seed, why) for row in rows for seed, why in row.failed.items()]
    return [
        *table(broken(lines, room), "<>>>"),
        "",
        *(f"failed: {name}, seed {seed}: {why}" for name, seed, why in failed),
        *textwrap.wrap(verdict(rows), WIDTH, break_on_hyphens=False),
        *([f"runs that are left: {left}; the same command goes on"] if left else []),
        *([f"runs of other parts that have not ended: {others}"] if others else []),
    ]


def _json(rows: list[Row], left: int, others: int) -> dict[str, object]:
    return {
        "candidates": [
            {
                "candidate": row.label,
                "top1": {str(seed): value for seed, value in row.top1.items()},
                "mean": row.mean if row.top1 else None,
                "half_interval": row.half,
                "failed": {str(seed): why for seed, why in row.failed.items()},
            }
            for row in rows
        ],
        "verdict": verdict(rows),
        "left": left,
        "left_to_other_parts": others,
    }
