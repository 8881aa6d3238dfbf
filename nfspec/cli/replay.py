"""`nfspec replay`: one case of a conformance run again, with its bound term by term."""

from __future__ import annotations

from typing import Annotated

import typer

from nfspec.cli.options import (
    ALL_BACKENDS,
    CompileOnly,
    Device,
    Subjects,
    TestedBackends,
    Timeout,
    device_of,
    parse_subjects,
)
from nfspec.console import print_lines

Case = Annotated[
    str,
    typer.Argument(
        metavar="CASE", help="A case, one line of JSON; a report has one for every cell."
    ),
]
Fault = Annotated[str, typer.Option(metavar="NAME", help="Name of a fault to inject.")]


def replay(
    case: Case,
    backends: TestedBackends = ALL_BACKENDS,
    subject: Subjects = None,
    device: Device = "cpu",
    compile_only: CompileOnly = False,
    fault: Fault = "",
    timeout: Timeout = 600.0,
) -> None:
    """Run one case and print the bound term by term.

    Exit status 0 if every subject is within its bound, 1 if one is not, 2 if none answered.

    A --subject is code, which is imported and run: test only what you trust. Nothing in a case is
    run, whoever wrote it.
    """
    from nfspec.conformance.running.replay import replay as run_case
    from nfspec.conformance.running.replay import status

    there = device_of(device, compile_only)
    replayed = run_case(case, parse_subjects(subject, backends), there, fault, timeout)
    texts = (f"{each.column}: {each.verdict}\n{each.text}" for each in replayed)
    print_lines(["\n\n".join(texts)])
    raise typer.Exit(status(replayed))
