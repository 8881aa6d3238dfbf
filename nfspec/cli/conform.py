"""`nfspec conform`: properties of implementations, within bounds that follow from rounding."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nfspec.arguments import MAX_SEED
from nfspec.cli.compare import parse_backends
from nfspec.compilation import BACKENDS
from nfspec.console import WIDTH, clean, print_lines, print_text, say, table
from nfspec.errors import BackendError, InputError
from nfspec.outputs import FORCE_HELP, alone, require_own

if TYPE_CHECKING:
    from nfspec.conformance.cases.results import Cell, Results, RunVerdict
    from nfspec.conformance.running.deviations import Deviation
    from nfspec.conformance.running.run import Progress, Settings

MODES = ("f32", "tf32", "bf16", "f16")
DEVICES = ("cpu", "gpu", "tpu")
MAX_TIMEOUT = 1e6  # seconds
RUN_FILES = ("journal.jsonl", "results.json", "REPORT.md", "report.html")
STATUS: dict[RunVerdict, int] = {"CONFORMANT": 0, "NOT CONFORMANT": 1, "NOTHING JUDGED": 2}
FAULT_FILES = ("faults.json", "FAULTS.md")


def _some_of(option: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names or any(name not in known for name in names):
        raise InputError(f"{option}: expected some of {', '.join(known)}; found {text!r}")
    return names


def _device(name: str) -> str:
    if name not in DEVICES:
        raise InputError(f"--device: expected one of {', '.join(DEVICES)}; found {name!r}")
    return name


def _need_packages() -> None:
    """The kit's own dependencies are an extra, as frameworks are."""
    needed = ("hypothesis", "jinja2", "packaging", "threadpoolctl")
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    if absent:
        names = ", ".join(absent)
        raise BackendError(f"conform: {names} not installed; run: pip install {' '.join(absent)}")


def _short(cell: Cell | None) -> str:
    """A cell in a few characters."""
    if cell is None:
        return "."
    if cell.verdict in ("pass", "fail", "deviates"):
        mark = {"pass": "", "fail": " !", "deviates": " d"}[cell.verdict]
        return f"{cell.worst:.2g}{mark}"
    return {"not offered": "-", "missing": "missing"}.get(cell.verdict, f"{cell.verdict}!")


def _rows(results: Results) -> list[list[str]]:
    """A row for each property, a column for each subject and mode."""
    rows = [["property", *(column.name for column in results.columns)]]
    for info in results.properties:
        cells = [results.cell(info.id, column.name) for column in results.columns]
        if any(cells):
            rows.append([info.id, *map(_short, cells)])
    return rows


def _lines(results: Results) -> list[str]:
    """The table, in as many parts as 80 columns need."""
    rows = _rows(results)
    parts: list[list[int]] = [[]]
    for i in range(1, len(rows[0])):
        widths = [max(len(row[j]) for row in rows) + 2 for j in (0, *parts[-1], i)]
        if parts[-1] and sum(widths) > WIDTH:
            parts.append([])
        parts[-1].append(i)
    lines = []
    for part in parts:
        chosen = [[row[0], *(row[i] for i in part)] for row in rows]
        lines += [*table(chosen, "<" + ">" * len(part)), ""]
    return lines


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """A live table on a terminal's stderr; a line for each finished property elsewhere."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True)
    if not console.is_terminal:

        def tell(results: Results, status: str) -> None:
            if not status.endswith("cases"):
                say(status)

        yield tell
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:

        def show(results: Results, status: str) -> None:
            shown = _lines(results)[-(console.height - 3) :] if results.columns else []
            live.update(Group(Text(clean("\n".join(shown))), Text(status, style="bold")))

        yield show


def _summary(results: Results) -> list[str]:
    """What went wrong, and the verdict in a line."""
    from nfspec.conformance.cases.results import BAD
    from nfspec.conformance.report.words import counted, explanation
    from nfspec.conformance.report.words import worst as worst_cell

    lines = []
    for cell in results.cells:
        if cell.verdict in BAD:
            lines += [f"{cell.property} on {cell.column}: {cell.verdict}", cell.message, ""]
    for column in results.columns:
        if column.problem:
            lines += [f"{column.name}: {column.problem}", ""]
    for entry in results.explanations:
        lines += [explanation(entry), ""]
    lines += results.problems
    worst = worst_cell(results.cells)
    if worst is None:
        return [*lines, results.verdict]
    cases = counted(sum(cell.cases for cell in results.cells), "case")
    return [
        *lines,
        f"{results.verdict}: {cases}, worst error / bound {worst.worst:.3g} "
        f"({worst.property} on {worst.column}), {results.seconds:.0f} s",
    ]


def _require_out(out: Path, names: tuple[str, ...], resume: bool, force: bool) -> None:
    """Refuse to begin where an earlier run, finished or not, or something else lies."""
    if resume or force:
        return
    if there := [name for name in names if os.path.lexists(out / name)]:
        raise InputError(
            f"{out} holds {', '.join(there)} of an earlier run, left as it is; go on with "
            "--resume, start anew with --force, or give another --out"
        )
    require_own(out, names[0], force)


def _finish(
    results: Results, settings: Settings, entries: tuple[Deviation, ...], out: Path
) -> list[str]:
    """Apply known deviations, look for explanations, write the reports; their paths."""
    from nfspec.conformance.conventions.explain import explain
    from nfspec.conformance.properties import PROPERTIES
    from nfspec.conformance.report import write
    from nfspec.conformance.running.deviations import apply

    asked = {info.id for info in results.properties}
    left_out = [name for name in PROPERTIES if name not in asked]
    today = datetime.now(UTC).date()
    results.problems += apply(results, entries, today, left_out)
    with _progress() as progress:
        results.explanations += explain(settings, results, progress)
    return [f"wrote {path}" for path in write(results, out)]


def _require(results: Results, required: tuple[str, ...]) -> None:
    """Refuse a run in which a subject that had to be there was not."""
    absent = [
        f"{column.name}: {column.problem}"
        for column in results.columns
        if column.subject in required and column.problem
    ]
    ran = {column.subject for column in results.columns}
    absent += [f"{name}: not among the subjects" for name in required if name not in ran]
    if absent:
        raise BackendError("--require: " + "\n".join(absent))


def conform(
    spec: Annotated[
        str | None,
        typer.Argument(help="A built-in spec, or the path of a .toml file; a general grid if not."),
    ] = None,
    backends: Annotated[
        str, typer.Option(help="nfspec on these frameworks, with commas.")
    ] = ",".join(BACKENDS),
    subject: Annotated[
        list[str] | None,
        typer.Option(help="Test this instead: timm, optax, an entry point, or module:object."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, gpu or tpu.")] = "cpu",
    mode: Annotated[str, typer.Option(help="f32, tf32, bf16, f16, with commas.")] = "f32",
    examples: Annotated[
        int,
        typer.Option(
            min=0, max=1_000_000, help="Cases drawn for a property, besides the essential ones."
        ),
    ] = 25,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Random seed of the cases.")] = 0,
    properties: Annotated[
        str, typer.Option(help="Ids such as WS-01, with commas; all if not given.")
    ] = "",
    out: Annotated[Path, typer.Option(help="Folder of the reports.")] = Path("conformance-results"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
    faults: Annotated[
        bool, typer.Option("--faults", help="Prove that the properties can fail: seed faults.")
    ] = False,
    require: Annotated[
        str, typer.Option(help="Subjects, with commas, without which to fail.")
    ] = "",
    deviations: Annotated[
        str | None, typer.Option(help="A deviations.toml; the one of nfspec if not given.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1.0, max=MAX_TIMEOUT, help="Seconds to wait for an answer.")
    ] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Test implementations against the float64 reference.

    Every operation, block, network, training run and optimiser step within the bound of rounding,
    on every framework; with a SPEC, its own shapes and conventions. Writes results.json, REPORT.md
    and report.html. Exit status 0 if conformant, 1 if not, 2 if it could not run.

    A --subject is code, which is imported and run: test only what you trust. Nothing in a SPEC or
    in deviations is run, whoever wrote it.
    """
    _need_packages()
    from nfspec.conformance.running.deviations import load as load_deviations
    from nfspec.conformance.running.run import Settings, run

    entries = load_deviations(Path(deviations) if deviations else None)
    settings = Settings(
        source=spec,
        subjects=tuple(dict.fromkeys(subject)) if subject else parse_backends(backends),
        device=_device(device),
        modes=_some_of("--mode", mode, MODES),
        examples=examples,
        seed=seed,
        properties=tuple(name.strip() for name in properties.split(",") if name.strip()),
        timeout=timeout,
    )
    names = FAULT_FILES if faults else RUN_FILES
    _require_out(out, names, resume, force)
    with alone(out):
        _require_out(out, names, resume, force)  # it may have changed before it was held
        if faults:
            _faults(settings, out, resume, as_json)
            return
        try:
            with _progress() as progress:
                results = run(settings, out, resume=resume, progress=progress)
        except KeyboardInterrupt:
            say(f"interrupted; go on with the same command and --resume --out {out}")
            raise typer.Exit(130) from None
        paths = _finish(results, settings, entries, out)
        if as_json:
            print_text(results.to_json())
        else:
            print_lines([*_lines(results), *_summary(results), *paths])
        _require(results, tuple(name.strip() for name in require.split(",") if name.strip()))
        raise typer.Exit(STATUS[results.verdict])


def _faults(settings: Settings, out: Path, resume: bool, as_json: bool) -> None:
    """Seed every fault, find the detection limits, and write the kill matrix."""
    from nfspec.conformance.report.faults import faults_markdown
    from nfspec.conformance.running.kill import KillMatrix, kill_matrix
    from nfspec.conformance.running.limits import limits
    from nfspec.files import write

    path = out / "faults.json"
    known = KillMatrix.read(path, settings) if resume else None
    out.mkdir(parents=True, exist_ok=True)

    def save(matrix: KillMatrix, message: str) -> None:
        say(message)
        write(path, matrix.to_json())

    matrix = kill_matrix(settings, (), save, known)
    matrix.limits = limits(settings, say)
    save(matrix, "done")
    text = faults_markdown(matrix)
    write(out / "FAULTS.md", text)
    bad = [*matrix.survivors, *matrix.idle]
    if as_json:
        print_text(matrix.to_json())
    else:
        print_lines(
            [
                *(f"SURVIVED: {fault} on {column}" for fault, column in matrix.survivors),
                *(f"KILLED NOTHING: {name} on {column}" for name, column in matrix.idle),
                f"{len(matrix.kills)} faults, {len(matrix.survivors)} survivors, "
                f"{len(matrix.witnesses)} properties, {len(matrix.idle)} without a kill",
                f"wrote {path}",
                f"wrote {out / 'FAULTS.md'}",
            ]
        )
    if not matrix.kills:
        raise typer.Exit(2)
    if bad:
        raise typer.Exit(1)


def replay(
    case: Annotated[str, typer.Argument(help="A case, one line of JSON as reports have it.")],
    backends: Annotated[
        str, typer.Option(help="nfspec on these frameworks, with commas.")
    ] = ",".join(BACKENDS),
    subject: Annotated[
        list[str] | None, typer.Option(help="Test this instead, as `nfspec conform` takes it.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, gpu or tpu.")] = "cpu",
    fault: Annotated[str, typer.Option(help="Inject this fault.")] = "",
) -> None:
    """Run one case and print the bound term by term.

    Exit status 0 if it is within its bound everywhere, 1 if not, 2 if it could not run.

    A --subject is code, which is imported and run: test only what you trust. Nothing in a case is
    run, whoever wrote it.
    """
    from nfspec.conformance.running.replay import replay as run_case

    subjects = tuple(dict.fromkeys(subject)) if subject else parse_backends(backends)
    answers = run_case(case, subjects, _device(device), fault)
    print_lines([line for answer in answers for line in (answer.text, "")][:-1])
    if not any(answer.ratio is not None for answer in answers):
        raise typer.Exit(2)
    if any(answer.ratio is None or answer.ratio > 1.0 for answer in answers):
        raise typer.Exit(1)
