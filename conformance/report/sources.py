"""`python -m nfspec.conformance.report.sources FILE...`: runs of generated files as one table."""

from __future__ import annotations

import sys
from pathlib import Path

from nfspec.conformance.cases.results import Results
from nfspec.conformance.report import words
from nfspec.markdown import table

HEAD = ("file", "network", "spec's sha256", "verdict", "properties", "cases", "worst error / bound")


TEXT = (
    "The files of `nfspec generate`, each tested with the whole conformance kit. What a file has "
    "no counterpart of, such as a mean that is a line of the network, is tested within the "
    "network: a run is then conformant in part. `make reports-sources` writes this page."
)


def markdown(runs: list[Results]) -> str:
    """A page with a row for each run, which has one subject."""
    return "\n".join(["# Generated files, tested", "", TEXT, "", *table(HEAD, map(_row, runs)), ""])


def _row(run: Results) -> list[str]:
    (column,) = run.columns
    assert run.spec is not None
    judged = [cell for cell in run.cells if cell.cases]
    worst = words.worst(run.cells)
    return [
        f"`{column.subject}`",
        run.spec["name"],
        f"`{run.spec['digest'][:16]}`",
        run.verdict,
        f"{len(judged)} of {len(run.cells)}",
        str(sum(cell.cases for cell in judged)),
        "" if worst is None else f"{worst.worst:.2g} ({worst.property})",
    ]


if __name__ == "__main__":
    print(markdown([Results.from_json(Path(path).read_text()) for path in sys.argv[1:]]), end="")
