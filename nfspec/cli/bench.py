"""`nfspec bench`: what it costs, next to what people would use instead."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nfspec.cli.compare import parse_backends
from nfspec.cli.options import MAX_IMAGES, MAX_SIDE
from nfspec.compilation import BACKENDS, missing
from nfspec.console import print_json, print_lines, say, table
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


def _names(text: str, option: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if wrong := [name for name in names if name not in known]:
        raise InputError(f"{option}: expected some of {', '.join(known)}; found {', '.join(wrong)}")
    return names


def _measure(results: list[Result], races: Iterable[Callable[[], list[Result]]]) -> bool:
    """Add what each one finds; whether all were run, and not interrupted."""
    from nfspec.benchmarks.run import Interrupted

    try:
        for race in races:
            results += race()
    except Interrupted as cut:
        results += cut.results
        say("interrupted; what was measured follows")
        return False
    return True


def _say(line: str) -> None:
    say(f"{line} ...")


def bench(
    variant: Annotated[
        str, typer.Argument(help="A built-in spec, or the path of a .toml file.")
    ] = "nfnet-f0",
    backends: Annotated[str, typer.Option(help="Frameworks, with commas.")] = ",".join(BACKENDS),
    against: Annotated[str, typer.Option(help="Peers, with commas.")] = ",".join(PEERS),
    work: Annotated[
        str | None,
        typer.Option(help="forward, forward-bf16, step, agc, optimizer, build; all if not given."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=MAX_IMAGES, help="Images in a batch.")] = 4,
    size: Annotated[int, typer.Option(min=1, max=MAX_SIDE, help="Side of the images, px.")] = 192,
    rounds: Annotated[int, typer.Option(min=1, max=1_000, help="Runs of each contestant.")] = 7,
    growth: Annotated[
        bool, typer.Option("--growth", help="Forward passes of F0 to F3 and of batches, too.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="A folder for BENCH.md, results.json and bench.png.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a network next to its peers.

    In one run, each contestant in a process of its own and in turns. Times are medians; only ratios
    within a run mean anything. Packages that are missing are named, and what needs them is left
    out. NFNet-F0 takes about ten minutes on two cores.

    Nothing in a file is run, whoever wrote it.
    """
    from nfspec.benchmarks import report, run
    from nfspec.benchmarks.works import WORKS, Setup, contestants
    from nfspec.cost import machine

    plan = resolve(load(variant))
    known = (*WORKS, "build")
    works = known if work is None else _names(work, "--work", known)
    if not works:
        raise InputError(f"--work: expected some of {', '.join(known)}; found {work!r}")
    wanted = parse_backends(backends)
    peers = _names(against, "--against", PEERS)
    absent = {name: message for name in wanted if (message := missing(name)) is not None}
    for name, message in absent.items():
        say(f"{name}: {message}")
    wanted = tuple(name for name in wanted if name not in absent)
    if not wanted:
        raise BackendError("none of the frameworks asked for is installed")
    rivals = max(
        (len(contestants(name, wanted, peers)) for name in works if name in WORKS), default=1
    )
    require_free_memory(plan, "measure", rivals)  # each in its own process, all at one time
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
    races: list[Callable[[], list[Result]]] = []
    for name in works:
        if name == "build":
            races.append(partial(run.build, variant, wanted, _say))
            continue
        setup = Setup(variant, 1, 256) if name == "forward-bf16" else Setup(variant, batch, size)
        who = contestants(name, wanted, peers)
        races.append(partial(run.race, name, who, setup, rounds, _say))
    if growth:
        setups = [Setup(name, batch, size) for name in GROWTH if name != variant]
        setups += [Setup(variant, n, size) for n in BATCHES if n != batch]
        for setup in setups:
            folded = [c for c in contestants("forward", wanted, ()) if c.options.get("folded")]
            races.append(partial(run.race, "forward", folded, setup, 3, _say))
    results: list[Result] = []
    complete = _measure(results, races)

    if out is not None:
        from nfspec.benchmarks.plot import plot

        write(out / "results.json", json.dumps(report.data(results, facts), indent=1) + "\n")
        write(out / "BENCH.md", report.markdown(results, facts))
        try:
            plot(results, facts, out / "bench.png")
        except InputError as error:
            say(f"no bench.png: {error}")
    if as_json:
        print_json(report.data(results, facts))
    else:
        print_lines(_lines(results, facts))
    if not complete:
        raise typer.Exit(130)


def _lines(results: list[Result], facts: dict[str, Any]) -> list[str]:
    """The tables; what did not run is named below each."""
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
    rows = report.rooflines(results, facts)
    return [*lines, "", *table(rows, "<>>>")] if len(rows) > 1 else lines
