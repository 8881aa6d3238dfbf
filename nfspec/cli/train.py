"""`nfspec train`: a network by its spec's recipe, on real images."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import nfspec
from nfspec.arguments import MAX_SEED
from nfspec.cli.convert import READERS, kind_of_input
from nfspec.cli.evaluate import score_lines
from nfspec.cli.options import MAX_IMAGES
from nfspec.compilation import BACKENDS, default_backend, missing
from nfspec.console import print_json, print_lines, say
from nfspec.data.images import require_channels
from nfspec.data.sources import DIGITS, open_sources
from nfspec.errors import BackendError, InputError, NfspecError
from nfspec.files import write
from nfspec.language.loader import given, load
from nfspec.language.template import resolved
from nfspec.plan.free_memory import require_free_memory
from nfspec.plan.initialise import init
from nfspec.plan.resolver import resolve
from nfspec.training import frameworks, logs
from nfspec.training.folders import RUN, claimed, clear
from nfspec.training.plots import plot
from nfspec.training.processes import (
    asked_to_stop,
    devices_of,
    end_with_parent,
    is_first,
    out_of_memory,
    require_disk,
    require_memory,
    start_processes,
)
from nfspec.training.recipes import (
    DEFAULT,
    Wanted,
    asked_for,
    clipping_of,
    default_for,
    fine_tuning,
    read_recipe,
)
from nfspec.training.runs import Run, recipe
from nfspec.training.starting import start_from
from nfspec.training.watching import WithTensorBoard, watching
from nfspec.wording import printable

if TYPE_CHECKING:
    from nfspec.backends.training.loop import Training


NEEDED = {
    "grain": "which reads the images",
    "matplotlib": "which draws training.png",
    "tensorboardX": "which writes the files for TensorBoard",
}


def _require_installed(backend: str, tensorboard: bool) -> None:
    """See that what a training needs is there, before anything is begun."""
    if (message := missing(backend) if backend in BACKENDS else None) is not None:
        raise BackendError(f"{backend}: {message}")
    for name, purpose in NEEDED.items():
        wanted = tensorboard or name != "tensorboardX"
        if wanted and importlib.util.find_spec(name) is None:
            raise InputError(f"{name}, {purpose}, is not installed; run: pip install {name}")


def train(
    variant: Annotated[str, typer.Argument(help="A built-in spec, or the path of a .toml file.")],
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help='A folder of class folders of images, or "digits".'),
    ],
    backend: Annotated[
        str | None, typer.Option(help="jax, torch or tensorflow; else what is installed.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The training's folder; else runs/VARIANT-DATA-BACKEND.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it stopped.")] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Start over where --out holds a training or other files."),
    ] = False,
    start: Annotated[
        Path | None, typer.Option("--init", help="Weights to fine-tune: nfspec's, timm's ...")
    ] = None,
    new_head: Annotated[
        bool, typer.Option("--new-head", help="Draw the classifier though it would fit.")
    ] = False,
    freeze: Annotated[
        list[str] | None, typer.Option(help="Parameters to leave, such as 'stem.*'; repeatable.")
    ] = None,
    overrides: Annotated[
        Path | None, typer.Option("--recipe", help="A .toml of values for [recipe] or any table.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of recipe.epochs.")] = None,
    batch: Annotated[int | None, typer.Option(help="Instead of recipe.batch.")] = None,
    rate: Annotated[
        float | None, typer.Option("--lr", help="The highest learning rate, as it is.")
    ] = None,
    warmup: Annotated[float | None, typer.Option(help="Instead of recipe.warmup_epochs.")] = None,
    clipping: Annotated[str | None, typer.Option(help='AGC\'s lambda, or "none".')] = None,
    size: Annotated[int | None, typer.Option(help="Side of all images, px.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32 or bfloat16.")] = None,
    accumulation: Annotated[
        int, typer.Option(min=1, max=MAX_IMAGES, help="Micro-batches in a batch.")
    ] = 1,
    devices: Annotated[
        int, typer.Option(min=1, max=1_024, help="Devices of this machine to use.")
    ] = 1,
    shard: Annotated[
        bool, typer.Option("--shard", help="Spread the parameters over them (jax).")
    ] = False,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=MAX_SEED, help="Random seed for initialisation, order and augmentation."
        ),
    ] = 0,
    workers: Annotated[int, typer.Option(min=1, max=1_024, help="Threads that read images.")] = max(
        2, min(16, os.cpu_count() or 1)
    ),
    held_out: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share to evaluate on, unless in val/.")
    ] = 0.2,
    minutes: Annotated[
        float,
        typer.Option("--checkpoint-minutes", min=0.0, max=1e6, help="Minutes between checkpoints."),
    ] = 10.0,
    last: Annotated[
        int, typer.Option("--stop-at", min=0, max=10**12, help="A step to stop at; 0: none.")
    ] = 0,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write files for TensorBoard, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a network by its spec's recipe, or by nfspec's own.

    A spec that has no recipe is trained by the one that comes with nfspec, which is named.

    In the folder --out: spec.toml, run.json, log.jsonl, training.png, checkpoints, and the weights,
    the last and the best. Stopped in whatever way, the same command with --resume goes on. A folder
    with anything else in it is refused; --force takes it, and replaces files of these names alone.

    Nothing in a spec, image or file of weights is run, whoever wrote it.
    """
    end_with_parent()
    backend = backend or default_backend()
    _require_installed(backend, tensorboard)
    if shard and backend != "jax":
        raise BackendError(
            f"--shard: jax alone spreads parameters, by keras.distribution; not {backend}"
        )
    usual = default_for(load(variant))
    base = load(variant, usual)
    given_here = {
        "--epochs": (("recipe", "epochs"), epochs),
        "--batch": (("recipe", "batch"), batch),
        "--lr": (("recipe", "learning_rate"), rate),
        "--lr of any batch": (("recipe", "learning_rate_images"), None if rate is None else 0),
        "--warmup": (("recipe", "warmup_epochs"), warmup),
        "--size": (("input", "train"), size),
        "--size of evaluation": (("input", "test"), size),
        "--precision": (("recipe", "precision"), precision),
    }
    layers = [
        *usual,
        *(fine_tuning(base) if start is not None else []),
        *([read_recipe(overrides)] if overrides else []),
        *asked_for(given_here),
        *clipping_of(clipping),
    ]
    source, held = open_sources(data, held_out, seed)
    layers.append(given("the data", {("recipe", "images"): len(source)}))
    wanted = Wanted(variant, layers)
    spec = wanted.spec(len(source.classes))
    require_channels(spec.input)
    plan = resolve(spec)
    require_free_memory(
        plan, "train", 1
    )  # `require_memory` looks at the memory of the devices later
    if spec.recipe and spec.recipe.batch > spec.recipe.epochs * len(source):
        raise InputError(
            f"--batch: {spec.recipe.batch} images are more than the {len(source)} to train on, in "
            f"all of {spec.recipe.epochs} epochs"
        )
    run = recipe(plan, accumulation=accumulation)
    devices = devices_of(backend, devices)
    if run.batch // accumulation % devices:
        raise InputError(f"--batch: {run.batch // accumulation} images do not divide by {devices}")
    name = Path(data).name or "data"
    folder = out or Path("runs") / f"{spec.name}-{name}-{backend}".replace("/", "-")
    frozen = (*(freeze or ()), *(spec.finetune.freeze if start and spec.finetune else ()))
    with contextlib.ExitStack() as stack:
        first = is_first(backend)
        if first:
            stack.enter_context(claimed(folder, resume, force))
            require_disk(folder, plan, run)
        if backend == "torch" and devices > 1 and "RANK" not in os.environ:
            stack.close()  # the first of the processes holds it
            raise typer.Exit(start_processes(devices))
        asked = stack.enter_context(asked_to_stop())

        frameworks.start(backend)
        from nfspec.backends.training import devices as engines
        from nfspec.backends.training.checkpoints import OtherTraining
        from nfspec.backends.training.loop import Settings, Training

        engine = engines.devices(devices, shard)
        require_memory(plan, run, devices, engines.memory(devices))
        if start is None:
            params = init(plan, seed)
        else:
            params, drawn = start_from(
                start,
                READERS[kind_of_input(start)],
                wanted.plan,
                (len(source.classes), base.head.classes),
                new_head=new_head,
                seed=seed,
            )
            if first:
                new = ", with a new classifier" if drawn else ""
                say(f"starts from {printable(str(start))}{new}")
        if first:
            if usual:
                say(f"{printable(variant)} has no [recipe]; {DEFAULT} is taken")
            say(str(run))
            images = f"{len(source):,} to train on, {len(held):,} held out"
            images += f", {len(source.classes)} classes"
            say(f"data           {printable(data)}: {images}")
        problem: NfspecError | None = None
        with watching(run.steps, engine.rank) as watcher:
            if tensorboard and first:
                watcher = WithTensorBoard(watcher, folder / "tensorboard")
            try:
                training = Training(
                    spec=spec,
                    run=run,
                    source=source,
                    held=held,
                    folder=folder,
                    settings=Settings(seed, workers, frozen, minutes, last),
                    devices=engine,
                    watcher=watcher,
                    params=params,
                    stop=asked.to_stop,
                )
                if asked.to_stop():
                    raise KeyboardInterrupt
                if resume:
                    training.resume()
                elif first:
                    clear(folder)
                if first and training.position.step == 0:
                    _write_facts(training, data, backend, held_out)
                asked.training = True
                training.train()
            except NfspecError as error:
                problem = error
            except OSError as error:
                problem = InputError(f"{error.filename or folder}: {error.strerror or error}")
            except Exception as error:
                if not out_of_memory(error):
                    raise
                problem = InputError(
                    f"{run.batch // accumulation} images of {plan.train_size} px at a time do not "
                    "fit the memory; take a smaller --batch, or as many micro-batches by "
                    "--accumulation"
                )
        engine.close()
        if not first:
            raise typer.Exit(2 if problem else 130 if asked.to_stop() else 0)
        if isinstance(problem, OtherTraining):
            raise problem
        if problem is not None:
            raise InputError("\n".join([str(problem), *_where_it_is(folder)]))
        entries = logs.read(training.log)
        if any("loss" in entry for entry in entries):
            plot({spec.name: entries}, folder / "training.png")
        if asked.to_stop():
            step = training.position.step
            say(f"stopped after step {step:,}; go on with --resume")
            raise typer.Exit(130)
        _report(folder, entries, run, as_json)


def _where_it_is(folder: Path) -> list[str]:
    """What there is to go on with after a failure."""
    found = sorted(path.name for path in (folder / "checkpoints").glob("step-*.safetensors"))
    if found:
        newest = printable(str(folder / "checkpoints" / found[-1]))
        return [f"{newest} is whole; --resume goes on from there"]
    if (folder / RUN).exists():
        return ["no checkpoint was written yet; --resume starts from the first step"]
    return []


def _write_facts(training: Training, data: str, backend: str, held_out: float) -> None:
    """What `nfspec evaluate` reads of a training."""
    facts = {
        "nfspec": nfspec.__version__,
        "keras": version("keras"),
        backend: version(backend),
        "variant": training.spec.name,
        "data": data if data == DIGITS else str(Path(data).resolve()),
        "backend": backend,
        "seed": training.settings.seed,
        "held_out": held_out,
        "classes": list(training.source.classes),
    }
    for name, text in (
        ("spec.toml", "\n".join(resolved(training.spec))),
        (RUN, json.dumps(facts, indent=2)),
    ):
        write(training.folder / name, text + "\n")


def _report(folder: Path, entries: list[logs.Entry], run: Run, as_json: bool) -> None:
    evaluations = [entry for entry in entries if "top1" in entry]
    if not evaluations:
        raise InputError(f"{folder}: nothing was evaluated up to this step; go on with --resume")
    final, best = evaluations[-1], max(evaluations, key=lambda e: e["top1"])
    if as_json:
        print_json({"folder": str(folder), "steps": run.steps, "final": final, "best": best})
        return
    images, weights = final["held_out_images"], printable(str(folder / "weights.safetensors"))
    print_lines(
        [
            *score_lines(round(final["top1"] * images), round(final["top5"] * images), images),
            f"best   {best['top1']:.2%} after epoch {best['epoch']:.1f}",
            f"wrote  {weights}, best.safetensors, log.jsonl, training.png",
        ]
    )
