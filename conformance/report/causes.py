"""Failures by cause: the answer in a sentence, and the cells that fail for the same reason.

The cause of a cell is its explanation, or the error that was raised. Cells without one are a group
of their own. An explanation that is made of those of other cells is no cause of its own: its cells
are told with the first of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from nfspec.conformance.cases.results import BAD, Cell, Results
from nfspec.conformance.report import words
from nfspec.conformance.report.messages import last_line
from nfspec.wording import found_text


@dataclass(frozen=True)
class Cause:
    """Cells of one subject that fail for one reason.

    Attributes:
        subject: Name of the subject.
        reason: The reason in words; empty if none is known.
        cells: The cells, in the order of the table, but that whose explanation others inherit is
            the first.
        partly: The properties that fail for this reason and for other ones. Their cells are among
            those of the first of these causes.
    """

    subject: str
    reason: str
    cells: tuple[Cell, ...]
    partly: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """The subject, the reason, and which properties fail for it."""
        ids = dict.fromkeys(cell.property for cell in self.cells)
        count = words.counted(len([*set(ids) - {*self.partly}]), "property", "properties")
        others = f"; {', '.join(self.partly)} for other reasons, too" if self.partly else ""
        return f"{self.subject}: {self.reason or 'no cause is known'} ({count}{others})"


def causes(results: Results) -> list[Cause]:
    """The bad cells, by subject and reason: explained ones first, then errors, then the rest."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in words.bad(results):
        subject = words.subject(cell)
        groups.setdefault((subject, _reason(results, cell)), []).append(cell)
    several = {key: _parts(results, cells[0]) for key, cells in groups.items()}
    partly: dict[tuple[str, str], list[Cell]] = {key: [] for key in groups}
    for key in [*groups]:
        if made_of := _made_of(key, several):
            cells = groups.pop(key)
            groups[made_of[0]] += cells
            for other in made_of:
                partly[other] += cells
    listed = [
        Cause(
            *key,
            tuple(sorted(cells, key=lambda cell: (cell in partly[key], _inherits(results, cell)))),
            tuple(dict.fromkeys(cell.property for cell in partly[key])),
        )
        for key, cells in groups.items()
    ]
    return sorted(listed, key=_order)


def _parts(results: Results, cell: Cell) -> frozenset[str]:
    """The conventions, defects and factor of a cell's explanation."""
    entry = entry_of(results, cell) if cell.verdict == "fail" else None
    if entry is None:
        return frozenset()
    fields = {conventions({name: value}) for name, value in entry["fields"].items()}
    return frozenset({*fields, *entry.get("defects", ()), *filter(None, [entry.get("factor")])})


def _made_of(
    key: tuple[str, str], several: dict[tuple[str, str], frozenset[str]]
) -> list[tuple[str, str]]:
    """The causes of the same subject that one is made of; none if it is none of others."""
    own = several[key]
    smaller = {k: parts for k, parts in several.items() if k[0] == key[0] and parts and parts < own}
    largest = [k for k, parts in smaller.items() if not any(parts < p for p in smaller.values())]
    return largest if frozenset().union(*(smaller[k] for k in largest)) == own else []


def _inherits(results: Results, cell: Cell) -> bool:
    entry = entry_of(results, cell)
    return entry is not None and "inherits" in entry


def _order(cause: Cause) -> int:
    if not cause.reason:
        return 2
    return int(cause.cells[0].verdict not in ("fail", "stale deviation"))


def _reason(results: Results, cell: Cell) -> str:
    if cell.verdict == "fail":
        entry = entry_of(results, cell)
        return reason(entry) if entry else ""
    if cell.verdict in ("error", "crashed", "hung"):
        return f"{cell.verdict}: {last_line(cell.message).removeprefix(f'{words.subject(cell)}: ')}"
    return {
        "uncovered": "no case met a regime that cases have to meet",
        "stale deviation": "passes, though a deviation says that it fails",
    }[cell.verdict]


def entry_of(results: Results, cell: Cell) -> dict[str, Any] | None:
    """The explanation of a cell; None if there is none."""
    place = (words.subject(cell), cell.property)
    entries = (e for e in results.explanations if (e["subject"], e["property"]) == place)
    return next(entries, None)


def reason(entry: dict[str, Any]) -> str:
    """An explanation as a phrase: conventions, a mistake, a factor; empty if it has none."""
    parts = []
    if entry["fields"]:
        at_most, says = entry.get("at_most", ()), entry.get("says", {})
        parts.append(f"behaves as {conventions(entry['fields'], at_most, says)}")
    if named := entry.get("defects", ()):
        parts.append(f"consistent with: {'; '.join(named)}")
    if factor := entry.get("factor", ""):
        parts.append(f"off by the factor {factor}")
    return "; ".join(parts)


def conventions(
    fields: dict[str, Any],
    at_most: Iterable[str] = (),
    says: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Fields and their values as text; those of `at_most` may be smaller. `says` has the spec's."""
    texts = (
        f"{name} = {_value(name, value, at_most)}{_said(name, value, says)}"
        for name, value in fields.items()
    )
    return ", ".join(texts)


def _value(name: str, value: Any, at_most: Iterable[str]) -> str:
    return f"{found_text(value)} or less" if name in at_most else found_text(value)


def _said(name: str, value: Any, says: Mapping[str, Any]) -> str:
    """The spec's value of a field, in brackets; nothing where it is the same or none is known."""
    other = name in says and found_text(says[name]) != found_text(value)
    return f" (the spec says {found_text(says[name])})" if other else ""


def explanation(results: Results, entry: dict[str, Any]) -> str:
    """A line on an entry of `Results.explanations`."""
    asked = f"{entry['subject']} asked for {entry['asked']}"
    before = _before(results, entry)
    after = words.ratio(entry["ratio_after"])
    if "error" in entry:
        return f"{asked}: {entry['error']} ({entry['property']}: {before})"
    if not reason(entry):
        none = "no other conventions were found with which it conforms"
        return f"{asked}: {none} ({entry['property']}: {before})"
    same = f", as {entry['inherits']}" if "inherits" in entry else ""
    ratios = f"{entry['property']}{same}: {before} before, ratio {after} after"
    return f"{asked}: {reason(entry)} ({ratios})"


def _before(results: Results, entry: dict[str, Any]) -> str:
    """The ratio before an explanation, or the reason why it is infinite."""
    place = (entry["subject"], entry["property"])
    cells = (c for c in results.cells if (words.subject(c), c.property) == place and c.infinite)
    infinite = next((cell.infinite for cell in cells), "no bound holds")
    size = words.ratio(entry["ratio_before"])
    return infinite if size == "inf" else f"ratio {size}"


def answers(results: Results) -> list[str]:
    """A sentence for each subject that fails somewhere and is explained, joined over its
    properties."""
    failed = [cell for cell in results.cells if cell.verdict in BAD | {"deviates"}]
    subjects = dict.fromkeys(map(words.subject, failed))
    several = (
        _answer(results, name, [cell for cell in failed if words.subject(cell) == name])
        for name in subjects
    )
    return [sentence for sentence in several if sentence]


def _answer(results: Results, subject: str, cells: list[Cell]) -> str:
    entries = {cell.property: entry_of(results, cell) for cell in cells}
    explained = [entry for entry in entries.values() if entry and reason(entry)]
    if not explained:
        return ""
    fields = _values(explained)
    defects = _once(defect for entry in explained for defect in entry.get("defects", ()))
    factors = _once(entry.get("factor", "") for entry in explained)
    left = [cell.property for cell in cells if not _explained(entries[cell.property], cell)]
    parts = [f"behaves as {fields}"] if fields else []
    parts += [f"consistent with {defect}" for defect in defects]
    parts += [f"off by the factor {factor}" for factor in factors]
    ids = ", ".join(dict.fromkeys(left))
    if defects or factors:
        rest = f"; not explained: {ids}" if left else ""
        return f"{subject}: {'; '.join(parts)}{rest}."
    rest = f", but for {ids}" if left else ""
    return f"{subject}: {parts[0]}. With that: conformant{_extent(results)}{rest}."


def _extent(results: Results) -> str:
    """The properties that were run, if they were not all."""
    chosen = results.settings.get("properties", ())
    return f" in what was run ({', '.join(chosen)})" if chosen else ""


def _explained(entry: dict[str, Any] | None, cell: Cell) -> bool:
    return cell.verdict in ("fail", "deviates") and entry is not None and bool(reason(entry))


def _values(entries: Iterable[dict[str, Any]]) -> str:
    """All fields that entries name; a field with several values has each with its properties."""
    values: dict[str, dict[str, list[str]]] = {}
    for entry in entries:
        for name, value in entry["fields"].items():
            says = entry.get("says", {})
            text = conventions({name: value}, entry.get("at_most", ()), says)
            values.setdefault(name, {}).setdefault(text, []).append(entry["property"])
    texts = []
    for of_field in values.values():
        for text, ids in of_field.items():
            where = f" (in {', '.join(ids)})" if len(of_field) > 1 else ""
            texts.append(f"{text}{where}")
    return ", ".join(texts)


def _once(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text]
