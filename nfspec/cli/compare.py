"""`nfspec compare`: one network on every framework against the float64 reference."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nfspec.arguments import MAX_SEED
from nfspec.cli.options import MAX_SIDE, Changes, SpecName, changed_by, parse_backends
from nfspec.compilation import BACKENDS
from nfspec.console import compact, print_json, print_lines, say, table
from nfspec.data.images import prepare, sample_photo
from nfspec.errors import BackendError
from nfspec.language.loader import load
from nfspec.plan.counting import count
from nfspec.plan.resolver import resolve

if TYPE_CHECKING:
    from nfspec.conformance.compare import Comparison, Progress, Run


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """A spinner with the present step on a terminal's stderr; a line for each step elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda message: say(f"{message} ...")
        return
    with console.status("starting") as status:
        yield status.update


def _rows(result: Comparison) -> list[list[str]]:
    ran = result.ran
    rows = [["tap", *(run.backend for run in ran), "bound"]]
    for tap in result.taps:
        cells = []
        for run in ran:
            mark = "" if result.within(run, tap) else " !"
            cells.append(f"{run.distance[tap]:.1e}{mark}")
        rows.append([tap, *cells, f"{result.bound[tap]:.1e}"])
    return rows


def _time_rows(result: Comparison) -> list[list[str]]:
    ran = result.ran
    rows = [["seconds", *(run.backend for run in ran), "float64 NumPy"]]
    rows.append(["build the model", *(f"{run.build_seconds:.2f}" for run in ran), ""])
    rows.append(["first forward pass", *(f"{run.first_seconds:.2f}" for run in ran), ""])
    best = [f"{run.forward_seconds:.2f}" for run in ran]
    rows.append(["forward pass, best of 3", *best, f"{result.reference_seconds:.2f}"])
    return rows


def verdict(result: Comparison) -> str:
    """The verdict, and what it follows from, in one line."""
    if result.failed:
        return f"{result.verdict}: {', '.join(run.backend for run in result.failed)} failed"
    if not result.ran:
        return f"{result.verdict}: no framework ran"
    for run in result.ran:
        if beyond := result.beyond(run):
            tap, distance = beyond[0], run.distance[beyond[0]]
            bound = result.bound[tap]
            return (
                f"{result.verdict}: {run.backend} leaves the bound first at {tap} "
                f"({distance:.1e} > {bound:.1e})"
            )
    worst = max(run.distance["logits"] for run in result.ran)
    names = ", ".join(run.backend for run in result.ran)
    return f"{result.verdict} on {names}: logits within {worst:.1e}"


def _about(run: Run) -> str:
    if run.problem:
        return f"{run.backend}: {run.problem}"
    facts = run.facts
    return f"{run.backend} {facts['version']}, keras {facts['keras']}, on {facts['device']}"


def _json(result: Comparison, header: dict[str, Any]) -> dict[str, Any]:
    return {
        **header,
        "bound": result.bound,
        "runs": [asdict(run) for run in result.runs],
        "reference_seconds": result.reference_seconds,
        "same": result.same,
        "verdict": verdict(result),
    }


def compare(
    variant: SpecName,
    image: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="An image file; matplotlib's sample photo if not given."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_SIDE,
            metavar="PX",
            help="Side of the image in px; the spec's test size if not given.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS",
            help="A .safetensors file of weights. Default: random ones, from --seed.",
        ),
    ] = None,
    backends: Annotated[
        str, typer.Option(metavar="NAMES", help="The frameworks to compare, a list with commas.")
    ] = ",".join(BACKENDS),
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, metavar="N", help="Random seed of the weights.")
    ] = 0,
    changes: Changes = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the frameworks with the reference.

    Runs one network on one image in each framework, and in float64 NumPy, and prints how far apart
    they are, block by block. Each framework runs in a process of its own, with the same weights and
    image. Exit status 1 if one of them is further away, at any tap, than float32 rounding explains.

    Nothing in a spec, image or file of weights is run, whoever wrote it.
    """
    from nfspec.conformance.compare import compare as run_comparison

    spec = load(variant, changed_by(changes))
    plan = resolve(spec)
    wanted = parse_backends(backends)
    size = size or plan.test_size
    counted = count(plan, size)
    images = prepare(image or sample_photo(), spec.input, size)
    with _progress() as progress:
        result = run_comparison(
            spec, images, wanted, seed=seed, weights_path=weights, progress=progress
        )
    if not any(run.installed for run in result.runs):
        raise BackendError("\n".join(_about(run) for run in result.runs))
    drawn = f"drawn from seed {seed}, every gain and bias away from its initial value"
    header = {
        "variant": plan.name,
        "digest": plan.digest,
        "parameters": counted.parameters,
        "macs": counted.macs,
        "blocks": len(plan.blocks),
        "image": image or "matplotlib's sample photo",
        "size": size,
        "weights": weights or drawn,
    }
    if as_json:
        print_json(_json(result, header))
    else:
        print_lines(_text(result, header))
    if not result.same:
        raise typer.Exit(1)


def _text(result: Comparison, header: dict[str, Any]) -> list[str]:
    align = "<" + ">" * (len(result.ran) + 1)
    size = header["size"]
    return [
        f"{header['variant']}: {compact(header['parameters'])} parameters, "
        f"{compact(header['macs'])} MACs at {size} px, {header['blocks']} blocks",
        f"image: {header['image']}, {size} x {size} px",
        f"weights: {header['weights']}",
        *(_about(run) for run in result.runs),
        "",
        "Distance to the float64 reference, relative L2 norm; bound: 3 times what float32",
        "rounding of every operation does to the reference itself.",
        "",
        *(table(_rows(result), align) if result.ran else []),
        "",
        *(table(_time_rows(result), align) if result.ran else []),
        "",
        verdict(result),
    ]
