"""`nfspec list`: the built-in specs, read without resolving any of them."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from nfspec.console import bold, print_json, print_lines, table
from nfspec.language.loader import dialects, layers, merge, variants


def _summary(name: str) -> dict[str, Any]:
    data, _ = merge(layers(name))
    return {
        "name": name,
        "kind": "dialect" if name in dialects() else "network",
        "family": data.get("family"),
        "depth": data["stages"].get("depth"),
        "test": data["input"].get("test"),
        "source": data["source"],
    }


def _brief(source: str) -> str:
    """The first paper or file that a source names."""
    return re.split(r"[;(]|: ", source)[0].strip()


def list_specs(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the built-in networks and base specs."""
    summaries = [_summary(name) for name in (*variants(), *dialects())]
    if as_json:
        print_json(summaries)
        return
    rows = [("", "depth", "px", "source")]
    for each in summaries:
        depth = ",".join(map(str, each["depth"] or ()))
        rows.append((f"  {each['name']}", depth, str(each["test"] or ""), _brief(each["source"])))
    header, *lines = table(rows, "<<><")
    printed = [bold(header)]
    for family in dict.fromkeys(each["family"] for each in summaries):
        printed.append(bold(family or "base specs (dialects): to extend, not networks"))
        pairs = zip(summaries, lines, strict=True)
        printed += [line for each, line in pairs if each["family"] == family]
    print_lines(printed)
