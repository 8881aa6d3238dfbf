"""Pictures: the logs of trainings, and the confusion of classes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec.errors import InputError
from nfspec.files import replacing
from nfspec.training.logs import Entry
from nfspec.wording import printable

MOST_NAMES = 40  # classes whose names fit a picture
STEPS_SHOWN = 50  # of a smoothed curve; the rest is noise of single batches


def _smooth(values: Sequence[float]) -> NDArray[np.float64]:
    """Means of as many neighbours as leave fifty of them, and fewer at the ends."""
    half = len(values) // (2 * STEPS_SHOWN)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    low, high = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low))


def plot(runs: Mapping[str, Sequence[Entry]], path: Path) -> None:
    """Write a PNG of loss, accuracy, learning rate and clip fraction, of each stage if one run.

    Args:
        runs: Name of each training to its log.
        path: File to write.

    Raises:
        InputError: matplotlib is not installed, or a log is empty.
        OSError: The file cannot be written; `filename` is `path`.
    """
    figure = blank(10, 7)
    (loss, accuracy), (rate, clip) = figure.subplots(2, 2, sharex=True)
    for number, (name, entries) in enumerate(runs.items()):
        steps = [entry for entry in entries if "loss" in entry]
        held = [entry for entry in entries if "top1" in entry]
        if not steps:
            raise InputError(f"{name}: its log has no step yet; train first")
        epochs = [entry["epoch"] for entry in steps]
        at = [entry["epoch"] for entry in held]
        # The first ones are wider, so that curves that are the same are all seen.
        width = 1.2 + 2.0 * (len(runs) - 1 - number)
        look: dict[str, Any] = {"color": f"C{number}", "linewidth": width}
        loss.plot(epochs, _smooth([e["loss"] for e in steps]), label=label(name), **look)
        loss.plot(at, [e["held_out_loss"] for e in held], "o--", **look, ms=3)
        accuracy.plot(epochs, _smooth([e["accuracy"] for e in steps]), **look)
        accuracy.plot(at, [e["top1"] for e in held], "o--", **look, ms=3)
        rate.plot(epochs, [e["rate"] for e in steps], **look)
        _clip(clip, steps, None if len(runs) == 1 else look)
    loss.set(title="loss (- - held out)", ylim=(0.0, None))
    accuracy.set(title="accuracy (- - held out)", ylim=(None, 1.0))
    rate.set(title="learning rate", xlabel="epoch")
    clip.set(title="clip fraction", xlabel="epoch", ylim=(0.0, 1.0))
    loss.legend(fontsize="small")
    if len(runs) == 1 and clip.lines:
        clip.legend(fontsize="small")
    save(figure, path)


def confusion(matrix: NDArray[np.int64], classes: Sequence[str], path: Path) -> None:
    """Write a PNG of which class is taken for which.

    Args:
        matrix: (classes, classes), images: rows are labels, columns are answers. A colour is the
            share of its row.
        classes: Names of the classes. They are shown, and numbers with them, where they are few.
        path: File to write.

    Raises:
        InputError: matplotlib is not installed.
        OSError: The file cannot be written; `filename` is `path`.
    """
    few = len(classes) <= MOST_NAMES
    side = 3.0 + 0.35 * len(classes) if few else 10.0
    figure = blank(side + 1.0, side)
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    shown = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, interpolation="nearest")
    figure.colorbar(shown, label="share of the label's images")
    axes.set(xlabel="answer", ylabel="label")
    if few:
        names = [label(name if len(name) <= 24 else f"{name[:21]}...") for name in classes]
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize="small")
        axes.set_yticks(range(len(names)), names, fontsize="small")
        for row, column in np.argwhere(matrix):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(
                column, row, str(matrix[row, column]), ha="center", va="center", color=colour,
                fontsize="small",
            )  # fmt: skip
    save(figure, path)


def require_matplotlib() -> None:
    """Refuse to draw where there is nothing to draw with.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError:
        raise InputError("matplotlib not installed; run: pip install matplotlib") from None


def blank(width: float, height: float) -> Any:
    """An empty picture, sides in inches."""
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: Path) -> None:
    image = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name that the font cannot write
        figure.savefig(image, format="png", dpi=120)
    with replacing(path) as temporary:
        temporary.write_bytes(image.getvalue())


def label(name: str) -> str:
    """A name as a legend shows it: matplotlib takes $ for a formula, and leaves out _names."""
    return (" " if name.startswith("_") else "") + printable(name).replace("$", r"\$")


def _clip(axes: Any, steps: Sequence[Entry], look: dict[str, Any] | None) -> None:
    """Draw the clip fraction of the whole network, or, without a `look`, of each stage."""
    steps = [entry for entry in steps if "clip_fraction" in entry]
    if not steps:
        return
    if look is not None:
        epochs = [entry["epoch"] for entry in steps]
        axes.plot(epochs, _smooth([entry["clip_fraction"] for entry in steps]), **look)
        return
    for stage in steps[0]["clip_fraction_of"]:
        have = [entry for entry in steps if stage in entry["clip_fraction_of"]]
        epochs = [entry["epoch"] for entry in have]
        values = [entry["clip_fraction_of"][stage] for entry in have]
        axes.plot(epochs, _smooth(values), linewidth=1.2, label=label(stage))
