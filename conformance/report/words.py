"""Words that all reports share: numbers, verdicts, sentences, commands, selections."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from nfspec.conformance.cases.results import BAD, Cell, Column, PropertyInfo, Results
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.report.messages import last_line
from nfspec.conformance.running.command import TIMEOUT, placed, replay_command
from nfspec.wording import printable

ABSENT = "no result"


ANSWERLESS = ("error", "crashed", "hung", "missing")  # verdicts by the cases without an answer
TIERS = {
    0: "Probes of small integers: each has one right answer, in whatever order it is summed, so "
    "that the same bits are expected.",
    1: "Operations and their gradients, element by element, each within a bound of rounding that "
    "follows from its operands; and what must not change at all.",
    2: "Blocks, each fed with the reference's input, within eight standard deviations of what "
    "rounding every operation does to the reference.",
    3: "Whole networks and their training, within bounds like those of blocks.",
    4: "One step of the optimizer from the reference's state; weights through models and files.",
}
REGIMES = {
    "normal": "numbers about standard normal",
    "positive": "activations that are all positive",
    "outlier": "one channel a hundred times as large as the others",
    "offset": "kernels whose mean is a hundred standard deviations",
    "eps": "kernels so flat that eps matters",
    "eps decides": "channels in which eps is the larger",
    "eps does not decide": "channels in which the variance is the larger",
    "range": "numbers of every size that the mode stores",
    "integer": "small integers",
    "some": "gradient norms on both sides of their limits",
    "boundary": "gradient norms within rounding of their limits",
    "tiny": "parameters smaller than eps",
    "large": "gradients a thousand times their limits",
    "zero": "units of which half are 0",
    "canary": "numbers that each rounding changes in its own way",
    "flat": "networks with kernels of channels that are nearly constant, and 0",
    "gains": "networks whose gains differ in size and sign, with some that are 0",
    "drawn": "the weights that a model is made with",
    "drops": "networks that drop blocks and features at random",
}


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
    judged = (cell for cell in cells if cell.cases and cell.verdict != "compiles")
    return max(judged, key=rank, default=None)


def subject(cell: Cell) -> str:
    """The name of a cell's subject."""
    return cell.column.rsplit("/", 2)[0]


def extent(cell: Cell) -> str:
    """A cell's worst ratio, or the reason why it is infinite."""
    return cell.infinite or ratio(cell.worst)


def verdict(cell: Cell | None) -> str:
    """A cell as a table shows it: `pass 0.12`, `fail: the bits differ`, or `error, others 0.12`,
    where the cases with an answer are within their bounds."""
    if cell is None:
        return ABSENT
    if cell.infinite:
        return f"{cell.verdict}: {cell.infinite}"
    if not cell.cases or cell.verdict == "compiles":
        return cell.verdict
    size = ratio(cell.worst)
    return (
        f"{cell.verdict}, others {size}" if cell.verdict in ANSWERLESS else f"{cell.verdict} {size}"
    )


def figures(cell: Cell | None) -> str:
    """Cases, median and worst ratio."""
    if cell is None or not cell.cases or cell.verdict == "compiles":
        return "-"
    return f"{count(cell.cases)} / {ratio(cell.median)} / {extent(cell)}"


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
    size = (
        f"the worst case: {cell.infinite}" if cell.infinite else f"worst ratio {ratio(cell.worst)}"
    )
    return f"{text}; {size}, at {cell.property} on {cell.column}."


def beside(results: Results) -> list[str]:
    """The sentences beside the verdict: what is not offered, or why nothing was judged."""
    partial = [sentence for column in results.columns for sentence in _unoffered(results, column)]
    match results.verdict:
        case "CONFORMANT IN PART":
            return [f"Nothing wrong was found in what is offered. {' '.join(partial)}"]
        case "NOTHING JUDGED":
            stopped = [column for column in results.columns if column.problem]
            told = (f"{column.name}: {last_line(column.problem)}" for column in stopped)
            return ["No case was answered.", *told]
        case "COMPILES" | "DOES NOT COMPILE":
            targets = {str(c.facts["compiled_for"]) for c in results.columns if c.facts}
            return [
                f"Compiled for {', '.join(sorted(targets))}. This says nothing of numbers there.",
                *partial,
            ]
        case _:
            return partial


def _unoffered(results: Results, column: Column) -> list[str]:
    """The part of a run that a column does not offer, in a sentence; empty if it offers all."""
    cells = [cell for cell in results.cells if cell.column == column.name]
    whole = [cell for cell in cells if cell.verdict == "not offered"]
    part = [cell.property for cell in cells if cell.unoffered and cell not in whole]
    if not whole and not part:
        return []
    methods = dict.fromkeys(PROPERTIES[c.property].method for c in whole if c.no_method)
    named = [f"it has no {', '.join(methods)}"] if methods else []
    reasons: dict[str, list[str]] = {}
    for cell in whole:
        if not cell.no_method:
            why = last_line(cell.message).removeprefix(f"{column.subject}: ")
            reasons.setdefault(why, []).append(cell.property)
    named += [f"{', '.join(ids)}: {why}" for why, ids in reasons.items()]
    told = []
    if whole:
        told = [f"{len(whole)} of {counted(len(cells), 'property', 'properties')} not offered"]
        told[0] += f" ({'; '.join(named)})" if named else ""
    if part:
        told.append(f"{len(part)} offered in part ({', '.join(part)})")
    return [f"{column.name}: {', '.join(told)}."]


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
    name, device, _ = cell.column.rsplit("/", 2)
    return replay_command(
        json.dumps(cell.worst_case, separators=(",", ":")),
        name,
        device,
        timeout=results.settings.get("timeout", TIMEOUT),
        folder=results.folder if placed(name, cell.worst_case.get("spec", "")) else "",
    )


def case(fields: dict[str, Any]) -> str:
    """A case as a reader skims it: `size 9, stride 2`."""
    words = [f"{plain(key)} {setting(value)}" for key, value in fields.items()]
    meaning = REGIMES.get(str(fields.get("regime", "")))
    return ", ".join([*words, f"a regime of {meaning}"] if meaning else words)


def covered(cell: Cell) -> str:
    """The regimes of a cell, each with its meaning and the number of cases that met it."""
    meanings = {name: f" ({REGIMES[name]})" if name in REGIMES else "" for name in cell.coverage}
    return ", ".join(
        f"{plain(name)} {count(n)}{meanings[name]}" for name, n in cell.coverage.items()
    )


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
