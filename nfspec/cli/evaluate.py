"""`nfspec evaluate`: how often a network is right on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nfspec.cli.convert import READERS, kind_of_input
from nfspec.cli.options import MAX_IMAGES, MAX_SIDE
from nfspec.compilation import default_backend
from nfspec.console import print_json, print_lines, say
from nfspec.data.batches import held_out as batches_of
from nfspec.data.images import require_channels
from nfspec.data.sources import open_held_out
from nfspec.errors import InputError
from nfspec.language.loader import load
from nfspec.plan.free_memory import require_free_memory
from nfspec.plan.resolver import resolve
from nfspec.training import frameworks
from nfspec.training.folders import read_facts
from nfspec.training.scores import interval
from nfspec.wording import printable


def score_lines(top1: int, top5: int, images: int) -> list[str]:
    """Shares of right answers, with 95 % confidence intervals."""
    lines = []
    for name, right in (("top-1", top1), ("top-5", top5)):
        low, high = interval(right, images)
        lines.append(
            f"{name}  {right / images:7.2%}  (95 % interval {low:.2%} to {high:.2%}, "
            f"{right:,} of {images:,})"
        )
    return lines


def evaluate(
    variant: Annotated[str, typer.Argument(help="A folder that `nfspec train` wrote, or a spec.")],
    data: Annotated[
        str | None, typer.Argument(metavar="DATA", help="As for train; else what it held out.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of the network; else the training's last.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="jax, torch or tensorflow; else the training's.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_SIDE, help="Side of the images, px; else the spec's test size."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=MAX_IMAGES, help="Images at a time.")] = 64,
    unfolded: Annotated[
        bool, typer.Option("--unfolded", help="With weight standardisation in the graph.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Evaluate a network on labelled images.

    Resized and cropped as the spec says. A folder with class folders in val (or test) is evaluated
    on those, one with class folders alone on all of it; a training without DATA on what it held
    out. Bad images are named and left out.

    Nothing in a spec, image or file of weights is run, whoever wrote it.
    """
    folder = Path(variant)
    facts = read_facts(folder) if folder.is_dir() else None
    if facts is None and (data is None or weights is None):
        missing = "DATA" if data is None else "--weights"
        raise InputError(f"{variant} is a spec, so that {missing} has to be given")
    spec = load(folder / "spec.toml" if facts else variant)
    require_channels(spec.input)
    # The weights as they are read, and those in the model.
    require_free_memory(resolve(spec), "evaluate", 2)
    classes = tuple(facts.classes) if facts else ()
    if facts and data is None:
        held = open_held_out(facts.data, facts.held_out, facts.seed, classes)
    else:
        assert data is not None
        held = open_held_out(data, 1.0, 0, classes)
    if len(held.classes) != spec.head.classes:
        raise InputError(
            f"{data}: {len(held.classes)} class folders, {spec.name} has {spec.head.classes} "
            "classes; a folder for each is needed, whose names sort in the order of the outputs"
        )
    path = weights or folder / "weights.safetensors"
    params = READERS[kind_of_input(path)](path, resolve(spec))
    chosen: Any = backend or (facts.backend if facts else default_backend())
    frameworks.start(chosen)
    from nfspec import compilation
    from nfspec.backends.training import evaluation

    network = compilation.compile(spec, chosen, params, folded=not unfolded)
    side, bad = size or spec.input.test, []

    def left_out(message: str) -> None:
        bad.append(message)
        say(printable(f"{message}; left out"))

    batch = min(batch, len(held))
    found = evaluation.evaluate(
        evaluation.logits_function(network),
        batches_of(held, spec.input, side, batch, left_out),
        batch,
    )
    if not found.images:
        where = data or (facts.data if facts else "")
        raise InputError(f"{where}: none of the images can be read")
    if as_json:
        print_json(
            {
                "images": found.images,
                "left_out": len(bad),
                "size": side,
                "top1": found.top1 / found.images,
                "top1_interval": interval(found.top1, found.images),
                "top5": found.top5 / found.images,
                "top5_interval": interval(found.top5, found.images),
                "loss": found.loss / found.images,
            }
        )
        return
    print_lines(
        [
            f"{spec.name}, {found.images:,} images at {side} px",
            *score_lines(found.top1, found.top5, found.images),
            f"loss   {found.loss / found.images:.4f}",
        ]
    )
