"""Printing of the commands: compact numbers and plain tables, without colour, in 80 columns."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import typer

from nfspec.wording import printable

WIDTH = 80
LONGEST = 500  # characters of a name
UNITS = ("", " k", " M", " G", " T")


def compact(number: int) -> str:
    """A count at three significant digits: 736, 3.25 M, 12.4 G."""
    if number < 1000:
        return str(number)
    value, unit = float(number), 0
    while value >= 999.5 and unit + 1 < len(UNITS):
        value, unit = value / 1000, unit + 1
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f}{UNITS[unit]}"


def table(rows: Sequence[Sequence[str]], align: str, gap: str = "  ") -> list[str]:
    """Rows of cells as aligned lines; `align` has a `<` or `>` for each column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        gap.join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def broken(rows: Iterable[Sequence[str]], most: int) -> list[list[str]]:
    """Rows of cells, of which the first goes on below where it is longer than `most` characters, so
    that names that end in different ways stay different."""
    lines: list[list[str]] = []
    for name, *cells in rows:
        first, *others = textwrap.wrap(
            cut(name, LONGEST), most, subsequent_indent="  ", break_on_hyphens=False
        ) or [""]
        lines += [[first, *cells], *([other, *("" for _ in cells)] for other in others)]
    return lines


def cut(text: str, most: int) -> str:
    """A text for a cell, printable and not longer than `most` characters."""
    shown = printable(text)
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def clean(text: str) -> str:
    """Text of several lines without what a terminal would act on: escape sequences as `\\x1b`."""
    return "\n".join(map(printable, text.split("\n")))


class Bold(str):
    """A heading: bold on a terminal, plain elsewhere."""

    __slots__ = ()


def bold(line: str) -> str:
    """A line as a heading, for `print_lines`."""
    return Bold(line)


def print_text(text: str) -> None:
    """Print a result by one write, so that a reader who leaves early is noticed once.

    Raises:
        OSError: stdout is closed or full; `filename` says that it was stdout.
    """
    try:
        typer.echo(text)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "stdout") from None


def print_lines(lines: Sequence[str]) -> None:
    """Print lines, with characters that a terminal would act on spelt out."""
    print_text("\n".join(map(_shown, lines)))


def _shown(line: str) -> str:
    return typer.style(clean(line), bold=True) if isinstance(line, Bold) else clean(line)


def as_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV (RFC 4180, with line feeds); what a terminal would act on is spelt out."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([printable(str(cell)) for cell in row] for row in rows)
    return text.getvalue()


def print_json(data: Any) -> None:
    """Print data as indented ASCII JSON, keys in the order given."""
    print_text(json.dumps(data, indent=2))


def say(text: str) -> None:
    """Print a message to stderr. The command goes on if stderr is closed or full."""
    with contextlib.suppress(OSError):
        typer.echo(clean(text), err=True)
