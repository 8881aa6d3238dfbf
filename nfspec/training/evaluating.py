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
from nfspec.data.preprocessing import Preprocessing
from nfspec.data.sources import Source, open_held_out
from nfspec.errors import InputError
from nfspec.language.graph import Input
from nfspec.language.loader import load
from nfspec.language.overrides import ON_COMMAND_LINE, overriding
from nfspec.plan.free_memory import require_free_memory
from nfspec.plan.resolver import resolve
from nfspec.training import frameworks
from nfspec.training.folders import Facts, read_facts
from nfspec.training.scores import Logits, Score, outputs, score
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
    require_classes(held, spec.name, spec.head.classes, where)
    path = Path(weights or folder / "weights.safetensors")
    params = READERS[kind_of_file(path)](path, plan)
    chosen: Any = backend or (facts.backend if facts else compilation.default_backend())
    frameworks.start(chosen)
    from nfspec.backends.running import forward_function

    network = compilation.compile(plan, chosen, params, folded=folded)
    side, batch = size or spec.input.test, min(batch, len(held))
    score, bad = _scored(forward_function(network), held, spec.input, side, batch, say)
    if not score.images:
        raise InputError(f"{where}: none of the images can be read")
    return Evaluation(spec.name, side, bad, score)


def evaluate_file(
    path: str | Path,
    data: str | Path,
    *,
    runtime: str | None = None,
    size: int | None = None,
    batch: int = 64,
    say: Callable[[str], None] = lambda message: None,
) -> Evaluation:
    """Evaluate an exported file in its runtime; no framework is imported.

    Args:
        path: A file that `nfspec.export` wrote, with logits among its outputs.
        data: Folder of images, or "digits".
        runtime: Package of the runtime, such as "onnxruntime"; the format's own if None.
        size: Side of the images, px; the file's, or else the spec's test size, if None.
        batch: Images at a time, where the file takes any number.
        say: Called with a message for each image that is left out.

    Raises:
        NfspecError: Something is missing, or cannot be used.
    """
    from nfspec.backends.exporters.formats import format_of_file
    from nfspec.backends.exporters.running import exported_logits, runtime_of

    path, batch = Path(path), whole("batch", batch, 1, "images")
    form = format_of_file(path)
    form.require()
    chosen = runtime_of(form, runtime)
    network = form.read(path).network
    settings, how = network.settings, network.input
    require_channels(how)
    side = size or (settings.size or (how.test,))[0]
    if settings.size is not None and settings.size != (side, side):
        height, width = settings.size
        raise InputError(
            f"{path}: takes images of {height} x {width} px alone, not of {side} x {side} px"
        )
    held = open_held_out(data, 1.0, 0, ())
    require_classes(held, network.plan.name, network.plan.tap_info["logits"].channels, data)
    batch = settings.batch or min(batch, len(held))
    logits = exported_logits(chosen, path, network)
    score, bad = _scored(logits, held, how, side, batch, say)
    if not score.images:
        raise InputError(f"{data}: none of the images can be read")
    return Evaluation(network.plan.name, side, bad, score)


def _scored(
    logits: Logits,
    held: Source,
    how: Input,
    side: int,
    batch: int,
    say: Callable[[str], None],
) -> tuple[Score, int]:
    """The score, and the number of images that cannot be read, each of which is said."""
    bad = []

    def left_out(message: str) -> None:
        bad.append(message)
        say(f"{message}; left out")

    found = outputs(logits, batches_of(held, Preprocessing(how, side), batch, left_out), batch)
    total = sum((score(each, held.labels[numbers]) for each, numbers in found), Score())
    return total, len(bad)


def require_classes(held: Source, name: str, classes: int, data: str | Path) -> None:
    """Refuse images of more or fewer classes than a network tells apart.

    Raises:
        InputError: They are.
    """
    if len(held.classes) != classes:
        raise InputError(
            f"{data}: {len(held.classes)} class folders, and {name} has {classes} "
            "classes; expected a folder for each class, with names in the order of the outputs"
        )


def _images(facts: Facts | None, data: str | Path | None) -> Source:
    """The images that were asked for, or those that a training held out."""
    classes = tuple(facts.classes) if facts else ()
    if facts and data is None:
        return open_held_out(facts.data, facts.held_out, facts.seed, classes)
    assert data is not None
    return open_held_out(data, 1.0, 0, classes)
