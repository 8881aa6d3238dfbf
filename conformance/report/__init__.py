"""Reports of a conformance run: JSON for programs, Markdown to commit, HTML to look at, a table for
a terminal.

They import the results, and the names of properties and faults.
"""

from __future__ import annotations

from pathlib import Path

from nfspec import files
from nfspec.conformance.cases.results import Results
from nfspec.conformance.report.html import html
from nfspec.conformance.report.markdown import markdown
from nfspec.errors import InputError

__all__ = ["FILES", "write"]

FILES = ("results.json", "REPORT.md", "report.html")


def write(results: Results, folder: Path) -> None:
    """Write results.json, REPORT.md and report.html, each whole or not at all.

    Args:
        results: The run.
        folder: Made if it is not there.

    Raises:
        InputError: The folder cannot be made.
        OSError: A file cannot be written; `filename` is its path.
    """
    texts = (results.to_json() + "\n", markdown(results), html(results))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from None
    for name, text in zip(FILES, texts, strict=True):
        files.write(folder / name, text)
