"""One training from its options to its files, as `nfspec train` and Python callers run it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nfspec.compilation import BACKENDS, default_backend, missing
from nfspec.data.images import require_channels
from nfspec.data.opening import open_sources
from nfspec.data.pieces import Tell, untold
from nfspec.data.sources import Source
from nfspec.errors import BackendError, InputError, NfspecError
from nfspec.language.differences import differences, spec_fields
from nfspec.language.loader import load
from nfspec.language.overrides import given
from nfspec.language.spec import Spec
from nfspec.language.template import path_text, value_text
from nfspec.language.validation import Key
from nfspec.plan.free_memory import require_free_memory
from nfspec.plan.initialise import Params, init
from nfspec.plan.resolver import resolve
from nfspec.training import frameworks, logs
from nfspec.training.class_weights import class_weights, told
from nfspec.training.failures import OtherTraining, explained
from nfspec.training.folders import claimed, clear, write_facts
from nfspec.training.options import Options
from nfspec.training.plots import plot
from nfspec.training.processes import Asked, devices_of, is_first, require_disk, require_memory
from nfspec.training.recipes import DEFAULT, default_for, fine_tuning, suited
from nfspec.training.runs import Run, recipe
from nfspec.training.watching import Quiet, Watcher, WithTensorBoard
from nfspec.weights.kinds import kind_of_file, read_fitting
from nfspec.weights.pretrained import weights_file

if TYPE_CHECKING:
    from nfspec.backends.training.devices import Devices
    from nfspec.backends.training.loop import Training

NEEDED = {
    "grain": "which reads the images",
    "matplotlib": "which draws training.png",
    "tensorboardX": "which writes the files for TensorBoard",
}
Watching = Callable[[int], AbstractContextManager[Watcher]]


def quietly(steps: int) -> AbstractContextManager[Watcher]:
    """A watcher that shows nothing; the folder's log.jsonl has everything."""
    return contextlib.nullcontext(Quiet())


@dataclass(frozen=True)
class Outcome:
    """A training as it is when `train` returns.

    Attributes:
        folder: Folder of the weights, checkpoints, log and picture.
        steps: Steps of the whole run.
        step: Steps done so far; None if it was stopped before it began.
        stopped: True if somebody asked it to stop.
        entries: Its log: a dict for each step, and one for each evaluation. Only the first of
            several processes has it.
    """

    folder: Path
    steps: int
    step: int | None
    stopped: bool
    entries: list[logs.Entry] = field(default_factory=list)

    @property
    def final(self) -> logs.Entry | None:
        """The last evaluation, of weights.safetensors."""
        return next((entry for entry in reversed(self.entries) if "top1" in entry), None)

    @property
    def best(self) -> logs.Entry | None:
        """The first evaluation with the highest top-1, of best.safetensors."""
        evaluations = [entry for entry in self.entries if "top1" in entry]
        return max(evaluations, key=lambda entry: entry["top1"], default=None)


@dataclass(frozen=True)
class Session:
    """A training that can begin: its options are checked, and no framework is imported yet.

    Attributes:
        options: As they were given.
        backend: Framework.
        spec: The spec to train.
        run: Its recipe.
        source, held: Images to train on, and to evaluate on.
        devices: Devices in all.
        folder: Its folder.
        first: True in the first process, which writes the files.
        own_recipe: True if the spec has a recipe of its own.
        suited: Lines on values of the recipe that were replaced to suit the data.
    """

    options: Options
    backend: str
    spec: Spec
    run: Run
    source: Source
    held: Source
    devices: int
    folder: Path
    first: bool
    own_recipe: bool
    suited: tuple[str, ...]

    @property
    def needs_processes(self) -> bool:
        """True if a process has to be started for each device, as torchrun does."""
        return self.backend == "torch" and self.devices > 1 and "RANK" not in os.environ

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the folder, if this is the first process; see that the disk has room."""
        if not self.first:
            yield
            return
        with claimed(self.folder, self.options.resume, self.options.force):
            require_disk(self.folder, self.run.plan, self.run)
            yield

    def train(self, watching: Watching = quietly, asked: Asked | None = None) -> Outcome:
        """Train, as `nfspec.training.session.train`."""
        asked = asked or Asked()
        options, run, plan = self.options, self.run, self.run.plan
        with self.claimed():
            frameworks.start(self.backend)
            from nfspec.backends.training import devices as engines

            engine = engines.devices(self.devices, options.shard)
            free = engines.memory(self.devices)
            require_memory(run, self.backend, self.devices, options.shard, free)
            params, origin = self._weights()
            images = run.batch // run.accumulation
            show = watching(run.steps) if self.first else quietly(run.steps)
            try:
                with show as watcher, explained(self.folder, images, plan.train_size):
                    for line in [*origin, *self._summary()]:
                        watcher.message(line)
                    if options.tensorboard and self.first:
                        watcher = WithTensorBoard(watcher, self.folder / "tensorboard")
                    step = self._steps(self._training(engine, watcher, params, asked), asked)
            except NfspecError:
                engine.close()
                raise
            engine.close()
            if not self.first or step is None:
                return Outcome(self.folder, run.steps, step, asked.to_stop())
            entries = logs.read(self.folder / logs.NAME)
            if any("loss" in entry for entry in entries):
                plot({self.spec.name: entries}, self.folder / "training.png")
            return Outcome(self.folder, run.steps, step, asked.to_stop(), entries)

    def _weights(self) -> tuple[Params, list[str]]:
        """The weights to start from, and lines that name their file, if they are from one, and
        say what was changed in them."""
        options = self.options
        if options.init is None:
            return init(self.run.plan, options.seed), []
        path = weights_file(options.init)
        fitted = read_fitting(
            path,
            self.run.plan,
            kind_of_file(path),
            seed=options.seed,
            new_head=options.new_head,
        )
        return fitted.params, [f"starts from {path}", *fitted.changes]

    def _summary(self) -> list[str]:
        """Lines that say what is about to be trained."""
        variant, data = str(self.options.variant), str(self.options.data)
        weights = self.run.class_weights
        images = (
            f"{len(self.source):,} to train on, {len(self.held):,} held out, "
            f"{len(self.source.classes)} classes"
        )
        return [
            *([] if self.own_recipe else [f"{variant} has no [recipe]; {DEFAULT} is taken"]),
            *self.suited,
            *str(self.run).split("\n"),
            f"data           {data}: {images}",
            *([] if weights is None else [told(weights, self.source.classes)]),
        ]

    def _training(
        self, engine: Devices, watcher: Watcher, params: Params, asked: Asked
    ) -> Training:
        """The network on its devices, and everything around it."""
        from nfspec.backends.training.loop import Settings, Training

        options, finetune = self.options, self.spec.finetune
        frozen = finetune.freeze if options.init is not None and finetune else ()
        return Training(
            spec=self.spec,
            run=self.run,
            source=self.source,
            held=self.held,
            folder=self.folder,
            settings=Settings(
                options.seed,
                options.workers,
                (*options.freeze, *frozen),
                options.checkpoint_minutes,
                options.stop_at,
            ),
            devices=engine,
            watcher=watcher,
            params=params,
            stop=asked.to_stop,
        )

    def _unlike(self) -> str:
        """The end of an error: the fields that are not as when the folder's training began."""
        try:
            before = load(self.folder / "spec.toml")
        except (NfspecError, OSError):
            return ""
        found = differences(spec_fields(before), spec_fields(self.spec))
        named = [
            f"{path_text(d.path)} was {value_text(d.a)}, and is {value_text(d.b)}" for d in found
        ]
        if not named:
            return ""
        more = f", and {len(named) - 3} more" if len(named) > 3 else ""
        return (
            f". Not as before: {'; '.join(named[:3])}{more}. To train on under other values, begin "
            f"a new training from its weights: --init {self.folder / 'weights.safetensors'} and "
            "another --out"
        )

    def _steps(self, training: Training, asked: Asked) -> int | None:
        """Train to the end; returns the step reached, or None if it was stopped before."""
        if asked.to_stop():
            return None
        if self.options.resume:
            try:
                training.resume()
            except OtherTraining as error:
                raise OtherTraining(f"{error}{self._unlike()}") from None
        elif self.first:
            clear(self.folder)
        if self.first and training.position.step == 0:
            write_facts(
                self.folder,
                self.spec,
                self.source.classes,
                data=self.options.data,
                backend=self.backend,
                seed=self.options.seed,
                held_out=self.options.held_out,
                val=self.options.val,
            )
        asked.training = True
        return training.train().step


def prepare(options: Options, tell: Tell = untold) -> Session:
    """Check options, and see that all that they need is there; nothing is written.

    Args:
        options: The network, the images, and how.
        tell: Called with a message now and then, where it takes long to find the images.

    Raises:
        NfspecError: Something is missing, or cannot be used.
    """
    backend = options.backend or default_backend()
    _require_installed(backend, options)
    variant = str(options.variant)
    usual = default_for(load(variant, options.changes))
    published, asked = load(variant, usual), options.layers()
    tuned = fine_tuning(load(variant, [*usual, *options.changes])) if options.init else []
    layers = [*usual, *tuned, *asked]
    source, held = open_sources(
        options.data, options.held_out, options.seed, options.val, options.class_names(), tell
    )
    of_data: dict[Key, int] = {
        ("recipe", "images"): len(source),
        ("head", "classes"): len(source.classes),
    }
    layers.append(given("the data", of_data))
    table = published.finetune if tuned else published.recipe
    assert table is not None
    adapted, lines = suited(load(variant, layers), table, len(source), asked)
    spec = load(variant, [*layers, *adapted])
    require_channels(spec.input)
    plan = resolve(spec)
    # For the weights alone; `require_memory` looks at the memory of the devices later.
    require_free_memory(plan, "train", 1)
    if spec.recipe and spec.recipe.batch > spec.recipe.epochs * len(source):
        raise InputError(
            f"--batch: {spec.recipe.batch} images are more than {spec.recipe.epochs} epochs of "
            f"{len(source)} images have; use a smaller batch, or more epochs"
        )
    weights = options.class_weights
    run = recipe(
        plan,
        accumulation=options.accumulation,
        class_weights=None if weights is None else class_weights(weights, source),
    )
    if options.shard and backend == "torch" and run.recipe.sam_rho:
        raise InputError(
            "--shard: torch cannot compute the ascent of SAM on parameters in parts; train with "
            "--set recipe.sam_rho=0, or without --shard"
        )
    devices, micro = devices_of(backend, options.devices), run.batch // run.accumulation
    if micro % devices:
        raise InputError(f"--batch: {micro} images do not divide among {devices} devices")
    name = re.sub(r"[*?\[\]]+", "", Path(options.data).name) or "data"  # without a pattern's signs
    folder = Path("runs") / f"{spec.name}-{name}-{backend}".replace("/", "-")
    return Session(
        options=options,
        backend=backend,
        spec=spec,
        run=run,
        source=source,
        held=held,
        devices=devices,
        folder=folder if options.out is None else Path(options.out),
        first=is_first(backend),
        own_recipe=not usual,
        suited=tuple(lines),
    )


def _require_installed(backend: str, options: Options) -> None:
    """See that the packages which a training needs are there, before anything is begun."""
    if (message := missing(backend) if backend in BACKENDS else None) is not None:
        raise BackendError(f"{backend}: {message}")
    wanted = [name for name in NEEDED if options.tensorboard or name != "tensorboardX"]
    absent = [name for name in wanted if importlib.util.find_spec(name) is None]
    if absent:
        what = ", and ".join(f"{name}, {NEEDED[name]}" for name in absent)
        are = "is" if len(absent) == 1 else "are"
        raise InputError(f"{what}, {are} not installed; run: pip install {' '.join(absent)}")
    if options.shard and backend == "tensorflow":
        raise BackendError("--shard: tensorflow cannot shard parameters; jax and torch can")


def train(options: Options, watching: Watching = quietly, asked: Asked | None = None) -> Outcome:
    """Train a network by its spec's recipe, or by nfspec's own, in a folder.

    Args:
        options: The network, the images, and how.
        watching: Called with the number of steps; returns a context manager that gives the watcher
            to tell of every step, evaluation and message.
        asked: Set its `caught` to 1 from elsewhere, and the training stops after the present step
            with a checkpoint.

    Returns:
        What was done; its folder holds spec.toml, run.json, log.jsonl, training.png, checkpoints,
        and the last and the best weights.

    Raises:
        TrainingError: It had begun and could not go on; its folder says how far it came.
            `Diverged` if the loss was not finite.
        OtherTraining: The folder's checkpoints are of another training.
        NfspecError: Something is missing, or cannot be used; nothing was written.
    """
    return prepare(options).train(watching, asked)
