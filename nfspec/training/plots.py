"""The logs of trainings as one picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec.errors import InputError
from nfspec.files import replacing
from nfspec.training.logs import Entry
from nfspec.wording import printable

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
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise InputError("matplotlib not installed; run: pip install matplotlib") from None
    figure = Figure(figsize=(10, 7), layout="constrained")
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
        loss.plot(epochs, _smooth([e["loss"] for e in steps]), label=_label(name), **look)
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
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    with replacing(path) as temporary:
        temporary.write_bytes(image.getvalue())


def _label(name: str) -> str:
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
        axes.plot(epochs, _smooth(values), linewidth=1.2, label=_label(stage))
