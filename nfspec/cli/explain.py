"""`nfspec explain`: when an error of a spec occurs, an example, and how to fix it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from nfspec.console import WIDTH, print_json, print_lines
from nfspec.errors import InputError, suggest
from nfspec.language.codes import CODES, Code, section


def _code(name: str) -> Code:
    code = CODES.get(name.upper())
    if code is None:
        hint = suggest(name.upper(), CODES)
        raise InputError(f"no error has the code {name!r}; nfspec explain lists them all{hint}")
    return code


def _wrapped(text: str) -> Iterator[str]:
    """The lines of a section, but for its code, in the width of a terminal."""
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        yield from [line] if fenced or not line else textwrap.wrap(line, WIDTH)


def _list() -> Iterator[str]:
    indent = " " * (max(map(len, CODES)) + 2)
    for code in CODES.values():
        first = code.when.partition(". ")[0].removesuffix(".")
        yield from textwrap.wrap(
            f"{code.name:<{len(indent)}}{first}", WIDTH, subsequent_indent=indent
        )


def explain(
    name: Annotated[
        str | None,
        typer.Argument(metavar="CODE", help="Code of an error; all are listed if not given."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Explain an error of a spec by its code: when it occurs, and how to fix it."""
    codes = list(CODES.values()) if name is None else [_code(name)]
    if as_json:
        facts = [asdict(code) for code in codes]
        print_json(facts if name is None else facts[0])
    elif name is None:
        print_lines(list(_list()))
    else:
        print_lines(list(_wrapped(section(codes[0]))))
