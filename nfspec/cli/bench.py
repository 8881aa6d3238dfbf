"""`nfspec bench`: times and memory of a network, beside those of its peers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nfspec.cli.options import (
    MAX_IMAGES,
    MAX_SIDE,
    Changes,
    SpecName,
    changed_by,
    parse_backends,
    some_of,
)
from nfspec.compilation import BACKENDS, missing
from nfspec.console import print_json, print_lines, say, table
from nfspec.cost import machine
from nfspec.errors import BackendError, InputError
from nfspec.files import write
from nfspec.language.loader import load
from nfspec.outputs import FORCE_HELP, require_free
from nfspec.plan.free_memory import require_free_memory
from nfspec.plan.resolver import resolve

if TYPE_CHECKING:
    from nfspec.benchmarks.run import Result

PEERS = ("timm", "optax")
GROWTH = ("nfnet-f0", "nfnet-f1", "nfnet-f2", "nfnet-f3")
BATCHES = (1, 2, 8)
NOT_USUAL = ("source", "runtimes", "decode")  # how works begin that only --work names
MAX_CORES = 1_000


def _measure(races: Iterable[Callable[[], list[Result]]]) -> tuple[list[Result], bool]:
    """The results of all races, and whether none was interrupted."""
    from nfspec.benchmarks.run import Interrupted

    results: list[Result] = []
    try:
        for race in races:
            results += race()
    except Interrupted as cut:
        say("interrupted; what was measured follows")
        return [*results, *cut.results], False
    return results, True


def _say(line: str) -> None:
    say(f"{line} ...")


def _works(text: str | None) -> tuple[str, ...]:
    """The kinds of work that --work names; if it is not given, all but those of generated and of
    exported files, and of images."""
    from nfspec.benchmarks.works import WORKS

    known = (*WORKS, "build")
    if text is None:
        return tuple(name for name in known if not name.startswith(NOT_USUAL))
    return some_of("--work", text, known)


def _installed(names: tuple[str, ...]) -> tuple[str, ...]:
    """The frameworks that are installed; a message names each of the others."""
    absent = {name: message for name in names if (message := missing(name)) is not None}
    for name, message in absent.items():
        say(f"{name}: {message}")
    installed = tuple(name for name in names if name not in absent)
    if not installed:
        raise BackendError("none of the frameworks asked for is installed")
    return installed


def _races(
    works: tuple[str, ...], frameworks: tuple[str, ...], peers: tuple[str, ...], given: Given
) -> list[Callable[[], list[Result]]]:
    """A function for each thing to measure, which measures it."""
    from nfspec.benchmarks import run
    from nfspec.benchmarks.works import Setup, contestants

    races: list[Callable[[], list[Result]]] = []
    rest = (given.changes, given.cores)
    usual = Setup(given.variant, given.batch, given.size, *rest)
    for name in works:
        if name == "build":
            races.append(partial(run.build, Setup(given.variant, 0, 0, *rest), frameworks, _say))
            continue
        setup = Setup(given.variant, 1, 256, *rest) if name == "forward-bf16" else usual
        who = contestants(name, frameworks, peers)
        races.append(partial(run.race, name, who, setup, given.rounds, _say))
    if given.growth:
        folded = [c for c in contestants("forward", frameworks, ()) if c.options.get("folded")]
        setups = [replace(usual, variant=name) for name in GROWTH if name != given.variant]
        setups += [replace(usual, batch=n) for n in BATCHES if n != usual.batch]
        races += [partial(run.race, "forward", folded, setup, 3, _say) for setup in setups]
    return races


def _write(results: list[Result], facts: dict[str, Any], out: Path) -> None:
    from nfspec.benchmarks import report
    from nfspec.benchmarks.plot import plot

    write(out / "results.json", json.dumps(report.data(results, facts), indent=1) + "\n")
    write(out / "BENCH.md", report.markdown(results, facts))
    try:
        plot(results, facts, out / "bench.png")
    except InputError as error:
        say(f"no bench.png: {error}")


@dataclass(frozen=True)
class Given:
    """The options that say what is measured."""

    variant: str
    batch: int
    size: int
    rounds: int
    growth: bool
    changes: tuple[str, ...]
    cores: int | None


ALL_FRAMEWORKS, ALL_PEERS = ",".join(BACKENDS), ",".join(PEERS)
Frameworks = Annotated[
    str, typer.Option(metavar="NAMES", help="Frameworks to measure nfspec on, separated by commas.")
]
Against = Annotated[
    str, typer.Option(metavar="NAMES", help="Peers to measure beside it, separated by commas.")
]
Work = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Work to measure, separated by commas: forward, forward-bf16, step, agc, optimizer, "
        "build, which are the default; and the files of nfspec generate, plain and folded: "
        "source-torch, source-jax, source-tensorflow, source-mlx, in training source-step-torch, "
        "source-step-jax, and source-compiled by torch.compile, which takes minutes. runtimes: "
        "the file of nfspec export in onnxruntime and OpenVINO. decode: images for training, read "
        "by threads and by processes; with --batch 32 or more.",
    ),
]
Batch = Annotated[int, typer.Option(min=1, max=MAX_IMAGES, metavar="N", help="Images in a batch.")]
Size = Annotated[
    int, typer.Option(min=1, max=MAX_SIDE, metavar="PX", help="Side of the images, px.")
]
Rounds = Annotated[
    int,
    typer.Option(min=1, max=1_000, metavar="N", help="Number of times that each contestant runs."),
]
Cores = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MAX_CORES,
        metavar="N",
        help="Cores to use, on systems that can limit it. Default: all.",
    ),
]
Growth = Annotated[
    bool,
    typer.Option(
        "--growth", help="Also measure forward passes of F0 to F3 and with other batch sizes."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Folder for BENCH.md, results.json and bench.png."),
]
Force = Annotated[bool, typer.Option("--force", help=FORCE_HELP)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def bench(
    variant: SpecName = "nfnet-f0",
    backends: Frameworks = ALL_FRAMEWORKS,
    against: Against = ALL_PEERS,
    work: Work = None,
    batch: Batch = 4,
    size: Size = 192,
    rounds: Rounds = 7,
    cores: Cores = None,
    changes: Changes = None,
    growth: Growth = False,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Measure a network next to its peers.

    Each contestant has a process of its own, and they take turns in one run. Times are medians;
    compare only times of the same run. A package that is missing is named, and the contestants
    that need it are left out. NFNet-F0 takes about ten minutes on two cores.

    Nothing in a file is run, whoever wrote it.
    """
    from nfspec.benchmarks import report
    from nfspec.benchmarks.works import WORKS, contestants

    plan = resolve(load(variant, changed_by(changes)))
    works = _works(work)
    wanted, peers = parse_backends(backends), some_of("--against", against, PEERS, least=0)
    frameworks = _installed(wanted)
    counts = [len(contestants(name, frameworks, peers)) for name in works if name in WORKS]
    # Each is in its own process, all at one time.
    require_free_memory(plan, "measure", max(counts, default=1))
    if out is not None:
        for name in ("results.json", "BENCH.md", "bench.png"):
            require_free(out / name, force)
        out.mkdir(parents=True, exist_ok=True)

    _say("measuring the machine")
    facts: dict[str, Any] = {
        **machine.describe(),
        "sgemm_gflops": machine.sgemm(),
        "copy_gbs": machine.bandwidth(),
    }
    given = Given(variant, batch, size, rounds, growth, tuple(changes or ()), cores)
    results, complete = _measure(_races(works, frameworks, peers, given))
    if out is not None:
        _write(results, facts, out)
    if as_json:
        print_json(report.data(results, facts))
    else:
        print_lines(_lines(results, facts))
    if not complete:
        raise typer.Exit(130)


def _lines(results: list[Result], facts: dict[str, Any]) -> list[str]:
    """The tables; below each are the contestants that did not run."""
    from nfspec.benchmarks import report

    lines = report.about(facts)
    for heading, members in report.sections(results):
        errors = [f"{r.name}: {r.error}" for r in members if r.error]
        done = [report.row(r, results) for r in members if not r.error]
        lines += [
            "",
            heading,
            *(table([list(report.HEADINGS), *done], report.ALIGN) if done else []),
        ]
        lines += errors
    for rows, align in (
        (report.rooflines(results, facts), "<>>>"),
        (report.rates(results, facts), "<>>"),
    ):
        lines += ["", *table(rows, align)] if len(rows) > 1 else []
    return lines
