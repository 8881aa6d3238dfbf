"""The options of a training, and the values of a spec that they replace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nfspec.arguments import MAX_SEED, number, whole
from nfspec.data.batches import WORKERS
from nfspec.data.classes import read_classes
from nfspec.errors import InputError
from nfspec.language.overrides import ON_COMMAND_LINE, overriding
from nfspec.language.reading import Layer
from nfspec.training.class_weights import Given
from nfspec.training.recipes import asked_for, clipping_of, read_recipe


@dataclass(frozen=True)
class Options:
    """A network to train, the images, and how; None leaves a choice to the spec or to nfspec.

    Errors call a value that replaces one of the spec by its option on the command line.

    Attributes:
        variant: Built-in spec, or path of a .toml file.
        data: The images, in a form that `nfspec.data.opening.open_sources` knows, such as a folder
            of class folders.
        backend: "jax", "torch" or "tensorflow".
        out: The training's folder; runs/SPEC-DATA-BACKEND if None.
        resume: Go on with the training in the folder.
        force: Start over in a folder that holds a training or other files.
        init: File of weights to start from, nfspec's, DeepMind's or timm's.
        new_head: Draw the classifier anew though the one in `init` would fit.
        freeze: Patterns of the names of parameters that stay as they are, such as "stem.*".
        recipe: A .toml file of values that replace the spec's.
        epochs, batch, learning_rate, warmup, precision: In place of the recipe's. The learning
            rate is the peak, and does not scale with the batch; the warm-up is in epochs.
        clipping: Lambda of AGC, or "none".
        size: Side of all images, px.
        accumulation: Micro-batches in a batch.
        devices: Devices that share each batch. On PyTorch each is a process of torchrun's.
        shard: Spread the parameters over the devices, on JAX and PyTorch.
        seed: Seed of initialisation, order, augmentation and dropping.
        workers: Threads that read images; more than four are processes.
        held_out: Share of each class to evaluate on, where the data has no folder for that.
        classes: Names of the classes, in the order of the outputs, or a text file with a name on
            each line; those that are found in the data, in order, if None. Labels that are whole
            numbers count from 0 in it.
        class_weights: The weight of each class in the loss: "balanced", weights by name or in
            order, or a CSV file of them, as `nfspec.training.class_weights` takes them; all count
            the same if None.
        val: The images to evaluate on, in the same forms; a share of the data is held out if None.
        checkpoint_minutes: Minutes between checkpoints, beside the one after each epoch.
        stop_at: Step to stop at; 0 for the recipe's last.
        tensorboard: Write files for TensorBoard, too.
        overrides: Values that replace those of the spec and of the options above, such as
            `{"stages.alpha": 0.3}`; the number of classes is that of the data.

    Raises:
        InputError: A number has a wrong type, or is out of range.
    """

    variant: str | Path
    data: str | Path
    backend: str | None = None
    out: str | Path | None = None
    resume: bool = False
    force: bool = False
    init: str | Path | None = None
    new_head: bool = False
    freeze: tuple[str, ...] = ()
    recipe: str | Path | None = None
    epochs: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    warmup: float | None = None
    clipping: float | str | None = None
    size: int | None = None
    precision: str | None = None
    accumulation: int = 1
    devices: int = 1
    shard: bool = False
    seed: int = 0
    workers: int = WORKERS
    held_out: float = 0.2
    val: str | Path | None = None
    classes: str | Path | Sequence[str] | None = None
    class_weights: Given | None = None
    checkpoint_minutes: float = 10.0
    stop_at: int = 0
    tensorboard: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        whole("accumulation", self.accumulation, 1)
        whole("devices", self.devices, 1)
        whole("workers", self.workers, 1)
        whole("stop_at", self.stop_at, 0)
        number("seed", whole("seed", self.seed, 0), 0, MAX_SEED)
        number("held_out", self.held_out, 0.01, 0.9)
        number("checkpoint_minutes", self.checkpoint_minutes, 0.0)

    @property
    def changes(self) -> list[Layer]:
        """The overrides, under the name of their option."""
        return overriding(self.overrides, ON_COMMAND_LINE)

    def class_names(self) -> tuple[str, ...]:
        """The names of the classes that were given.

        Raises:
            InputError: They cannot be read, or one is there twice.
        """
        if self.classes is None:
            return ()
        given = self.classes
        read = read_classes(given).names if isinstance(given, str | Path) else tuple(given)
        twice = [name for name, count in Counter(read).items() if count > 1 or not name]
        if twice:
            raise InputError(f"--classes: {twice[0]!r:.80} is there twice, or is no name")
        return read

    def layers(self) -> list[Layer]:
        """The values that the options put over a spec's, each under the name of its option."""
        peak = self.learning_rate
        values = {
            "--epochs": (("recipe", "epochs"), self.epochs),
            "--batch": (("recipe", "batch"), self.batch),
            "--lr": (("recipe", "learning_rate"), peak),
            "--lr of any batch": (("recipe", "learning_rate_images"), None if peak is None else 0),
            "--warmup": (("recipe", "warmup_epochs"), self.warmup),
            "--size": (("input", "train"), self.size),
            "--size of evaluation": (("input", "test"), self.size),
            "--precision": (("recipe", "precision"), self.precision),
        }
        return [
            *([read_recipe(Path(self.recipe))] if self.recipe is not None else []),
            *asked_for(values),
            *clipping_of(self.clipping),
            *self.changes,
        ]
