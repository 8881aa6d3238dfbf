"""`nfspec train`: a network by its spec's recipe, on real images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from nfspec.arguments import MAX_SEED
from nfspec.cli.options import MAX_IMAGES, Changes, SpecName
from nfspec.console import print_json, print_lines, say
from nfspec.data.batches import WORKERS
from nfspec.errors import InputError
from nfspec.language.overrides import parsed
from nfspec.training.failures import OtherTraining, TrainingError
from nfspec.training.folders import read_facts
from nfspec.training.options import Options
from nfspec.training.processes import asked_to_stop, end_with_parent, start_processes
from nfspec.training.scores import shares
from nfspec.training.session import Outcome, prepare
from nfspec.training.watching import watching
from nfspec.weights.pretrained import weights_file
from nfspec.wording import printable

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder of class folders of images; a .csv or .parquet file with columns of paths "
        "and labels; .tar files as WebDataset has them, .tfrecord or .array_record files, a folder "
        "of such files, or a pattern in quotes; a dataset that Hugging Face's save_to_disk wrote; "
        'or "digits".',
    ),
]
Backend = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="jax, torch or tensorflow. Default: the first that is installed."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Folder of the training. Default: runs/SPEC-DATA-BACKEND."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the training in the folder.")]
Force = Annotated[
    bool,
    typer.Option("--force", help="Start over in a folder that holds a training or other files."),
]
Init = Annotated[
    Path | None,
    typer.Option(
        "--init",
        metavar="WEIGHTS",
        help="File of weights to start from, nfspec's, DeepMind's or timm's; or a name that "
        "nfspec list --pretrained prints, hf-hub:owner/name, or a URL.",
    ),
]
NewHead = Annotated[
    bool,
    typer.Option("--new-head", help="Draw a new classifier, even if the one of --init fits."),
]
Freeze = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Parameters that are not trained, such as 'stem.*'. Can be repeated.",
    ),
]
Recipe = Annotated[
    Path | None,
    typer.Option(
        "--recipe", metavar="FILE", help="A .toml file of values that replace those of the spec."
    ),
]
Epochs = Annotated[
    int | None, typer.Option(metavar="N", help="Number of epochs. Default: the recipe's.")
]
Batch = Annotated[
    int | None, typer.Option(metavar="N", help="Images in a batch. Default: the recipe's.")
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--lr", metavar="RATE", help="Peak learning rate; it is not scaled with the batch."
    ),
]
Warmup = Annotated[
    float | None, typer.Option(metavar="EPOCHS", help="Epochs of warm-up. Default: the recipe's.")
]
Clipping = Annotated[
    str | None, typer.Option(metavar="LAMBDA", help='Lambda of AGC, or "none" to turn AGC off.')
]
Size = Annotated[
    int | None, typer.Option(metavar="PX", help="Side of all images, px. Default: the spec's.")
]
Precision = Annotated[
    str | None, typer.Option(metavar="NAME", help="float32 or bfloat16. Default: the recipe's.")
]
Accumulation = Annotated[
    int,
    typer.Option(
        min=1, max=MAX_IMAGES, metavar="N", help="Micro-batches that each batch is divided into."
    ),
]
Devices = Annotated[
    int,
    typer.Option(
        min=1, max=1_024, metavar="N", help="Number of this machine's devices to train on."
    ),
]
Shard = Annotated[
    bool,
    typer.Option("--shard", help="Spread the parameters over the devices (jax and torch)."),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0,
        max=MAX_SEED,
        metavar="N",
        help="Random seed for initialisation, order and augmentation.",
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        min=1,
        max=1_024,
        metavar="N",
        help="Threads that read images; more than four are processes.",
    ),
]
HeldOut = Annotated[
    float,
    typer.Option(
        metavar="SHARE",
        min=0.01,
        max=0.9,
        help="Share of the images to evaluate on, if there is no --val and no folder val in DATA.",
    ),
]
Val = Annotated[
    Path | None,
    typer.Option(
        metavar="DATA",
        help="Images to evaluate on, in the same forms. Default: those in DATA's folder val, or a "
        "share of DATA.",
    ),
]
ClassNames = Annotated[
    Path | None,
    typer.Option(
        "--classes",
        metavar="FILE",
        help="A text file of the names of the classes, one on each line, in the order of the "
        "outputs, where labels are numbers from 0 on. Default: those of the data.",
    ),
]
ClassWeights = Annotated[
    str | None,
    typer.Option(
        metavar="WEIGHTS",
        help='How much each class counts in the loss: "balanced", NAME=WEIGHT,..., or a CSV file '
        "of names and weights. Evaluation counts all images the same.",
    ),
]
Minutes = Annotated[
    float,
    typer.Option(
        "--checkpoint-minutes",
        min=0.0,
        max=1e6,
        metavar="MINUTES",
        help="Minutes between checkpoints.",
    ),
]
StopAt = Annotated[
    int,
    typer.Option(
        "--stop-at", min=0, max=10**12, metavar="N", help="Step to stop at; 0 is the last step."
    ),
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write files for TensorBoard, too.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def train(
    variant: SpecName,
    data: Data,
    backend: Backend = None,
    out: Out = None,
    resume: Resume = False,
    force: Force = False,
    start: Init = None,
    new_head: NewHead = False,
    freeze: Freeze = None,
    overrides: Recipe = None,
    epochs: Epochs = None,
    batch: Batch = None,
    rate: Rate = None,
    warmup: Warmup = None,
    clipping: Clipping = None,
    size: Size = None,
    precision: Precision = None,
    accumulation: Accumulation = 1,
    devices: Devices = 1,
    shard: Shard = False,
    seed: Seed = 0,
    workers: Workers = WORKERS,
    held_out: HeldOut = 0.2,
    val: Val = None,
    names: ClassNames = None,
    class_weights: ClassWeights = None,
    minutes: Minutes = 10.0,
    last: StopAt = 0,
    tensorboard: TensorBoard = False,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Train a network by its spec's recipe, or by nfspec's own.

    A spec without a recipe is trained by the one that comes with nfspec, and a message says so.

    The folder gets spec.toml, run.json, log.jsonl, training.png, checkpoints, and the last and the
    best weights. After an interruption of any kind, the same command with --resume goes on. A
    folder with other files in it is refused; --force accepts it, and replaces only files with
    these names.

    Nothing in a spec, image or file of weights is run, whoever wrote it.
    """
    start = weights_file(start, say) if start else None
    options = Options(
        variant, data, backend, out=out, resume=resume, force=force, init=start, new_head=new_head,
        freeze=tuple(freeze or ()), recipe=overrides, epochs=epochs, batch=batch,
        learning_rate=rate, warmup=warmup, clipping=clipping, size=size, precision=precision,
        accumulation=accumulation, devices=devices, shard=shard, seed=seed, workers=workers,
        held_out=held_out, val=val, classes=names, class_weights=class_weights,
        checkpoint_minutes=minutes, stop_at=last, tensorboard=tensorboard,
        overrides=parsed(changes or []),
    )  # fmt: skip
    _report(_trained(options), as_json)


def _trained(options: Options) -> Outcome:
    """Train in this process, or in one for each device, which this one waits for."""
    end_with_parent()
    session = prepare(options, say)
    if session.needs_processes:
        with session.claimed():
            pass  # the first of the processes holds it
        raise typer.Exit(start_processes(session.devices))
    with asked_to_stop() as asked:
        try:
            top5 = session.spec.head.classes > 5
            outcome = session.train(partial(watching, top5=top5), asked)
        except (TrainingError, OtherTraining):
            if session.first:
                raise
            raise typer.Exit(2) from None  # the first process says what is wrong
    if not session.first:
        raise typer.Exit(130 if outcome.stopped else 0)
    if outcome.step is None:
        raise KeyboardInterrupt
    if outcome.stopped:
        say(f"stopped after step {outcome.step:,}; go on with --resume")
        raise typer.Exit(130)
    return outcome


def _report(outcome: Outcome, as_json: bool) -> None:
    folder, final, best = outcome.folder, outcome.final, outcome.best
    if final is None or best is None:
        raise InputError(f"{folder}: no evaluation took place so far; go on with --resume")
    if as_json:
        print_json({"folder": str(folder), "steps": outcome.steps, "final": final, "best": best})
        return
    images, weights = final["held_out_images"], printable(str(folder / "weights.safetensors"))
    right, near = (round(final[key] * images) for key in ("top1", "top5"))
    print_lines(
        [
            *shares(right, near, images, len(read_facts(folder).classes)),
            f"best   {best['top1']:.2%} after epoch {best['epoch']:.1f}",
            f"wrote  {weights}, best.safetensors, log.jsonl, training.png",
        ]
    )
