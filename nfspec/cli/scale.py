"""`nfspec scale`: a spec at a budget."""

from __future__ import annotations

import contextlib
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer

from nfspec.cli.asking import SECONDS_BETWEEN_LINES
from nfspec.cli.new import checked_name, extends_of
from nfspec.cli.options import MAX_IMAGES, Changes, changed_by, names
from nfspec.console import WIDTH, compact, print_json, print_lines, print_text, say, table
from nfspec.cost.accelerators import ACCELERATORS
from nfspec.design.pacing import MOST_SECONDS
from nfspec.design.scaling import MOST_MACS, MOST_PARAMETERS, Scaled
from nfspec.design.scaling import scale as scaled_to
from nfspec.design.searching import FAMILY, KNOBS
from nfspec.design.written import kept, scaled_file
from nfspec.errors import InputError
from nfspec.files import write
from nfspec.language.differences import spec_fields
from nfspec.language.loader import load
from nfspec.language.template import path_text, value_text
from nfspec.outputs import FORCE_HELP, require_free
from nfspec.wording import printable

KNOWN = [name for name in ACCELERATORS if name != "cpu"]
UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
AMOUNT = re.compile(r"(\d{1,20}(?:\.\d{1,20})?(?:e\+?\d{1,2})?)\s?([kMGT]?)")
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
TIME = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\s?(s|ms|us|ns)")
WITHIN = 0.03  # of a budget: a larger miss is said


def amount(option: str, text: str | None, most: float) -> float | None:
    """A number such as 2G or 30M.

    Raises:
        InputError: Something else, or a number that is too large.
    """
    if text is None:
        return None
    found = AMOUNT.fullmatch(text.strip())
    value = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not 1.0 <= value <= most:
        shown = text if len(text) <= 40 else text[:37] + "..."
        raise InputError(
            f"{option}: expected a number such as 2G or 30M, from 1 to {most:g}; "
            f"found {printable(shown)!r}"
        )
    return value


def seconds(text: str | None) -> float | None:
    """A time such as 20ms.

    Raises:
        InputError: Something else, or a time that is too long.
    """
    if text is None:
        return None
    found = TIME.fullmatch(text.strip())
    value = float(found[1]) * SECONDS[found[2]] if found else 0.0
    if not 0.0 < value <= MOST_SECONDS:
        raise InputError(
            f"--step: expected a time such as 20ms or 1.5s, to {MOST_SECONDS:g}s; "
            f"found {printable(text[:40])!r}"
        )
    return value


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A spinner with what is tried on a terminal's stderr; a line now and then elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("looking") as status:
            yield status.update
        return
    said = [monotonic()]

    def tell(message: str) -> None:
        if monotonic() - said[0] > SECONDS_BETWEEN_LINES:
            said[0] = monotonic()
            say(f"{message} ...")

    yield tell


def scale(
    spec: Annotated[
        str, typer.Argument(metavar="SPEC", help="A built-in spec, or the path of a .toml file.")
    ],
    macs: Annotated[
        str | None,
        typer.Option(metavar="NUMBER", help="Multiply-accumulates at the test size, such as 2G."),
    ] = None,
    params: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="Parameters, such as 30M.")
    ] = None,
    step: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Time of a training step, such as 20ms, by nfspec cost."),
    ] = None,
    accelerator: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"Device of --step: {', '.join(KNOWN)}.")
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, max=MAX_IMAGES, metavar="N", help="Images in a step of --step.")
    ] = 256,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="float32, bfloat16 or float16, of --step. Default: the recipe's."
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="Numbers that may change: some of width, depth and size, a list with commas; or "
            "family: depths and sizes as from F0 to F7, and widths for the rest."
        ),
    ] = ",".join(KNOBS),
    out: Annotated[
        Path | None, typer.Option(help="File to write. Default: the spec is printed.")
    ] = None,
    changes: Changes = None,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a spec of the same kind at a budget.

    It extends SPEC and states what differs: depths and sizes of images first, then widths, and
    widths of groups that fit them. Conventions, alpha and the recipe are kept.

    \b
      nfspec scale nfnet-f0 --macs 2G --out small.toml
      nfspec scale nf-regnet-b0 --macs 4G --params 30M
      nfspec scale nfnet-f0 --macs 100G --by family
      nfspec scale nfnet-f0 --step 20ms --accelerator h100

    With --macs and --step, the smaller of the two networks is made.

    Nothing in a spec is run, whoever wrote it.
    """
    budget = amount("--macs", macs, MOST_MACS), amount("--params", params, MOST_PARAMETERS)
    time = seconds(step)
    if (*budget, time) == (None, None, None):
        raise InputError("give a budget: --macs, --params or --step")
    if time is None and accelerator is not None:
        raise InputError("--accelerator is the device of --step; give --step, too")
    if out is not None:
        if out.suffix != ".toml":
            raise InputError(f"{out}: the name of a spec's file ends in .toml")
        require_free(out, force)
    name = checked_name(out.stem if out else f"{Path(spec).stem}-scaled")
    extends = extends_of(spec, out.parent if out else Path())
    knobs = names(by)
    with _progress() as progress:
        scaled = scaled_to(
            load(spec, changed_by(changes)),
            *budget,
            knobs,
            step=time,
            accelerator=accelerator,
            batch=batch,
            precision=precision,
            progress=progress,
        )
    scaled = replace(scaled, parent=load(spec))  # what --set changed stands in the file, too
    text = scaled_file(scaled, name, extends, knobs)
    if scaled.miss > WITHIN:
        more = "" if {"width", FAMILY} & {*knobs} else "; add width to --by to come nearer"
        off = f"{scaled.miss:.0%} off the budget, which is as near as {by} comes"
        say(f"{scaled.limit or off}{more}")
    if out is not None:
        require_free(out, force)  # again: a file may have come to be there meanwhile
        write(out, text)
    if as_json:
        print_json(_json(scaled, name, extends))
    elif out is None:
        print_text(text.rstrip("\n"))
    else:
        print_lines([*_lines(scaled, name), f"wrote {printable(str(out))}"])


def _json(scaled: Scaled, name: str, extends: str) -> dict[str, Any]:
    counted = scaled.counted
    return {
        "name": name,
        "extends": extends,
        "digest": scaled.spec.digest,
        "macs": counted.macs,
        "parameters": counted.parameters,
        "size": counted.size[0],
        "step_seconds": scaled.seconds,
        "miss": scaled.miss,
        "limit": scaled.limit,
        "changed": {path_text(path): value for path, value in scaled.changed.items()},
        "kept": kept(scaled),
    }


def _lines(scaled: Scaled, name: str) -> list[str]:
    old, parent = spec_fields(scaled.parent), scaled.parent.name
    counts = [
        ("MACs", *(compact(each.macs) for each in (scaled.before, scaled.counted))),
        ("parameters", *(compact(each.parameters) for each in (scaled.before, scaled.counted))),
    ]
    changed = [
        (path_text(path), value_text(old[path]), value_text(value))
        for path, value in scaled.changed.items()
    ]
    if scaled.seconds is not None:
        counts.append(("step", "", f"{1e3 * scaled.seconds:.4g} ms"))
    return [
        *table([("", parent, name), *counts, *changed], "<<<"),
        *textwrap.wrap(f"as they were: {', '.join(kept(scaled))}", WIDTH),
        f"distance from the budget: {scaled.miss:.1%}",
    ]
