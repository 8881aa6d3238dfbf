"""Progress of a training while it runs: a bar on a terminal, lines elsewhere.

Names of files and classes are shown without what a terminal would act on. A terminal that is gone,
or a reader that has left, does not end a training: all that is shown is in its log, too.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from nfspec.console import say
from nfspec.errors import InputError
from nfspec.training.logs import Entry
from nfspec.wording import printable

SECONDS_BETWEEN_LINES = 30.0


class Watcher(Protocol):
    """An object that receives the events of a training."""

    def step(self, entry: Entry) -> None: ...
    def evaluation(self, entry: Entry) -> None: ...
    def message(self, text: str) -> None: ...


def _numbers(entry: Entry) -> str:
    parts = [f"loss {entry['loss']:.3f}", f"acc {entry['accuracy']:.2f}", f"lr {entry['rate']:.2g}"]
    if "clip_fraction" in entry:
        parts.append(f"clip {entry['clip_fraction']:.2f}")
    return "  ".join([*parts, f"{entry['images_per_second']:.0f} img/s"])


def _evaluated(entry: Entry, top5: bool) -> str:
    shares = f"top-1 {entry['top1']:.2%}, " + (f"top-5 {entry['top5']:.2%}, " if top5 else "")
    return f"epoch {entry['epoch']:.1f}: held-out {shares}loss {entry['held_out_loss']:.3f}"


class Lines:
    """A watcher that prints to what is not a terminal."""

    def __init__(self, steps: int, top5: bool = True):
        self.steps = steps
        self.top5 = top5
        self.said = 0.0

    def step(self, entry: Entry) -> None:
        if time.monotonic() - self.said > SECONDS_BETWEEN_LINES:
            self.said = time.monotonic()
            self.message(f"step {entry['step']:,} of {self.steps:,}: {_numbers(entry)}")

    def evaluation(self, entry: Entry) -> None:
        self.message(_evaluated(entry, self.top5))

    def message(self, text: str) -> None:
        say(printable(text))


class Bar:
    """A watcher that prints to a terminal."""

    def __init__(self, progress: Any, steps: int, top5: bool = True):
        self.progress = progress
        self.top5 = top5
        self.task = progress.add_task("compiling, loading", total=steps)

    def step(self, entry: Entry) -> None:
        parts = [f"loss {entry['loss']:.3f}", f"acc {entry['accuracy']:.0%}"]
        parts.append(f"lr {entry['rate']:.2g}")
        if "clip_fraction" in entry:
            parts.append(f"clip {entry['clip_fraction']:.0%}")
        parts.append(f"{entry['images_per_second']:.0f}/s")
        with contextlib.suppress(OSError):
            self.progress.update(self.task, completed=entry["step"], description=" ".join(parts))

    def evaluation(self, entry: Entry) -> None:
        self.message(_evaluated(entry, self.top5))

    def message(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self.progress.console.print(
                printable(text), markup=False, highlight=False, emoji=False, soft_wrap=True
            )


class Quiet:
    """A watcher that prints nothing, as in all processes of a training but the first."""

    def step(self, entry: Entry) -> None:
        pass

    evaluation = step

    def message(self, text: str) -> None:
        pass


class WithTensorBoard:
    """Writes TensorBoard files beside what another watcher shows.

    Raises:
        InputError: tensorboardX is not installed.
    """

    def __init__(self, inner: Watcher, folder: Path):
        try:
            import tensorboardX  # noqa: F401
        except ModuleNotFoundError:
            message = "TensorBoard files: tensorboardX is not installed; run: "
            raise InputError(f"{message}pip install tensorboardX") from None
        self.inner = inner
        self.folder = folder
        self.message = inner.message

    @cached_property
    def writer(self) -> Any:
        """Made when there is something to write, as it makes the folder."""
        from tensorboardX import SummaryWriter

        return SummaryWriter(str(self.folder))

    def step(self, entry: Entry) -> None:
        self._write("train", entry)
        self.inner.step(entry)

    def evaluation(self, entry: Entry) -> None:
        self._write("held_out", entry)
        self.inner.evaluation(entry)

    def _write(self, group: str, entry: Entry) -> None:
        for name, value in entry.items():
            if isinstance(value, dict):
                for part, fraction in value.items():
                    self.writer.add_scalar(f"{name}/{part}", fraction, entry["step"])
            elif name != "step":
                self.writer.add_scalar(f"{group}/{name}", value, entry["step"])


@contextlib.contextmanager
def watching(steps: int, top5: bool = True) -> Iterator[Watcher]:
    """A watcher for one training: a bar on a terminal's stderr, else lines.

    Args:
        steps: Steps of the training.
        top5: Show top-5, which is all answers where there are up to five classes.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(steps, top5)
    else:
        columns = (BarColumn(8), MofNCompleteColumn(), "{task.description}", TimeRemainingColumn())
        progress = Progress(*columns, console=console)
        progress.start()
        try:
            yield Bar(progress, steps, top5)
        finally:
            with contextlib.suppress(OSError):
                progress.stop()
