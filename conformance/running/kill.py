"""The proof that the properties can fail: which of them kills which fault, on each framework."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from threadpoolctl import threadpool_limits

from nfspec.conformance.cases.case import Arrays, Case
from nfspec.conformance.cases.results import finite
from nfspec.conformance.cases.target import Target, target
from nfspec.conformance.faults import FAULTS, NO_FAULT, Fault
from nfspec.conformance.properties import PROPERTIES, Property
from nfspec.conformance.properties.base import Expected, judge
from nfspec.conformance.running.run import Settings, columns, essential_cases
from nfspec.conformance.workers.columns import Runner
from nfspec.conformance.workers.pool import WorkerError
from nfspec.errors import InputError
from nfspec.files import content

SCHEMA = "nfspec-faults/1"
MOST = 2**26  # bytes of a faults.json; a full one takes a megabyte
KEPT = 512  # expectations kept for the next fault

Progress = Callable[["KillMatrix", str], None]


@dataclass
class Kill:
    """What became of a fault on a column.

    Attributes:
        property: The property that killed it; empty if none did.
        ratio: |error| / bound of the case that did; infinite where a reply was refused.
        cases: Number of cases that it survived before that.
        case: That case, as its JSON fields.
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
        kills: Fault to column to what became of it.
        witnesses: Property to column to a fault that it kills; empty if it kills none.
        limits: Rows of detection limits, see `limits`.
    """

    settings: dict[str, Any]
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    kills: dict[str, dict[str, Kill]] = field(default_factory=dict)
    witnesses: dict[str, dict[str, str]] = field(default_factory=dict)
    limits: list[dict[str, Any]] = field(default_factory=list)

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
            found = _MATRIX.validate_python({each.name: data[each.name] for each in fields(cls)})
        except OSError as error:
            raise InputError(f"--resume: {path}: {error.strerror}; start without it") from None
        except (ValueError, LookupError, TypeError, RecursionError):
            raise InputError(
                f"--resume: {path} is not what conform --faults writes; start anew with --force"
            ) from None
        unknown = {*found.kills} - {*FAULTS} | {*found.witnesses} - {*PROPERTIES}
        # The timeout may be another one: it changes no result.
        if unknown or found.settings | {"timeout": settings.timeout} != _settings(settings):
            raise InputError(
                f"--resume: {path} is of a run with other settings; start without --resume, or "
                "give another --out"
            )
        return found


_MATRIX = TypeAdapter(KillMatrix)


def _settings(settings: Settings) -> dict[str, Any]:
    """Settings as they are after a round trip through JSON."""
    return dict(json.loads(json.dumps(asdict(settings))))


@lru_cache(maxsize=KEPT)
def _expected(case: Case) -> tuple[list[Arrays], Expected]:
    asked = PROPERTIES[case.property]
    calls = asked.calls(case)
    return calls, asked.expect(case, calls)


def _order(fault: Fault, mode: str, ids: tuple[str, ...]) -> list[Property]:
    """The properties of a mode, those that the fault names first."""
    wanted = [p for p in PROPERTIES.values() if mode in p.modes and (not ids or p.id in ids)]
    return sorted(wanted, key=lambda p: fault.first.index(p.id) if p.id in fault.first else 99)


def attempt(runners: list[Runner], case: Case) -> dict[Runner, Kill]:
    """Those of the runners whose fault a case kills, and how."""
    asked = PROPERTIES[case.property]
    calls, expected = _expected(case)
    found = {}
    sent = []
    for runner in runners:
        try:
            runner.send(case, calls if asked.sent else None)
            sent.append(runner)
        except WorkerError as error:
            found[runner] = Kill(problem=str(error))
    for runner in sent:
        try:
            outputs = asked.reduce(case, calls, runner.receive(case, calls))
        except WorkerError as error:
            refused = str(error).startswith(f"{runner.subject}: a reply")
            kill = Kill(problem=str(error))
            if refused:
                kill.property, kill.ratio, kill.case = asked.id, float("inf"), case.fields()
            found[runner] = kill
            continue
        ratio = judge(outputs, expected).ratio
        if ratio > 1.0:
            found[runner] = Kill(asked.id, ratio, case=case.fields())
    return found


def _kill(
    fault: Fault, runners: list[Runner], about: Target, mode: str, settings: Settings
) -> dict[Runner, Kill]:
    """Try a fault on all columns until each has killed it, or nothing is left to try."""
    alive = {runner: Kill() for runner in runners}
    done: dict[Runner, Kill] = {}
    for runner in runners:
        runner.fault = fault.name
    for asked in _order(fault, mode, settings.properties):
        for case in essential_cases(asked, about, mode, settings.seed):
            for runner, kill in attempt(list(alive), case).items():
                kill.cases = alive[runner].cases
                if kill.property:
                    done[runner] = kill
                    del alive[runner]
                elif not alive[runner].problem:
                    alive[runner].problem = kill.problem
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
        settings: As of a run, of which only the essential cases are used, in its first mode.
        names: Faults; all if empty.
        progress: Told what is being done.
        known: Results so far, which are not computed again.

    Raises:
        InputError: A fault or setting is not known.
    """
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise InputError(f"no fault {', '.join(unknown)}; expected some of {', '.join(FAULTS)}")
    about, mode = target(settings.source), settings.modes[0]
    matrix = known or KillMatrix(_settings(settings))
    with threadpool_limits(1), columns(settings, mode) as runners:
        live = [runner for runner in runners if not runner.problem]
        matrix.facts = {runner.column.name: runner.facts for runner in live}
        wanted = set(matrix.facts)  # an earlier run may not have had them all
        for name in names or FAULTS:
            if name in matrix.kills and wanted <= {*matrix.kills[name]}:
                continue
            kills = _kill(FAULTS[name], live, about, mode, settings)
            matrix.kills[name] = {r.column.name: kills[r] for r in live}
            by = sorted({kill.property or "NOTHING" for kill in kills.values()})
            progress(matrix, f"{name}: killed by {', '.join(by)}")
        for asked in _order(NO_FAULT, mode, settings.properties):
            if names or (asked.id in matrix.witnesses and wanted <= {*matrix.witnesses[asked.id]}):
                continue
            found = _witnesses(asked, live, about, mode, settings, matrix)
            if found is not None:
                matrix.witnesses[asked.id] = found
                by = sorted({fault or "NOTHING" for fault in found.values()})
                progress(matrix, f"{asked.id}: kills {', '.join(by)}")
    return matrix


def _witnesses(
    asked: Property,
    runners: list[Runner],
    about: Target,
    mode: str,
    settings: Settings,
    matrix: KillMatrix,
) -> dict[str, str] | None:
    """For each column a fault that the property kills; None where it has no cases."""
    found = {
        column: fault
        for fault, row in matrix.kills.items()
        for column, kill in row.items()
        if kill.property == asked.id
    }
    cases = essential_cases(asked, about, mode, settings.seed)
    if not cases:
        return None
    for fault in sorted(FAULTS.values(), key=lambda f: asked.id not in f.first):
        left = [runner for runner in runners if runner.column.name not in found]
        for runner in left:
            runner.fault = fault.name
        for case in cases:
            for runner, kill in attempt(left, case).items():
                if kill.property and runner in left:
                    found[runner.column.name] = fault.name
                    left.remove(runner)
            if not left:
                break
        if len(found) == len(runners):
            break
    return {runner.column.name: found.get(runner.column.name, "") for runner in runners}
