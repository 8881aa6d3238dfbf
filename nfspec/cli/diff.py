"""`nfspec diff`: the fields in which two specs differ."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from itertools import zip_longest
from typing import Annotated, Any

import typer

from nfspec.cli.options import Changes, changed_by
from nfspec.console import WIDTH, bold, compact, print_json, print_lines, table
from nfspec.language.differences import Difference, differences, read
from nfspec.language.spec import Spec
from nfspec.language.template import path_text, value_text
from nfspec.plan.counting import Count, count
from nfspec.plan.resolver import resolve


def _table(a: str, b: str, fields: list[Difference]) -> list[str]:
    """The differences in lines of 80 columns; long values are folded."""

    def shown(value: Any) -> str:
        return "-" if value is None else value_text(value)

    rows = [("field", a, b)] + [(path_text(d.path), shown(d.a), shown(d.b)) for d in fields]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if sum(widths) + 4 > WIDTH:
        room = max(20, (WIDTH - widths[0] - 4) // 2)
        folded = [[textwrap.wrap(cell, room) for cell in row[1:]] for row in rows]
        rows = [
            (row[0] if n == 0 else "", left, right)
            for row, cells in zip(rows, folded, strict=True)
            for n, (left, right) in enumerate(zip_longest(*cells, fillvalue=""))
        ]
    header, *lines = table(rows, "<<<")
    return [bold(header), *lines]


def _sum(a: Count, b: Count) -> str:
    """A text that says how much larger the second network is."""

    def change(old: int, new: int) -> str:
        sign = "-" if new < old else "+"
        return f"{compact(old)} to {compact(new)} ({sign}{compact(abs(new - old))})"

    return (
        f"parameters {change(a.parameters, b.parameters)}\n"
        f"MACs {change(a.macs, b.macs)}, at {a.size[0]} px and {b.size[0]} px"
    )


def _json(a: str, b: str, fields: list[Difference], counts: list[Count]) -> dict[str, Any]:
    return {
        "a": a,
        "b": b,
        "equal": not fields,
        "fields": [{**asdict(d), "path": path_text(d.path)} for d in fields],
        "parameters": [c.parameters for c in counts],
        "macs": [c.macs for c in counts],
        "size": [c.size[0] for c in counts],
    }


def diff(
    a: Annotated[
        str, typer.Argument(metavar="A", help="A built-in spec, dialect, or path of a .toml file.")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The spec to compare A with.")],
    changes: Changes = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show where two specs differ; exit status 1 if they do.

    --set changes B: `nfspec diff nfnet-f0 nfnet-f0 --set stages.alpha=0.3`.

    Nothing in a file is run, whoever wrote it.
    """
    (fields_a, spec_a), (fields_b, spec_b) = read(a), read(b, changed_by(changes))
    if changes:
        b = f"{b} (--set)"
    fields = differences(fields_a, fields_b)
    specs: list[Spec] = [spec_a, spec_b] if spec_a and spec_b else []
    counts = [count(resolve(spec)) for spec in specs]
    if as_json:
        print_json(_json(a, b, fields, counts))
    elif not fields:
        print_lines([f"{a} and {b} agree in every field"])
    else:
        print_lines(_table(a, b, fields) + ([_sum(*counts)] if counts else []))
    if fields:
        raise typer.Exit(1)
