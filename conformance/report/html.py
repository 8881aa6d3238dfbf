"""report.html: a run on one page that loads nothing, with a heat map and a histogram for each cell.

The page is `report.html.j2` in the style of `report.css`; here is what they need beside the words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nfspec.conformance.cases.results import BAD, HISTOGRAM_EDGES, Cell, Results
from nfspec.conformance.report import causes, messages, words

FOLDER = Path(__file__).parent

# Shades of the heat map by the upper end of their ratios: those within the bound, those beyond.
WITHIN = (2.0**-8, 2.0**-6, 2.0**-4, 2.0**-2, 2.0**-1, 1.0)
BEYOND = (2.0**2, 2.0**4, math.inf)

# Sizes of a histogram in its own units: a bar, the plot, and the margins with the labels.
BAR, HEIGHT, LEFT, TOP = 17.0, 84.0, 38.0, 16.0
LABELLED = 4  # every so many powers of two


@dataclass(frozen=True)
class Bar:
    """A bin of a histogram: its place, its meaning, and whether it is beyond the bound."""

    x: float
    y: float
    height: float
    meaning: str
    beyond: bool


@dataclass(frozen=True)
class Histogram:
    """The drawing: bars, (x, text) of labels, x of ratio 1, and the count of the tallest bin."""

    bars: tuple[Bar, ...]
    labels: tuple[tuple[float, str], ...]
    one: float
    top: int


def html(results: Results) -> str:
    """The page. Its text is the same as that of `markdown`."""
    bad = words.bad(results)
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        results=results,
        words=words,
        causes=causes,
        messages=messages,
        style=Markup((FOLDER / "report.css").read_text(encoding="utf-8")),
        titles={info.id: info.title for info in results.properties},
        wrong={(cell.property, cell.column): n for n, cell in enumerate(bad, 1)},
        rows=list(_rows(results)),
        shade=shade,
        histogram=histogram_of,
        legend=_legend(),
        plot={"bar": BAR, "height": HEIGHT, "left": LEFT, "top": TOP},
        width=BAR * (len(HISTOGRAM_EDGES) + 1),
    )


def _finalize(value: Any) -> Any:
    """Text from subjects may hold what no page should; markup is the template's own."""
    return (
        words.plain(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
    )


def _rows(results: Results) -> Iterator[tuple[int, list[tuple[Any, list[Cell | None]]]]]:
    """Tier to its properties, each with its cells in the order of the columns."""
    for tier, infos in words.tiers(results).items():
        yield (
            tier,
            [
                (info, [results.cell(info.id, column.name) for column in results.columns])
                for info in infos
            ],
        )


def shade(cell: Cell | None) -> str:
    """The classes of a cell: its shade by the logarithm of the worst ratio, or why it has none."""
    if cell is None:
        return "none"
    kind = "bad" if cell.verdict in BAD else "good"
    if not cell.cases:
        return f"{kind} broken" if cell.verdict in BAD else "none"
    worst = words.rank(cell)
    if worst <= 1:
        return f"{kind} w{next(n for n, end in enumerate(WITHIN) if worst <= end)}"
    return f"{kind} b{next(n for n, end in enumerate(BEYOND) if worst <= end)}"


def _legend() -> list[tuple[str, str]]:
    """Class and meaning of each shade."""
    within = [(f"w{n}", f"≤ {words.ratio(end)}") for n, end in enumerate(WITHIN)]
    beyond = [(f"b{n}", f"≤ {words.ratio(end)}") for n, end in enumerate(BEYOND[:-1])]
    return [*within, *beyond, (f"b{len(beyond)}", f"> {words.ratio(BEYOND[-2])}")]


def histogram_of(cell: Cell) -> Histogram | None:
    """The drawing of a cell's histogram; None if it has no cases."""
    top = max(cell.histogram, default=0)
    if not top:
        return None
    one = HISTOGRAM_EDGES.index(1.0)
    bars = []
    for n, number in enumerate(cell.histogram):
        height = max(2.0, HEIGHT * number / top)  # one case among thousands can be seen
        if number:
            meaning = f"{_bin(n)}: {words.counted(number, 'case')}"
            y = TOP + HEIGHT - height
            bars.append(Bar(LEFT + BAR * n, round(y, 1), round(height, 1), meaning, n > one))
    labels = [
        (LEFT + BAR * (n + 1), _power(edge))
        for n, edge in enumerate(HISTOGRAM_EDGES)
        if (n - one) % LABELLED == 0
    ]
    return Histogram(tuple(bars), tuple(labels), LEFT + BAR * (one + 1), top)


def _power(edge: float) -> str:
    """A power of two as people write it: 2⁻⁴, 1."""
    exponent = str(round(math.log2(edge)))
    small = exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return "1" if exponent == "0" else f"2{small}"


def _bin(n: int) -> str:
    edges = [_power(edge) for edge in HISTOGRAM_EDGES]
    if n == 0:
        return f"below {edges[0]}"
    return f"{edges[n - 1]} to {edges[n]}" if n < len(edges) else f"{edges[-1]} and above"
