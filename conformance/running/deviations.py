"""Known deviations: `deviations.toml`, and the verdicts that its entries change.

An entry names one property of one column and a range of versions. It is strict both ways: a cell
that fails as the entry says deviates, and a cell that passes nevertheless is bad. An entry that has
expired or that names nothing is bad, too. No tolerance is ever wider for an entry.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from nfspec.conformance.cases.results import Cell, Column, Results
from nfspec.errors import NfspecError, Problem, suggest
from nfspec.files import opened
from nfspec.language.fields import Table
from nfspec.language.positions import positions
from nfspec.language.reading import MAX_DOTS_IN_LINE
from nfspec.language.validation import shown
from nfspec.wording import found_text, printable, quoted

MAX_BYTES = 1_048_576
MOST_PROBLEMS = 50  # that are listed

SHIPPED = Path(__file__).parent / "deviations.toml"

Words = Annotated[str, Field(min_length=1)]


class DeviationError(NfspecError):
    """A file of deviations that cannot be used. `problems` lists all that is wrong with it."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class Deviation(Table):
    """One entry; `deviations.toml` explains the fields."""

    id: Words
    property: Words
    subject: Words
    device: Literal["cpu", "gpu", "tpu"]
    mode: Literal["f32", "tf32", "bf16", "f16"]
    versions: Words
    reason: Words
    link: Words
    opened: date
    expires: date

    @field_validator("versions")
    @classmethod
    def _specifiers(cls, value: str) -> str:
        try:
            SpecifierSet(value)
        except InvalidSpecifier:
            message = 'expected a range of versions such as ">=2.13,<2.14"'
            raise ValueError(f"{message}; found {quoted(value)}") from None
        return value

    @field_validator("link")
    @classmethod
    def _http(cls, value: str) -> str:
        if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", value):
            raise ValueError(f"expected an http or https URL; found {quoted(value)}")
        return value

    @field_validator("expires")
    @classmethod
    def _later(cls, value: date, info: ValidationInfo) -> date:
        opened = info.data.get("opened")
        if opened is not None and value <= opened:
            raise ValueError(f"must be after opened, {opened}; found {value}")
        return value

    def covers(self, column: Column) -> bool:
        """True if the deviation covers a column, and the version that ran there."""
        named = (column.subject, column.device, column.mode)
        if named != (self.subject, self.device, self.mode):
            return False
        try:
            version = Version(str(column.facts.get("version", "")))
        except InvalidVersion:
            return False
        return SpecifierSet(self.versions).contains(version, prereleases=True)


def _read(path: Path, label: str) -> tuple[dict[str, Any], dict[tuple[str | int, ...], Any]]:
    """The data of a file, and the place of each value."""
    try:
        with opened(path) as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ValueError(f"longer than {MAX_BYTES} bytes")
        text = raw.decode("utf-8")
        if any(line.count(".") > MAX_DOTS_IN_LINE for line in text.split("\n")):
            raise ValueError(f"more than {MAX_DOTS_IN_LINE} dots in one line; break the line up")
        return tomllib.loads(text), positions(text)
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        message = "not UTF-8 text"
    except (ValueError, RecursionError) as error:
        message = f"not TOML: {printable(str(error))}"
    raise DeviationError([Problem("DEVIATION-READ", "", message, label)])


def _told(error: ErrorDetails) -> str:
    """One of pydantic's errors in the words of the file."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return "missing; an entry states every field"
    if kind == "extra_forbidden":
        return f"unknown key{suggest(str(error['loc'][-1]), Deviation.model_fields)}"
    if kind == "string_too_short":
        return "must not be empty"
    expected = {
        "string_type": "a string",
        "date_type": "a date without quotes, such as 2026-11-24",
        "literal_error": str(context.get("expected")).replace("'", '"'),
    }.get(kind, "a table")
    return f"expected {expected}; found {found_text(value)}"


def load(path: Path | None = None) -> tuple[Deviation, ...]:
    """Read a file of deviations, or the one that comes with nfspec.

    Raises:
        DeviationError: With everything that is wrong with the file at once.
    """
    path = path or SHIPPED
    label = printable(str(path))
    data, places = _read(path, label)
    problems: list[Problem] = []
    loaded: dict[str, Deviation] = {}

    def complain(code: str, at: tuple[str | int, ...], message: str) -> None:
        around = (places[at[:n]] for n in range(len(at), 0, -1) if at[:n] in places)
        problems.append(Problem(code, shown(at), message, label, *next(around, (1, 1))))

    for key in data.keys() - {"deviation"}:
        complain("DEVIATION-FIELD", (key,), "unknown key; entries begin with [[deviation]]")
    entries = data.get("deviation", [])
    if not isinstance(entries, list):
        complain("DEVIATION-FIELD", ("deviation",), "entries begin with [[deviation]]")
        entries = []
    for n, fields in enumerate(entries):
        try:
            entry = Deviation.model_validate(fields)
        except ValidationError as error:
            for details in error.errors(include_url=False):
                at = ("deviation", n, *details["loc"])
                complain("DEVIATION-FIELD", at, _told(details))
            continue
        if entry.id in loaded:
            message = f"{quoted(entry.id)} is the id of an entry above"
            complain("DEVIATION-DUPLICATE", ("deviation", n, "id"), message)
        loaded[entry.id] = entry
    if problems:
        listed = sorted(problems, key=lambda p: (p.line, p.column, p.path))
        if len(listed) > MOST_PROBLEMS:
            more = f"and {len(listed) - MOST_PROBLEMS} more"
            listed[MOST_PROBLEMS:] = [Problem("DEVIATION-FIELD", "", more, label)]
        raise DeviationError(listed)
    return tuple(loaded.values())


def apply(
    results: Results,
    deviations: Iterable[Deviation],
    today: date,
    known: Collection[str] = (),
) -> list[str]:
    """Change the verdicts of the cells that entries speak of.

    Args:
        results: Changed in place: verdicts, messages, and `deviations` for the entries that hold.
        deviations: From `load`. One whose column or version is not in the run does nothing.
        today: After `expires`, an entry does nothing but say so.
        known: Ids of properties that exist but were left out of this run.

    Returns:
        What is wrong with entries that could not be applied. The run fails if there is any.
    """
    ids = {info.id for info in results.properties}
    left_out = set(known) - ids
    problems: list[str] = []
    taken: dict[tuple[str, str], str] = {}
    for entry, column in _covered(results, deviations):
        place = f"deviation {entry.id}: {entry.property} on {column.name}"
        cell = results.cell(entry.property, column.name)
        if entry.property in left_out:
            continue
        if entry.property not in ids:
            hint = suggest(entry.property, ids | left_out)
            problems.append(f"{place}: no property is called {entry.property}{hint}")
        elif cell is None:
            problems.append(f"{place}: the run has no result for it")
        elif cell.verdict == "not offered":
            problems.append(f"{place}: not offered by {column.subject}; delete the entry")
        elif other := taken.get((cell.property, cell.column)):
            problems.append(f"{place}: {other} speaks of it already; delete one of them")
        else:
            taken[cell.property, cell.column] = entry.id
            if _judge(cell, entry, today):
                results.deviations.append(entry.model_dump(mode="json"))
    return problems


def _covered(
    results: Results, deviations: Iterable[Deviation]
) -> Iterator[tuple[Deviation, Column]]:
    return ((d, column) for d in deviations for column in results.columns if d.covers(column))


def _judge(cell: Cell, entry: Deviation, today: date) -> bool:
    """Change a cell as an entry says; whether the entry holds."""
    if cell.verdict in ("pass", "pass in part"):
        cell.verdict = "stale deviation"
        note = f"passes, though deviation {entry.id} says that it fails; delete the entry"
    elif cell.verdict not in ("fail", "error"):
        return False  # it did not run to its end, which no entry excuses
    elif today > entry.expires:
        note = f"deviation {entry.id} expired on {entry.expires}; renew the entry or fix the cause"
    else:
        cell.verdict = "deviates"
        note = f"deviation {entry.id}, until {entry.expires}: {entry.reason} ({entry.link})"
    cell.message = "\n".join(filter(None, (note, cell.message)))
    return cell.verdict == "deviates"
