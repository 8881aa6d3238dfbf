"""`nfspec check`: whether specs load and resolve."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from nfspec.cli.options import Changes, changed_by
from nfspec.console import compact, print_json, print_lines, say
from nfspec.errors import InputError, NfspecError, Problem, SpecError
from nfspec.language.loader import load
from nfspec.language.reading import Layer
from nfspec.plan.counting import count
from nfspec.plan.resolver import resolve


def _report(file: str, over: list[Layer]) -> tuple[dict[str, Any], NfspecError | None]:
    """The facts of one file, and the error if it has one."""
    try:
        plan = resolve(load(file, over))
        counted = count(plan)
    except SpecError as error:
        problems = [asdict(problem) for problem in error.problems]
        return {"file": file, "ok": False, "problems": problems}, error
    except InputError as error:
        problems = [asdict(Problem("INPUT", "input.test", str(error), file))]
        return {"file": file, "ok": False, "problems": problems}, error
    return {
        "file": file,
        "ok": True,
        "name": plan.name,
        "digest": plan.digest,
        "parameters": counted.parameters,
        "macs": counted.macs,
        "size": plan.test_size,
    }, None


def check(
    files: Annotated[
        list[str],
        typer.Argument(metavar="SPEC", help="Built-in specs, or paths of .toml files."),
    ],
    changes: Changes = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that specs load and resolve.

    If a spec does not, all its mistakes are printed to stderr, and the exit status is 2. Nothing in
    a file is run, whoever wrote it.
    """
    over = changed_by(changes)
    reports = [_report(file, over) for file in files]
    if as_json:
        print_json([report for report, _ in reports])
    for report, error in reports:
        if error is None and not as_json:
            parameters, macs = compact(report["parameters"]), compact(report["macs"])
            line = (
                f"{report['file']}: ok, {report['name']}, {parameters} parameters, "
                f"{macs}MACs at {report['size']} px"
            )
            print_lines([line])
        elif isinstance(error, SpecError):
            say(str(error))
        elif error is not None:
            say(f"{report['file']}: {error}")
    if any(error for _, error in reports):
        raise typer.Exit(2)
