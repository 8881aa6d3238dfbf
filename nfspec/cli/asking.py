"""Options of the commands that ask a network about images, and the progress of what takes long."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from nfspec.cli.options import MAX_IMAGES, MAX_SIDE
from nfspec.console import say
from nfspec.wording import printable

SECONDS_BETWEEN_LINES = 30.0

Network = Annotated[
    str,
    typer.Argument(
        metavar="SPEC|RUN|FILE",
        help="A built-in spec, the path of a .toml file, the folder of a training, or a file of "
        "nfspec export.",
    ),
]
Photos = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE", help="Files, folders, or patterns in quotes such as 'photos/*.jpg'."
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="WEIGHTS",
        help="File of weights, for a spec, or a name that nfspec list --pretrained prints, "
        "hf-hub:owner/name, or a URL. Default: the last ones of the training.",
    ),
]
Backend = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="jax, torch or tensorflow. Default: the training's, or the first that is installed.",
    ),
]
Runtime = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Package that runs an exported file, such as onnxruntime. Default: its format's own.",
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MAX_SIDE,
        metavar="PX",
        help="Side of the images, px. Default: the spec's test size.",
    ),
]
Batch = Annotated[int, typer.Option(min=1, max=MAX_IMAGES, metavar="N", help="Images in a batch.")]


class Bad:
    """The images that could not be read, each of which is said at once."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def __call__(self, message: str) -> None:
        self.messages.append(message)
        say(f"{printable(message)}; left out")

    def end(self) -> None:
        """End the command: with exit status 1 where an image was left out."""
        if self.messages:
            raise typer.Exit(1)


@contextlib.contextmanager
def counting(images: int) -> Iterator[Callable[[int], None]]:
    """Show how many images are done: a bar on a terminal's stderr, else a line now and then.

    Args:
        images: Number of all images.

    Returns:
        A function of the number of images that were done since its last call.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    if console.is_terminal:
        columns = (BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=images)
            yield lambda done: progress.advance(task, done)
        return
    state = {"done": 0, "said": time.monotonic()}

    def step(done: int) -> None:
        state["done"] += done
        if time.monotonic() - state["said"] > SECONDS_BETWEEN_LINES:
            state["said"] = time.monotonic()
            say(f"{state['done']:,} of {images:,} images")

    yield step
