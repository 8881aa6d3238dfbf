"""A conformance test in one call, as a test of a project of its own makes it."""

from __future__ import annotations

import sys
from pathlib import Path

from nfspec.conformance.cases.results import Results
from nfspec.conformance.report import FILES
from nfspec.conformance.report.terminal import failures, head
from nfspec.conformance.running.journal import JOURNAL
from nfspec.conformance.running.run import Progress, Status
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.runs import conform, started
from nfspec.conformance.subjects.naming import named
from nfspec.console import say


def check(
    subject: object,
    spec: str | None = None,
    *,
    must_offer: tuple[str, ...] = (),
    properties: tuple[str, ...] = (),
    modes: tuple[str, ...] = ("f32",),
    device: str = "cpu",
    examples: int = 25,
    seed: int = 0,
    timeout: float = 600.0,
    deviations: str | Path | None = None,
    folder: str | Path | None = None,
    progress: bool | None = None,
) -> Results:
    """Test an implementation against the float64 reference, and raise an error if it is wrong.

        from nfspec.conformance import check

        def test_my_port():
            check(MyPort, "nfnet-f0", must_offer=("ws_conv", "agc", "forward"))

    Args:
        subject: A class as `nfspec.conformance.subjects` describes it, an object that has been made
            already, or a name: `timm`, `module:object`, `/path/file.py:object`.
        spec: Name or path of a spec; None for a general grid of shapes.
        must_offer: Names of the methods that the subject has to offer, for everything that the run
            asks of them.
        properties, modes, device, examples, seed, timeout: See `Settings`.
        deviations: A file of known deviations, which do not count as errors; the one that comes
            with nfspec if None.
        folder: Folder of the reports, REPORT.md, report.html and results.json; those of an earlier
            run are replaced. Without one, nothing is written.
        progress: True to say on stderr what is being done; if None, that is said where stderr is a
            terminal.

    Returns:
        The results, of verdict CONFORMANT or CONFORMANT IN PART.

    Raises:
        AssertionError: The subject is not conformant, or nothing of it could be judged. The text
            says why, and how each case can be run again.
        InputError, SpecError, DeviationError: There is no such subject, spec, setting or file, or
            `folder` has files that are no run's.
        OSError: A file cannot be written.
    """
    __tracebackhide__ = True  # pytest shows the line that calls, and not this function
    ours = folder is not None and Path(folder, JOURNAL).is_file()
    with named(subject) as name:
        settings = Settings(
            source=spec,
            subjects=(name,),
            device=device,
            modes=modes,
            examples=examples,
            seed=seed,
            properties=properties,
            timeout=timeout,
            must_offer=must_offer,
        )
        tells = sys.stderr.isatty() if progress is None else progress
        told: Progress = _tell if tells else _nothing
        results = conform(settings, folder, deviations=deviations, force=ours, progress=told)
        if not results.conformant:
            text = [*head(results), "", *failures(results), *_reports(folder, results)]
            raise AssertionError("\n".join(text))
    return results


def _tell(results: Results, status: Status) -> None:
    if not status.counting:
        say(status.text)


def _nothing(results: Results, status: Status) -> None:
    pass


def _reports(folder: str | Path | None, results: Results) -> list[str]:
    """Lines that say where the reports are."""
    if folder is None:
        return ["", 'For the whole report give check(..., folder="reports").']
    if not started(results):
        return []
    return ["", *(f"wrote {Path(folder, name)}" for name in FILES)]
