"""REPORT.md: a run as text that can be committed and compared with the next."""

from __future__ import annotations

import html
import re

from nfspec.conformance.cases.results import BAD, PARTIAL, Cell, Results
from nfspec.conformance.report import causes, messages, words
from nfspec.markdown import table


def compact_verdicts(results: Results) -> dict[str, dict[str, str]]:
    """Property to column to verdict, by which two runs are compared."""
    verdicts: dict[str, dict[str, str]] = {info.id: {} for info in results.properties}
    for info in results.properties:
        for column in results.columns:
            cell = results.cell(info.id, column.name)
            verdicts[info.id][column.name] = cell.verdict if cell else words.ABSENT
    return verdicts


def markdown(results: Results) -> str:
    """A report in GitHub's Markdown. Equal runs differ in the line with the time alone."""
    parts = (
        _head(results),
        _bad(results),
        _verdicts(results),
        _unoffered(results),
        _deviations(results),
        _explanations(results),
        _figures(results),
        _worst_passing(results),
        _environment(results),
        _run(results),
    )
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def escaped(text: str) -> str:
    """Text on one line that Markdown and HTML leave as it is, also in a table."""
    return re.sub(r"([\\`*\[\]<>&|~])", r"\\\1", " ".join(words.plain(text).split()))


def code(text: str) -> str:
    """Text on one line as inline code."""
    text = " ".join(words.plain(text).split())
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def block(text: str, language: str = "text") -> list[str]:
    """Text of many lines as a code block."""
    text = words.plain(text)
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return [f"{ticks}{language}", *text.split("\n"), ticks]


def _head(results: Results) -> list[str]:
    tally = ", ".join(f"{n} {verdict}" for verdict, n in words.tally(results).items())
    told = [*causes.answers(results), *words.beside(results)]
    return [
        f"# {escaped(words.title(results))}",
        "",
        f"**{results.verdict}**",
        "",
        *(line for text in told for line in (escaped(text), "")),
        *([*(f"- Note: {escaped(note)}" for note in results.notes), ""] if results.notes else []),
        escaped(words.summary(results)),
        "",
        *([f"Cells: {tally}.", ""] if tally else []),
        escaped(words.run_line(results)),
        "",
    ]


def _verdicts(results: Results) -> list[str]:
    lines = ["## Verdicts", ""]
    lines += ["With the worst ratio |error| / bound; at most 1 is within the bound.", ""]
    names = [column.name for column in results.columns]
    for tier, infos in words.tiers(results).items():
        rows = (
            [f"{escaped(info.id)} {escaped(info.title)}"]
            + [_verdict(results.cell(info.id, name)) for name in names]
            for info in infos
        )
        lines += [f"### Tier {tier}", ""]
        lines += [words.TIERS[tier], ""] if tier in words.TIERS else []
        lines += [*table(["Property", *map(escaped, names)], rows), ""]
    return lines


def _verdict(cell: Cell | None) -> str:
    text = words.verdict(cell)
    return f"**{text}**" if cell and cell.verdict in BAD else text


def _figures(results: Results) -> list[str]:
    names = [column.name for column in results.columns]
    rows = (
        [escaped(info.id), *(words.figures(results.cell(info.id, name)) for name in names)]
        for info in results.properties
    )
    lines = ["## Ratios", "", "Cases / median / worst.", ""]
    return [*lines, *table(["Property", *map(escaped, names)], rows), ""]


def _unoffered(results: Results) -> list[str]:
    """The methods that are not offered, and why, each reason once."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in results.cells:
        if cell.verdict in PARTIAL:
            why = cell.message.split("\n")[-1] or "no reason is known"
            reasons.setdefault((cell.column, why), []).append(cell.property)
    if not reasons:
        return []
    lines = [
        f"- {escaped(column)}: {escaped(', '.join(ids))}: {escaped(why)}"
        for (column, why), ids in reasons.items()
    ]
    return ["## Not offered", "", *lines, ""]


def _deviations(results: Results) -> list[str]:
    if not results.deviations:
        return []
    lines = ["## Known deviations", ""]
    for entry in results.deviations:
        place = f"{entry['property']} on {entry['subject']}/{entry['device']}/{entry['mode']}"
        link = entry["link"]
        lines += [
            f"- **{escaped(entry['id'])}**, {escaped(place)}, versions {code(entry['versions'])}: "
            f"{escaped(entry['reason'])} {f'<{link}>' if words.is_url(link) else escaped(link)}"
            f" (opened {escaped(entry['opened'])}, expires {escaped(entry['expires'])})"
        ]
    return [*lines, ""]


def _explanations(results: Results) -> list[str]:
    if not results.explanations:
        return []
    lines = [f"- {escaped(causes.explanation(results, entry))}" for entry in results.explanations]
    return ["## Other conventions", "", *lines, ""]


def _bad(results: Results) -> list[str]:
    several = causes.causes(results)
    lines = ["## What is wrong", ""] if several or results.problems else []
    if results.problems:
        lines += [*(f"- {escaped(problem)}" for problem in results.problems), ""]
    for cause in several:
        lines += [f"### {escaped(cause.heading)}", ""]
        told = cause.cells[:1] if cause.reason else cause.cells
        others = cause.cells[len(told) :]
        for cell in told:
            lines += _cell(results, cell)
        if others:
            named = ", ".join(dict.fromkeys(cell.property for cell in others))
            lines += [f"<details><summary>For the same reason: {named}</summary>", ""]
            lines += [line for cell in others for line in _cell(results, cell)]
            lines += ["</details>", ""]
    return lines


def _cell(results: Results, cell: Cell) -> list[str]:
    """The failure of a cell, and the command that shows it."""
    titles = {info.id: info.title for info in results.properties}
    name = f"{cell.property} {titles.get(cell.property, '')}".rstrip()
    lines = [f"#### {escaped(name)} on {escaped(cell.column)}: {words.verdict(cell)}", ""]
    for part in messages.parts(cell.message) if cell.message else []:
        if part.summary:
            summary = html.escape(words.plain(part.summary))
            lines += [f"<details><summary><code>{summary}</code></summary>", ""]
        lines += [*block(part.text), ""]
        lines += ["</details>", ""] if part.summary else []
    if cell.verdict == "uncovered" and cell.coverage:
        lines += [f"Cases by regime: {escaped(words.covered(cell))}.", ""]
    command = words.replay(results, cell)
    return [*lines, *block(command, "sh"), ""] if command not in cell.message else lines


def _worst_passing(results: Results) -> list[str]:
    cells = words.worst_passing(results)
    if not cells:
        return []
    lines = [
        f"- {escaped(cell.property)}, {words.ratio(cell.worst)} on {escaped(cell.column)}: "
        f"{code(words.replay(results, cell))}"
        for cell in cells
    ]
    summary = "<details><summary>The worst case of each property that passes</summary>"
    return ["## Worst cases", "", summary, "", *lines, "", "</details>", ""]


def _environment(results: Results) -> list[str]:
    names = [escaped(column.name) for column in results.columns]
    rows = [["framework", *(escaped(column.framework) for column in results.columns)]]
    rows += [[escaped(name), *map(escaped, values)] for name, values in words.facts(results)]
    problems = [
        f"- {escaped(column.name)}: {escaped(messages.last_line(column.problem))}"
        for column in results.columns
        if column.problem
    ]
    lines = ["## Environment", "", *table(["", *names], rows), "", *problems]
    return [*lines, ""] if problems else lines


def _run(results: Results) -> list[str]:
    rows = ([escaped(key), escaped(value)] for key, value in words.run_settings(results))
    return ["## Run", "", *table(["Setting", "Value"], rows), ""]
