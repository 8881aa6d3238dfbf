"""`nfspec list`: the built-in specs, with their counts."""

from __future__ import annotations

import re
from dataclasses import asdict
from fnmatch import fnmatch
from typing import Annotated, Any

import typer

from nfspec.console import bold, compact, print_json, print_lines, table
from nfspec.errors import InputError, suggest
from nfspec.language.loader import dialects, layers, load, merge, variants
from nfspec.plan.counting import count
from nfspec.plan.resolver import resolve
from nfspec.weights.published import PUBLISHED


def _summary(name: str) -> dict[str, Any]:
    data, _ = merge(layers(name))
    network = name not in dialects()
    counted = count(resolve(load(name)), size=data["input"]["test"]) if network else None
    return {
        "name": name,
        "kind": "network" if network else "dialect",
        "family": data.get("family"),
        "depth": data["stages"].get("depth"),
        "test": data["input"].get("test"),
        "parameters": counted.parameters if counted else None,
        "macs": counted.macs if counted else None,
        "source": data["source"],
    }


def _brief(source: str) -> str:
    """The first paper or project that a source names."""
    first = re.split(r"[;(]|: ", source)[0].strip()
    return re.sub(r"(/| at | table | §|'s own).*", "", first)


def list_specs(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="PATTERN",
            help="Names to list, such as 'timm/*' or 'nfnet-f?'; all of them if not given.",
            show_default=False,
        ),
    ] = "*",
    pretrained: Annotated[
        bool,
        typer.Option(
            "--pretrained",
            help="List published weights instead, whose names --weights and --init take.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the built-in networks and base specs.

    Parameters and multiply-accumulates are those at the test size.
    """
    known = tuple(PUBLISHED) if pretrained else (*variants(), *dialects())
    names = [name for name in known if fnmatch(name, pattern)]
    if not names:
        raise InputError(f"no name is like {pattern!r}{suggest(pattern, known)}")
    if pretrained:
        _print_published(names, as_json)
    else:
        _print_specs([_summary(name) for name in names], as_json)


def _print_specs(summaries: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(summaries)
        return
    rows: list[tuple[str, ...]] = [("", "depth", "px", "params", "MACs", "source")]
    for each in summaries:
        depth = ",".join(map(str, each["depth"] or ()))
        counts = [compact(each[key]) if each[key] else "" for key in ("parameters", "macs")]
        pixels = str(each["test"] or "")
        rows.append((f"  {each['name']}", depth, pixels, *counts, _brief(each["source"])))
    header, *lines = table(rows, "<<>>><")
    printed = [bold(header)]
    for family in dict.fromkeys(each["family"] for each in summaries):
        printed.append(bold(family or "base specs (dialects): to extend, not networks"))
        pairs = zip(summaries, lines, strict=True)
        printed += [line for each, line in pairs if each["family"] == family]
    print_lines(printed)


def _print_published(names: list[str], as_json: bool) -> None:
    chosen = [PUBLISHED[name] for name in names]
    if as_json:
        print_json([asdict(each) for each in chosen])
        return
    rows = [("name", "network", "top-1, %", "licence")]
    for each in chosen:
        top1 = f"{each.top1:.1f}" if each.top1 else ""
        rows.append((each.name, each.variant, top1, each.license))
    header, *lines = table(rows, "<<><")
    sources = dict.fromkeys(each.source for each in chosen)
    print_lines([bold(header), *lines, "", *(f"source: {each}" for each in sources)])
