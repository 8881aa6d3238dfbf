"""`nfspec conform`: properties of implementations, within bounds that follow from rounding."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nfspec.arguments import MAX_SEED, MOST_EXAMPLES
from nfspec.cli.options import (
    ALL_BACKENDS,
    Changes,
    CompileOnly,
    Device,
    Subjects,
    TestedBackends,
    Timeout,
    device_of,
    names,
    parse_subjects,
    some_of,
)
from nfspec.console import clean, print_lines, print_text, say
from nfspec.errors import BackendError, InputError
from nfspec.outputs import FORCE_HELP

if TYPE_CHECKING:
    from nfspec.conformance import Results, Settings
    from nfspec.conformance.cases.results import RunVerdict
    from nfspec.conformance.running.against import AgainstVerdict
    from nfspec.conformance.running.kill import KillVerdict
    from nfspec.conformance.running.run import Progress, Status

STATUS: dict[RunVerdict, int] = {
    "CONFORMANT": 0,
    "CONFORMANT IN PART": 0,
    "COMPILES": 0,
    "DOES NOT COMPILE": 1,
    "NOT CONFORMANT": 1,
    "NOTHING JUDGED": 2,
}
AGAINST_STATUS: dict[AgainstVerdict, int] = {
    "THEY AGREE": 0,
    "THEY DIFFER": 1,
    "NOTHING COMPARED": 2,
}
FAULT_STATUS: dict[KillVerdict, int] = {"PROVED": 0, "NOT PROVED": 1, "NOTHING TRIED": 2}


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """A live table on a terminal's stderr; a line for each finished property elsewhere."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from nfspec.conformance.report.terminal import lines

    console = Console(stderr=True)
    if not console.is_terminal:

        def tell(results: Results, status: Status) -> None:
            if not status.counting:
                say(status.text)

        yield tell
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:

        def show(results: Results, status: Status) -> None:
            shown = lines(results)[-(console.height - 3) :] if results.columns else []
            live.update(Group(Text(clean("\n".join(shown))), Text(status.text, style="bold")))

        yield show


Spec = Annotated[
    str | None,
    typer.Argument(
        metavar="SPEC",
        help="A built-in spec, or the path of a .toml file. Default: a general grid of shapes.",
    ),
]
Mode = Annotated[
    str,
    typer.Option(
        metavar="NAMES", help="Modes of the arithmetic, a list with commas of f32, tf32, bf16, f16."
    ),
]
Examples = Annotated[
    int,
    typer.Option(
        min=0,
        max=MOST_EXAMPLES,
        metavar="N",
        help="Number of cases to draw for each property, besides the essential ones.",
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, max=MAX_SEED, metavar="N", help="Random seed of the cases.")
]
Properties = Annotated[
    str,
    typer.Option(
        metavar="IDS", help="Ids of properties, such as WS-01, a list with commas. Default: all."
    ),
]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the reports.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help=f"{FORCE_HELP} A finished run of the same command is replaced without.",
    ),
]
Faults = Annotated[
    bool,
    typer.Option(
        "--faults",
        help="Prove that the properties can fail: inject faults, and see which property finds "
        "each.",
    ),
]
Require = Annotated[
    str, typer.Option(metavar="NAMES", help="Subjects that have to run, a list with commas.")
]
AgainstTwo = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--against",
        metavar="A B",
        help="Compare two implementations, named as for --subject, with each other and the "
        "reference: which of them moved, and where first. Writes no reports.",
    ),
]
MustOffer = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Methods that every subject has to offer, such as ws_conv, a list with commas. One "
        "that it lacks, in part or whole, makes the run not conformant.",
    ),
]
Deviations = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="A file of known deviations. Default: the deviations.toml of nfspec."
    ),
]
NoExplain = Annotated[
    bool,
    typer.Option(
        "--no-explain",
        help="Do not look for the conventions or the mistake that failures follow from. That takes "
        "up to five minutes of computing for each property that fails.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def conform(
    spec: Spec = None,
    changes: Changes = None,
    backends: TestedBackends = ALL_BACKENDS,
    subject: Subjects = None,
    against: AgainstTwo = None,
    device: Device = "cpu",
    compile_only: CompileOnly = False,
    mode: Mode = "f32",
    examples: Examples = 25,
    seed: Seed = 0,
    properties: Properties = "",
    out: Out = Path("conformance-results"),
    resume: Resume = False,
    force: Force = False,
    faults: Faults = False,
    require: Require = "",
    must_offer: MustOffer = "",
    deviations: Deviations = None,
    timeout: Timeout = 600.0,
    no_explain: NoExplain = False,
    as_json: AsJson = False,
) -> None:
    """Test implementations against the float64 reference.

    Every operation, block, network, training run and optimizer step is compared on every framework,
    within the bound of rounding; with a SPEC, in its own shapes and conventions. Writes
    results.json, REPORT.md and report.html.

    Exit status 0 if conformant, also if only in part: nothing wrong was found, and a subject does
    not offer all that would be tested (--must-offer says what it has to); with --compile-only, if
    all compiles. 1 if not conformant, 2 if nothing was judged.

    A --subject is code, which is imported and run: test only what you trust. Nothing in a SPEC or
    in a file of deviations is run, whoever wrote it.
    """
    from nfspec.conformance import Settings
    from nfspec.conformance.cases.target import source_of
    from nfspec.conformance.running.settings import MODES

    if compile_only and (faults or against):
        raise InputError("--compile-only: nothing is judged, as --faults and --against need it")
    if changes and spec is None:
        raise InputError("--set: expected a SPEC to change; found none")
    settings = Settings(
        source=None if spec is None else source_of(spec, changes or ()),
        subjects=against or parse_subjects(subject, backends),
        device=device_of(device, compile_only),
        modes=some_of("--mode", mode, MODES),
        examples=examples,
        seed=seed,
        properties=names(properties),
        timeout=timeout,
        must_offer=names(must_offer),
    )
    try:
        if against:
            _against(settings, as_json)
        elif faults:
            _faults(settings, out, resume, force, as_json)
        else:
            _run(settings, out, deviations, names(require), resume, force, not no_explain, as_json)
    except KeyboardInterrupt:
        say(f"interrupted; go on with the same command and --resume --out {out}")
        raise typer.Exit(130) from None


def _run(
    settings: Settings,
    out: Path,
    deviations: str | None,
    required: tuple[str, ...],
    resume: bool,
    force: bool,
    explained: bool,
    as_json: bool,
) -> None:
    from nfspec.conformance import runs
    from nfspec.conformance.report import FILES
    from nfspec.conformance.report.terminal import shown

    with _progress() as progress:
        results = runs.conform(
            settings,
            out,
            deviations=deviations,
            required=required,
            resume=resume,
            force=force,
            explained=explained,
            progress=progress,
        )
    if as_json:
        print_text(results.to_json())
    else:
        written = FILES if runs.started(results) else ()
        print_lines([*shown(results), *(f"wrote {out / name}" for name in written)])
    if absent := runs.absent(results, required):
        raise BackendError("--require: " + "\n".join(absent))
    raise typer.Exit(STATUS[results.verdict])


def _against(settings: Settings, as_json: bool) -> None:
    from nfspec.conformance.report.against import against_json, against_lines
    from nfspec.conformance.running.against import against as compare

    comparison = compare(settings, say)
    if as_json:
        print_text(against_json(comparison))
    else:
        print_lines(against_lines(comparison))
    raise typer.Exit(AGAINST_STATUS[comparison.verdict])


def _faults(settings: Settings, out: Path, resume: bool, force: bool, as_json: bool) -> None:
    from nfspec.conformance import runs
    from nfspec.conformance.report.faults import faults_lines

    matrix = runs.seed_faults(settings, out, resume=resume, force=force, progress=say)
    if as_json:
        print_text(matrix.to_json())
    else:
        written = (out / name for name in (runs.FAULTS_JSON, runs.FAULTS_MD))
        print_lines([*faults_lines(matrix), *(f"wrote {path}" for path in written)])
    raise typer.Exit(FAULT_STATUS[matrix.verdict])
