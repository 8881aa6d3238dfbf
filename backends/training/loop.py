"""The training loop: steps, evaluations, and checkpoints from which it goes on after any stop."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nfspec import compilation, weights
from nfspec.backends.layers.drop import Drop
from nfspec.backends.optimizers import AGC
from nfspec.backends.optimizers.wrapper import first_of_kind
from nfspec.backends.running import forward_function
from nfspec.backends.training import checkpoints, evaluation
from nfspec.backends.training.checkpoints import Position
from nfspec.backends.training.devices import Devices
from nfspec.data.batches import Examples, Share, batches, held_out
from nfspec.data.preprocessing import Preprocessing
from nfspec.data.sources import Source
from nfspec.errors import InputError, WeightError
from nfspec.files import sweep
from nfspec.language.spec import Spec
from nfspec.plan import Plan
from nfspec.plan.clipping import matches
from nfspec.plan.initialise import Params, generator
from nfspec.training import logs
from nfspec.training.failures import Diverged, OtherTraining
from nfspec.training.runs import Run
from nfspec.training.scores import Score, outputs, score
from nfspec.training.watching import Watcher

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


@dataclass(frozen=True)
class Settings:
    """The settings of a training that are not in its spec.

    Attributes:
        seed: Seed of weights, order, augmentation and dropping.
        workers: Threads that read images; more than four are processes.
        freeze: Patterns of names of parameters that stay as they are.
        minutes: Between checkpoints, beside one at the end of each epoch.
        last: The step to stop at, before the recipe's end; 0: its end.
    """

    seed: int = 0
    workers: int = 2
    freeze: tuple[str, ...] = ()
    minutes: float = 10.0
    last: int = 0


@dataclass(eq=False)
class Training:
    """One training, in a folder of its own.

    Attributes:
        spec, run: Network to train, and its recipe.
        source, held: Images to train on, and to evaluate on.
        folder: Folder of the log, the checkpoints and the weights.
        settings: The rest.
        devices: Devices that it runs on.
        watcher: The object that receives each entry.
        params: The initial weights.
        stop: Asked after each step; True ends the training there, with a checkpoint.
    """

    spec: Spec
    run: Run
    source: Source
    held: Source
    folder: Path
    settings: Settings
    devices: Devices
    watcher: Watcher
    params: Params
    stop: Callable[[], bool] = lambda: False
    said: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        plan, settings, run = self.plan, self.settings, self.run
        with self.devices.scope():
            self.network = compilation.compile(
                self.spec,
                keras.backend.backend(),
                self.params,
                dtype=PRECISIONS[run.recipe.precision],
                remat=run.recipe.remat,
            )
            freeze(self.network, settings.freeze)
            metrics = [keras.metrics.CategoricalAccuracy(name="accuracy")]
            self.trainer = run.compile(self.network, metrics=metrics)
            self.optimizer = self.trainer.optimizer
            self.optimizer.build(self.trainer.trainable_variables)
        seed_drops(self.network, settings.seed)
        self.agc = first_of_kind(self.optimizer, AGC)
        self.stage_of = _stages(plan)
        self.logits = forward_function(self.network)
        self.examples = Examples(
            self.source,
            self.spec.input,
            run.recipe,
            settings.seed,
            run.batch,
            run.batch * run.steps,
            self._bad,
        )
        self.position = Position(0)

    @property
    def plan(self) -> Plan:
        return self.run.plan

    @property
    def log(self) -> Path:
        return self.folder / logs.NAME

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @cached_property
    def digest(self) -> str:
        """A sha256 of all that a step depends on, to notice another training's checkpoint."""
        facts = [
            self.spec.model_dump(mode="json", by_alias=True, exclude={"name", "source"}),
            [self.settings.seed, list(self.settings.freeze), self.run.accumulation, self.run.steps],
            [list(self.source.classes), self.source.keys(), self.source.labels.tolist()],
        ]
        if self.run.class_weights is not None:
            facts.append(list(self.run.class_weights))
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def resume(self) -> None:
        """Go on from the newest checkpoint that can be read, or from the start if there is none."""
        for step in reversed(checkpoints.saved(self.checkpoints)):
            path = checkpoints.path_of(self.checkpoints, step)
            try:
                self.position = checkpoints.restore(path, self.network, self.optimizer, self.digest)
                break
            except OtherTraining:
                raise
            except WeightError as error:
                self.watcher.message(f"{error}; going back to the one before it")
                if self.devices.rank == 0:
                    checkpoints.put_aside(path)
        if self.devices.rank == 0:
            logs.cut(self.log, self.position.step, self.watcher.message)
            for folder in (self.folder, self.checkpoints):
                sweep(folder)
        self.watcher.message(f"going on after step {self.position.step:,} of {self.run.steps:,}")

    def train(self) -> Position:
        """Train to the end, or until a stop is requested; returns the position reached.

        Raises:
            Diverged: The loss is not finite.
            WeightError: A checkpoint cannot be written.
        """
        self.devices.prepare(self.trainer, self.network)
        run, accumulation = self.run, self.run.accumulation
        micro = run.batch // accumulation
        start = self.position.step
        share = Share(
            self.examples, micro, start * run.batch, self.devices.rank, self.devices.world
        )
        data = batches(share, self.settings.workers)
        last = min(self.settings.last or run.steps, run.steps)
        saved = time.monotonic()
        for step in range(start + 1, last + 1):
            self._step(step, data, accumulation)
            self.position = Position(step, self.position.best_step, self.position.best)
            ends = self._epoch(step) > self._epoch(step - 1) or step == last
            if ends:
                self._evaluate(step)
            stopped = self.devices.agree(self.stop())
            if ends or stopped or time.monotonic() - saved > 60 * self.settings.minutes:
                self._save()
                saved = time.monotonic()
            if stopped:
                break
        return self.position

    @property
    def _less(self) -> str:
        """Advice for a training that diverged."""
        clip = "clip more" if self.agc is not None else "clip gradients"
        return f"train with a lower rate (--lr), or {clip} (--clipping 0.01)"

    def _epoch(self, step: int) -> int:
        return step * self.run.batch // self.run.recipe.images

    def _step(self, step: int, data: Iterator[Any], accumulation: int) -> None:
        began = time.monotonic()
        rate = float(keras.ops.convert_to_numpy(self.optimizer.learning_rate))
        means: dict[str, float] = {}
        for _ in range(accumulation):
            x, y = next(data)
            for name, value in self.devices.train(self.trainer, x, y).items():
                means[name] = means.get(name, 0.0) + float(value) / accumulation
        entry: logs.Entry = {"step": step, "epoch": step * self.run.batch / self.run.recipe.images}
        entry |= means | {"rate": rate, **self._clipped()}
        entry["images_per_second"] = self.run.batch / max(time.monotonic() - began, 1e-9)
        if not math.isfinite(means["loss"]):
            at = f"at a learning rate of {rate:.3g}"
            raise Diverged(f"step {step}: the loss is {means['loss']}, {at}; {self._less}")
        if self.devices.rank == 0:
            logs.append(self.log, entry)
            self.watcher.step(entry)

    def _clipped(self) -> dict[str, Any]:
        """Fraction of units that were clipped, and the same for each stage."""
        if self.agc is None:
            return {}
        clipped: dict[str, list[float]] = {}
        for name, (fraction, units) in self.agc.clip_fractions().items():
            for key in ("", self.stage_of[name]):
                sums = clipped.setdefault(key, [0.0, 0.0])
                sums[0] += fraction * units
                sums[1] += units
        fractions = {key: part / units for key, (part, units) in clipped.items()}
        return {"clip_fraction": fractions.pop("", 0.0), "clip_fraction_of": fractions}

    def _evaluate(self, step: int) -> None:
        first = self.devices.rank == 0
        if not first and not self.devices.together:
            return
        with evaluation.averaged(self.optimizer):
            score = self.score()
            if not score.images:
                raise InputError("none of the held-out images can be read")
            if not math.isfinite(score.loss):
                raise Diverged(f"step {step}: the outputs are not finite; {self._less}")
            entry = {
                "step": step,
                "epoch": step * self.run.batch / self.run.recipe.images,
                "top1": score.top1 / score.images,
                "top5": score.top5 / score.images,
                "held_out_loss": score.loss / score.images,
                "held_out_images": score.images,
            }
            params = compilation.params_of(self.network)
            if entry["top1"] > self.position.best:
                self.position = Position(step, step, entry["top1"])
                self._write("best.safetensors", params)
            self._write("weights.safetensors", params)
        if first:
            logs.append(self.log, entry)
            self.watcher.evaluation(entry)

    def score(self) -> Score:
        """The score of the held-out images at the test size, with the parameters as they are."""
        how, batch = self.spec.input, min(self.run.batch, 256, len(self.held))
        images = held_out(self.held, Preprocessing(how, how.test), batch, self._bad)
        found = outputs(self.logits, images, batch)
        return sum((score(each, self.held.labels[numbers]) for each, numbers in found), Score())

    def _write(self, name: str, params: Params) -> None:
        if self.devices.rank == 0:
            weights.save(self.folder / name, self.plan, params)

    def _save(self) -> None:
        if self.devices.rank == 0:
            self.checkpoints.mkdir(exist_ok=True)
            checkpoints.save(
                self.checkpoints, self.network, self.optimizer, self.position, self.digest
            )
        elif self.devices.in_parts:
            checkpoints.take_part(self.network, self.optimizer)

    def _bad(self, message: str) -> None:
        if message not in self.said:
            self.said.add(message)
            self.watcher.message(f"{message}; left out")


def freeze(network: keras.Model, patterns: tuple[str, ...]) -> None:
    """Let the parameters whose names match a pattern stay as they are.

    Raises:
        InputError: A pattern is for no name, or nothing is left to train.
    """
    names = compilation.names_of(network)
    for pattern in patterns:
        if not any(matches(name, pattern) for name in names):
            raise InputError(
                f'freeze: no parameter is called "{pattern}"; * stands for any characters, names '
                f"are like {names[0]} and {names[-1]}"
            )
    for variable in network.trainable_variables:
        if any(matches(variable.canonical, pattern) for pattern in patterns):
            variable.trainable = False
    if not network.trainable_variables:
        raise InputError("freeze: the patterns match all parameters; nothing is left to train")


def seed_drops(network: keras.Model, seed: int) -> None:
    """Give each layer that drops at random a seed that follows from its name."""
    for layer in network.layers:
        if isinstance(layer, Drop):
            drawn = generator(seed, f"drop/{layer.canonical}").integers(2**31)
            layer.seed_generator.state.assign(np.asarray([drawn, 0], np.uint32))


def _stages(plan: Plan) -> dict[str, str]:
    """Name of each parameter to its part of the network: stem, stages.0, ..., head."""
    stages: dict[str, str] = {}
    for op in plan.ops:
        section = plan.section(op)
        stage = ".".join(section.split(".")[:2]) if section.startswith("stages") else section
        stages |= {parameter.name: stage for parameter in op.parameters}
    return stages
