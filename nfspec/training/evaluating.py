"""One evaluation from its options to its score, as `nfspec evaluate` and Python callers run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nfspec import compilation
from nfspec.arguments import whole
from nfspec.data.batches import held_out as batches_of
from nfspec.data.images import require_channels
from nfspec.data.sources import Source, open_held_out
from nfspec.errors import InputError
from nfspec.language.loader import load
from nfspec.language.overrides import ON_COMMAND_LINE, overriding
from nfspec.language.spec import Spec
from nfspec.plan.free_memory import require_free_memory
from nfspec.plan.resolver import resolve
from nfspec.training import frameworks
from nfspec.training.folders import Facts, read_facts
from nfspec.training.scores import Score
from nfspec.weights.kinds import READERS, kind_of_file


@dataclass(frozen=True)
class Evaluation:
    """The score of a network on labelled images.

    Attributes:
        name: The spec's name.
        size: Side of the images, px.
        left_out: Images that could not be read.
        score: Counts of right answers, and the loss, on the images that were read.
    """

    name: str
    size: int
    left_out: int
    score: Score


def evaluate(
    variant: str | Path,
    data: str | Path | None = None,
    weights: str | Path | None = None,
    *,
    backend: str | None = None,
    size: int | None = None,
    batch: int = 64,
    folded: bool = True,
    overrides: Mapping[str, Any] = MappingProxyType({}),
    say: Callable[[str], None] = lambda message: None,
) -> Evaluation:
    """Evaluate a network on labelled images, resized and cropped as its spec says.

    Args:
        variant: Folder of a training; or a built-in spec, or the path of a .toml file.
        data: Folder of images, or "digits"; what the training held out if None.
        weights: File of weights, nfspec's, DeepMind's or timm's; the training's last if None.
        backend: Framework; the training's if None, and for a spec the first that is installed.
        size: Side of the images, px; the spec's test size if None.
        batch: Images at a time.
        folded: Standardise the kernels once, before the first image.
        overrides: Values that replace those of the spec, such as `{"input.test": 256}`.
        say: Called with a message for each image that is left out.

    Raises:
        NfspecError: Something is missing, or cannot be used.
    """
    batch = whole("batch", batch, 1, "images")
    if size is not None:
        whole("size", size, 1, "px")
    folder = Path(variant)
    facts = read_facts(folder) if folder.is_dir() else None
    if facts is None and (data is None or weights is None):
        absent = "DATA" if data is None else "--weights"
        raise InputError(f"{variant} is a spec and not a training; give {absent}, too")
    over = overriding(overrides, ON_COMMAND_LINE)
    spec = load(folder / "spec.toml" if facts else str(variant), over)
    require_channels(spec.input)
    plan = resolve(spec)
    require_free_memory(plan, "evaluate", 2)  # the weights as they are read, and those in the model
    held = _images(facts, data)
    where = data or (facts.data if facts else "")
    _require_classes(held, spec, where)
    path = Path(weights or folder / "weights.safetensors")
    params = READERS[kind_of_file(path)](path, plan)
    chosen: Any = backend or (facts.backend if facts else compilation.default_backend())
    frameworks.start(chosen)
    from nfspec.backends.running import forward_function
    from nfspec.backends.training import evaluation

    network = compilation.compile(plan, chosen, params, folded=folded)
    side, bad = size or spec.input.test, []

    def left_out(message: str) -> None:
        bad.append(message)
        say(f"{message}; left out")

    batch = min(batch, len(held))
    images = batches_of(held, spec.input, side, batch, left_out)
    score = evaluation.evaluate(forward_function(network), images, batch)
    if not score.images:
        raise InputError(f"{where}: none of the images can be read")
    return Evaluation(spec.name, side, len(bad), score)


def _require_classes(held: Source, spec: Spec, data: str | Path) -> None:
    """Refuse images of more or fewer classes than a network tells apart."""
    if len(held.classes) != spec.head.classes:
        raise InputError(
            f"{data}: {len(held.classes)} class folders, and {spec.name} has {spec.head.classes} "
            "classes; expected a folder for each class, with names in the order of the outputs"
        )


def _images(facts: Facts | None, data: str | Path | None) -> Source:
    """The images that were asked for, or those that a training held out."""
    classes = tuple(facts.classes) if facts else ()
    if facts and data is None:
        return open_held_out(facts.data, facts.held_out, facts.seed, classes)
    assert data is not None
    return open_held_out(data, 1.0, 0, classes)
