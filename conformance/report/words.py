"""Words that all reports share: numbers, verdicts, sentences, commands, selections."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from nfspec.conformance.cases.results import BAD, Cell, PropertyInfo, Results
from nfspec.conformance.running.command import TIMEOUT, placed, replay_command
from nfspec.wording import found_text, printable

ABSENT = "no result"


def title(results: Results) -> str:
    return f"Conformance of {results.spec['name']}" if results.spec else "Conformance"


def plain(text: str) -> str:
    """Text from a subject: line ends are kept, other control characters are escaped."""
    return "\n".join(printable(line.expandtabs()) for line in text.rstrip().split("\n"))


def count(number: int) -> str:
    return f"{number:,}"


def counted(number: int, noun: str, plural: str = "") -> str:
    return f"{count(number)} {noun if number == 1 else plural or noun + 's'}"


def ratio(value: Any) -> str:
    """A ratio at two digits, or as many as show on which side of 1 it is.

    Args:
        value: A float, or the text that stands for one that is not finite.
    """
    number = float(value)
    texts = (f"{number:.{digits}g}" for digits in range(2, 18))
    return next(text for text in texts if (float(text) > 1) == (number > 1))


def rank(cell: Cell) -> float:
    """The key by which the worst cell is selected: its worst ratio, infinite if it is no number."""
    return math.inf if math.isnan(cell.worst) else cell.worst


def worst(cells: Iterable[Cell]) -> Cell | None:
    """The first of the worst among the cells that judged a case."""
    return max((cell for cell in cells if cell.cases), key=rank, default=None)


def verdict(cell: Cell | None) -> str:
    """A cell as a table shows it, such as `pass 0.12`."""
    if cell is None:
        return ABSENT
    return f"{cell.verdict} {ratio(cell.worst)}" if cell.cases else cell.verdict


def figures(cell: Cell | None) -> str:
    """Cases, median and worst ratio."""
    if cell is None or not cell.cases:
        return "-"
    return f"{count(cell.cases)} / {ratio(cell.median)} / {ratio(cell.worst)}"


def summary(results: Results) -> str:
    """One sentence on the extent of the run and its worst ratio."""
    ran = sum(1 for column in results.columns if column.facts)
    text = (
        f"{counted(sum(cell.cases for cell in results.cells), 'case')} of "
        f"{counted(len(results.properties), 'property', 'properties')} in "
        f"{counted(len(results.columns), 'column')}, of which {ran} ran"
    )
    cell = worst(results.cells)
    if cell is None:
        return f"{text}."
    return f"{text}; worst ratio {ratio(cell.worst)}, at {cell.property} on {cell.column}."


def tally(results: Results) -> dict[str, int]:
    """Verdict to the number of cells that have it, the most frequent first."""
    verdicts = [cell.verdict for cell in results.cells]
    return dict(
        sorted(((v, verdicts.count(v)) for v in set(verdicts)), key=lambda item: (-item[1], item))
    )


def tiers(results: Results) -> dict[int, list[PropertyInfo]]:
    """Properties by tier, in their order."""
    numbers = sorted({info.tier for info in results.properties})
    return {n: [info for info in results.properties if info.tier == n] for n in numbers}


def bad(results: Results) -> list[Cell]:
    """The cells that make the run fail, in the order of the table, strays last."""
    rows = {info.id: n for n, info in enumerate(results.properties)}
    columns = {column.name: n for n, column in enumerate(results.columns)}
    last = len(results.cells)
    return sorted(
        (cell for cell in results.cells if cell.verdict in BAD),
        key=lambda cell: (rows.get(cell.property, last), columns.get(cell.column, last)),
    )


def worst_passing(results: Results) -> list[Cell]:
    """For each property that passes somewhere, the worst of the cells that pass."""
    by_property = (
        worst(c for c in results.cells if c.property == info.id and c.verdict == "pass")
        for info in results.properties
    )
    return [cell for cell in by_property if cell is not None and cell.worst_case is not None]


def replay(results: Results, cell: Cell) -> str:
    """The shell command that runs a cell's worst case again; empty if it has none."""
    if cell.worst_case is None:
        return ""
    subject, device, _ = cell.column.rsplit("/", 2)
    return replay_command(
        json.dumps(cell.worst_case, separators=(",", ":")),
        subject,
        device,
        timeout=results.settings.get("timeout", TIMEOUT),
        folder=results.folder if placed(subject, cell.worst_case.get("spec", "")) else "",
    )


def case(fields: dict[str, Any]) -> str:
    """A case as a reader skims it: `size 9, stride 2`."""
    return ", ".join(f"{plain(key)} {setting(value)}" for key, value in fields.items())


def covered(cell: Cell) -> str:
    """The regimes of a cell and how many cases met each."""
    return ", ".join(f"{plain(name)} {count(n)}" for name, n in cell.coverage.items())


def explanation(entry: dict[str, Any]) -> str:
    """A line on an entry of `Results.explanations`: the conventions a subject conforms with."""
    asked = f"{entry['subject']} asked for {entry['asked']}"
    before = f"{entry['property']}: ratio {ratio(entry['ratio_before'])}"
    if not entry["fields"]:
        return f"{asked}: no other conventions were found with which it conforms ({before})"
    fields = ", ".join(f"{name} = {found_text(value)}" for name, value in entry["fields"].items())
    after = ratio(entry["ratio_after"])
    return f"{asked}: conformant with {fields} ({before} before, {after} after)"


def setting(value: Any) -> str:
    """A setting or fact: text as it is, all else as JSON."""
    return plain(value) if isinstance(value, str) else json.dumps(value)


def facts(results: Results) -> list[tuple[str, list[str]]]:
    """Rows of the environment: a fact's name, and what each column says of it."""
    of_columns = [dict(_flat(column.facts)) for column in results.columns]
    names = dict.fromkeys(name for of_column in of_columns for name in of_column)
    return [
        (name, [setting(of_column.get(name, "-")) for of_column in of_columns]) for name in names
    ]


def _flat(table: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def run_settings(results: Results) -> list[tuple[str, str]]:
    """The spec and the settings of the run."""
    spec = results.spec or {"name": "none; the general grid of shapes"}
    rows = [(f"spec {key}", plain(value)) for key, value in spec.items()]
    return rows + [(key, setting(value)) for key, value in results.settings.items()]


def is_url(text: str) -> bool:
    """True if a link may be one that can be followed."""
    return re.fullmatch(r"https?://[^\s<>]+", text) is not None


def run_line(results: Results) -> str:
    """The date and the length of the run: the one line that differs between equal runs."""
    return f"Started {results.started or 'at an unknown time'}; took {results.seconds:.0f} s."
