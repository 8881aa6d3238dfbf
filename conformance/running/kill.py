"""Proof that the properties can fail: which property kills which fault, on each framework."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter
from threadpoolctl import threadpool_limits

from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.results import finite
from nfspec.conformance.cases.target import Target, target
from nfspec.conformance.faults import FAULTS, NO_FAULT, Fault
from nfspec.conformance.properties import PROPERTIES, Property
from nfspec.conformance.running.answers import PreparedCase, ask, started
from nfspec.conformance.running.run import essential_cases
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.workers.process import WorkerError
from nfspec.conformance.workers.worker import Worker
from nfspec.errors import InputError
from nfspec.files import content

SCHEMA = "nfspec-faults/1"
MOST = 2**26  # bytes of a faults.json; a full one takes a megabyte
KEPT = 512  # expectations kept for the next fault

Progress = Callable[["KillMatrix", str], None]


KillVerdict = Literal[
    "PROVED",  # every fault is killed, and every property kills a fault
    "NOT PROVED",  # a fault survives, or a property kills nothing
    "NOTHING TRIED",  # no column ran
]


@dataclass
class Kill:
    """The end of a fault on a column.

    Attributes:
        property: The property that killed it; empty if none did.
        ratio: |error| / bound of the case that killed it; infinite where a reply was refused.
        cases: Number of cases that it survived before that.
        case: The case that killed it, as its JSON fields.
        problem: Reason why the fault itself failed, or why the reply was refused.
    """

    property: str = ""
    ratio: float = 0.0
    cases: int = 0
    case: dict[str, Any] | None = None
    problem: str = ""


@dataclass
class KillMatrix:
    """Every fault on every column.

    Attributes:
        settings: Settings of the run.
        facts: Column to versions and switches.
        kills: Fault to column to its end.
        witnesses: Property to column to a fault that it kills; empty if it kills none.
        limits: Rows of detection limits, see `limits`.
        alone: Fault to its end where a subject offers its network alone, see `alone`.
        alone_on: The column on which this was tried; empty if none ran.
    """

    settings: dict[str, Any]
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    kills: dict[str, dict[str, Kill]] = field(default_factory=dict)
    witnesses: dict[str, dict[str, str]] = field(default_factory=dict)
    limits: list[dict[str, Any]] = field(default_factory=list)
    alone: dict[str, Kill] = field(default_factory=dict)
    alone_on: str = ""

    @property
    def verdict(self) -> KillVerdict:
        """The verdict on all of them. The report, the command and its exit status show it."""
        if not any(self.kills.values()):
            return "NOTHING TRIED"
        gaps = self.survivors or self.idle or self.survivors_alone
        return "NOT PROVED" if gaps else "PROVED"

    @property
    def idle(self) -> list[tuple[str, str]]:
        """Properties, and columns on which they have killed nothing."""
        rows = self.witnesses.items()
        return [(name, c) for name, row in rows for c, fault in row.items() if not fault]

    @property
    def survivors(self) -> list[tuple[str, str]]:
        """Faults, and columns, that nothing killed and that are not known to be equivalent."""
        return [
            (fault, column)
            for fault, row in self.kills.items()
            for column, kill in row.items()
            if not kill.property and not FAULTS[fault].equivalent
        ]

    @property
    def survivors_alone(self) -> list[str]:
        """Faults that nothing killed where the network alone is offered, though something should
        have."""
        return [
            name
            for name, kill in self.alone.items()
            if not kill.property and not FAULTS[name].alone and not FAULTS[name].equivalent
        ]

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA, **finite(asdict(self))}, indent=1)

    @classmethod
    def read(cls, path: Path, settings: Settings) -> KillMatrix:
        """Read the results of an interrupted run.

        Args:
            path: Its faults.json.
            settings: Settings of the run that is to go on; they have to be the same.

        Raises:
            InputError: No such file, or it is not of a run with these settings.
        """
        try:
            data = json.loads(content(path, MOST))
            # Files of earlier versions lack what came later.
            there = {each.name: data[each.name] for each in fields(cls) if each.name in data}
            matrix = _MATRIX.validate_python(there)
        except OSError as error:
            raise InputError(f"--resume: {path}: {error.strerror}; try without --resume") from None
        except (ValueError, LookupError, TypeError, RecursionError):
            raise InputError(
                f"--resume: {path} is not what conform --faults writes; start anew with --force"
            ) from None
        faults = {*matrix.kills, *matrix.alone}
        unknown = faults - {*FAULTS} | {*matrix.witnesses} - {*PROPERTIES}
        # The timeout may be another one: it changes no result.
        if unknown or matrix.settings | {"timeout": settings.timeout} != _settings(settings):
            raise InputError(
                f"--resume: {path} is of a run with other settings; start without --resume, or "
                "give another --out"
            )
        return matrix


_MATRIX = TypeAdapter(KillMatrix)


def _settings(settings: Settings) -> dict[str, Any]:
    """Settings as they are after a round trip through JSON."""
    return dict(json.loads(json.dumps(asdict(settings))))


@lru_cache(maxsize=KEPT)
def _prepared(case: Case) -> PreparedCase:
    """A case whose arrays and expectation are kept for the next fault."""
    return PreparedCase(case)


def _order(fault: Fault, mode: str, ids: tuple[str, ...]) -> list[Property]:
    """The properties of a mode, those that the fault names first."""
    wanted = [p for p in PROPERTIES.values() if mode in p.modes and (not ids or p.id in ids)]
    return sorted(wanted, key=lambda p: fault.first.index(p.id) if p.id in fault.first else 99)


def attempt(workers: list[Worker], case: Case) -> dict[Worker, Kill]:
    """Run a case with the workers' faults; those that it kills, and those that failed."""
    kills = {}
    for worker, answer in ask(_prepared(case), workers).items():
        if not isinstance(answer, WorkerError):
            if answer.beyond:
                kills[worker] = Kill(case.property, answer.ratio, case=case.fields())
        elif answer.kind == "refused":
            kills[worker] = Kill(
                case.property, float("inf"), case=case.fields(), problem=str(answer)
            )
        else:
            kills[worker] = Kill(problem=str(answer))
    return kills


def _kill(
    fault: Fault, workers: list[Worker], about: Target, mode: str, settings: Settings
) -> dict[Worker, Kill]:
    """Try a fault on all columns until each has killed it, or nothing is left to try."""
    alive = {worker: Kill() for worker in workers}
    done: dict[Worker, Kill] = {}
    for worker in workers:
        worker.fault = fault.name
    for asked in _order(fault, mode, settings.properties):
        for case in essential_cases(asked, about, mode, settings.seed):
            for worker, kill in attempt(list(alive), case).items():
                kill.cases = alive[worker].cases
                if kill.property:
                    done[worker] = kill
                    del alive[worker]
                elif not alive[worker].problem:
                    alive[worker].problem = kill.problem
            for kill in alive.values():
                kill.cases += 1
            if not alive:
                return done
    return {**done, **alive}


def kill_matrix(
    settings: Settings,
    names: tuple[str, ...] = (),
    progress: Progress = lambda matrix, message: None,
    known: KillMatrix | None = None,
) -> KillMatrix:
    """Seed each fault on each column, and see which property kills it first.

    Args:
        settings: Settings of a run. Only the essential cases are used, in the first mode.
        names: Names of faults; all if empty.
        progress: Called with a text that says what is being done.
        known: Results so far, which are not computed again.

    Raises:
        InputError: A fault or setting is not known.
    """
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise InputError(f"no fault {', '.join(unknown)}; expected some of {', '.join(FAULTS)}")
    about, mode = target(settings.source), settings.modes[0]
    matrix = known or KillMatrix(_settings(settings))
    with threadpool_limits(1), started(settings, mode) as workers:
        live = [worker for worker in workers if worker.given_up is None]
        matrix.facts = {worker.column.name: worker.facts for worker in live}
        wanted = set(matrix.facts)  # an earlier run may not have had them all
        for name in names or FAULTS:
            if name in matrix.kills and wanted <= {*matrix.kills[name]}:
                continue
            kills = _kill(FAULTS[name], live, about, mode, settings)
            matrix.kills[name] = {worker.column.name: kills[worker] for worker in live}
            by = sorted({kill.property or "NOTHING" for kill in kills.values()})
            progress(matrix, f"{name}: killed by {', '.join(by)}")
        for asked in _order(NO_FAULT, mode, settings.properties):
            if names or (asked.id in matrix.witnesses and wanted <= {*matrix.witnesses[asked.id]}):
                continue
            killed = _witnesses(asked, live, about, mode, settings, matrix)
            if killed is not None:
                matrix.witnesses[asked.id] = killed
                by = sorted({fault or "NOTHING" for fault in killed.values()})
                progress(matrix, f"{asked.id}: kills {', '.join(by)}")
    return matrix


def _witnesses(
    asked: Property,
    workers: list[Worker],
    about: Target,
    mode: str,
    settings: Settings,
    matrix: KillMatrix,
) -> dict[str, str] | None:
    """For each column a fault that the property kills; None where it has no cases."""
    killed = {
        column: fault
        for fault, row in matrix.kills.items()
        for column, kill in row.items()
        if kill.property == asked.id
    }
    cases = essential_cases(asked, about, mode, settings.seed)
    if not cases:
        return None
    for fault in sorted(FAULTS.values(), key=lambda f: asked.id not in f.first):
        left = [worker for worker in workers if worker.column.name not in killed]
        for worker in left:
            worker.fault = fault.name
        for case in cases:
            for worker, kill in attempt(left, case).items():
                if kill.property and worker in left:
                    killed[worker.column.name] = fault.name
                    left.remove(worker)
            if not left:
                break
        if len(killed) == len(workers):
            break
    return {worker.column.name: killed.get(worker.column.name, "") for worker in workers}
