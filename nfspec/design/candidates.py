"""Candidates side by side: what each costs, and how right it is where that is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nfspec.cost.accelerators import Accelerator
from nfspec.cost.memory import largest_batch
from nfspec.cost.roofline import step
from nfspec.design.sweeping import PARTS, STATE
from nfspec.errors import InputError
from nfspec.language.differences import same
from nfspec.language.loader import load, variants
from nfspec.language.spec import Spec
from nfspec.plan import Plan
from nfspec.plan.counting import count
from nfspec.plan.resolver import resolve
from nfspec.training.folders import RUN, Facts, read_facts
from nfspec.training.logs import NAME as LOG
from nfspec.training.logs import read
from nfspec.training.runs import recipe
from nfspec.weights.published import PUBLISHED, Published
from nfspec.wording import printable

IMAGENET = "ImageNet, published"


@dataclass(frozen=True)
class Estimate:
    """The estimated costs of training on one device.

    Attributes:
        precision: Dtype of the passes.
        memory: Bytes that a step takes.
        seconds: Time of a step.
        images_per_second: Images of a step over its time.
        hours: Device-hours of the recipe's whole training; None where there is no recipe.
    """

    precision: str
    memory: int
    seconds: float
    images_per_second: float
    hours: float | None


@dataclass(frozen=True)
class Training:
    """A training that `nfspec train` began.

    Attributes:
        name: Name of its folder.
        spec: The spec, with the recipe that it is trained by.
        facts: Its data, seed and framework.
        top1: Highest top-1 on held-out images; None before the first evaluation.
    """

    name: str
    spec: Spec
    facts: Facts
    top1: float | None


@dataclass(frozen=True)
class Candidate:
    """A network in a table.

    Attributes:
        name: Name of the spec, or of the training's folder.
        changes: Changes of it, as `FIELD=VALUE`.
        size: Side of the test images, px, at which MACs and activations are counted.
        parameters, macs, activation_bytes: As of `nfspec.count`.
        on: Name of each accelerator to the estimated costs there; None where no image fits it.
        top1: Highest top-1 on held-out images, or the published one; None where none is known.
        data: Images that top1 is of; empty where it is not known.
    """

    name: str
    changes: tuple[str, ...]
    size: int
    parameters: int
    macs: int
    activation_bytes: int
    on: dict[str, Estimate | None]
    top1: float | None
    data: str

    @property
    def label(self) -> str:
        return " ".join((self.name, *self.changes))


def candidate(
    spec: Spec,
    accelerators: Sequence[Accelerator] = (),
    batch: int = 256,
    precision: str | None = None,
    changes: Sequence[str] = (),
) -> Candidate:
    """The row of a spec.

    Args:
        spec: The spec.
        accelerators: Devices to estimate the costs of training on.
        batch: Images in a step.
        precision: Dtype of a step; the recipe's if None, and float32 without a recipe.
        changes: Changes of the spec, in words.

    Raises:
        InputError: An argument is none of those above.
    """
    plan = resolve(spec)
    best = published(spec)
    top1 = best.top1 / 100 if best and best.top1 else None
    return _row(spec.name, plan, accelerators, batch, precision, changes, top1, IMAGENET)


def run_candidate(
    folder: Path,
    accelerators: Sequence[Accelerator] = (),
    batch: int = 256,
    precision: str | None = None,
) -> Candidate:
    """The row of a training: its network, with the highest top-1 in its log.

    Args:
        folder: A folder that `nfspec train` wrote.
        accelerators, batch, precision: As of `candidate`.

    Raises:
        InputError: There is no training in it.
    """
    run = training(folder)
    plan = resolve(run.spec)
    return _row(run.name, plan, accelerators, batch, precision, (), run.top1, run.facts.data)


def training(folder: Path) -> Training:
    """The training in a folder that `nfspec train` wrote.

    Raises:
        InputError: There is none in it.
        SpecError: Its spec.toml is no spec.
    """
    facts = read_facts(folder)
    spec = load(folder / "spec.toml")
    try:
        entries = read(folder / LOG)
    except OSError as error:
        raise InputError(f"{folder / LOG}: cannot be read: {error.strerror or error}") from None
    scores = [entry["top1"] for entry in entries if "top1" in entry]
    return Training(folder.resolve().name, spec, facts, max(scores, default=None))


def trainings_in(path: str) -> list[Path]:
    """The folders of trainings at a path: itself, or those in the folder of a sweep. There are none
    where the path is of no folder, or is the name of a built-in spec.

    Raises:
        InputError: It is another folder.
    """
    folder = Path(path)
    try:
        if (folder / RUN).exists():
            return [folder]
        swept = (folder / STATE).exists() or (folder / PARTS).exists()
        found = sorted(each.parent for each in folder.glob(f"*/{RUN}")) if swept else []
        nothing = not found and path not in ("", *variants()) and folder.is_dir()
    except (OSError, ValueError):  # such as a name that is too long
        return []
    if nothing:
        raise InputError(
            f"{printable(path)}: no training in it; give a folder that nfspec train or nfspec "
            "sweep wrote"
        )
    return found


def published(spec: Spec) -> Published | None:
    """The published weights of the highest top-1 that is stated of a spec; None if there are none,
    or if the spec is not the built-in network as it was published."""
    named = [each for each in PUBLISHED.values() if each.top1 and each.variant == spec.name]
    if not named or not same(spec, load(spec.name)):
        return None
    return max(named, key=lambda each: each.top1 or 0.0)


def _row(
    name: str,
    plan: Plan,
    accelerators: Sequence[Accelerator],
    batch: int,
    precision: str | None,
    changes: Sequence[str],
    top1: float | None,
    data: str,
) -> Candidate:
    counted = count(plan)
    kind = precision or (plan.recipe.precision if plan.recipe else "float32")
    return Candidate(
        name,
        tuple(changes),
        counted.size[0],
        counted.parameters,
        counted.macs,
        counted.activation_bytes,
        {each.name: _estimate(plan, each, batch, kind) for each in accelerators},
        top1,
        data if top1 is not None else "",
    )


def _estimate(plan: Plan, accelerator: Accelerator, batch: int, precision: str) -> Estimate | None:
    memory, lanes = accelerator.memory, accelerator.lanes
    if not largest_batch(plan, memory, None, precision, accumulate=batch > 1, lanes=lanes):
        return None
    found = step(plan, accelerator, batch, precision=precision)
    steps = recipe(plan, batch=batch).steps if plan.recipe else None
    return Estimate(
        precision,
        found.memory.total,
        found.seconds,
        batch / found.seconds,
        None if steps is None else steps * found.seconds / 3600,
    )


def cost_of(row: Candidate) -> float:
    """The cost that is weighed against top-1: a step on the first accelerator, or else MACs."""
    first = next(iter(row.on.values()), None)
    if first is not None:
        return first.seconds
    return math.inf if row.on else float(row.macs)


def front(rows: Sequence[Candidate]) -> set[int]:
    """The numbers of the rows on the Pareto front, among those whose top-1 is of the same images.

    A row is on it if no other costs no more and is no less often right, one of them strictly.
    """

    def beats(one: Candidate, other: Candidate) -> bool:
        if one.data != other.data or one.top1 is None or other.top1 is None:
            return False
        no_worse = cost_of(one) <= cost_of(other) and one.top1 >= other.top1
        return no_worse and (cost_of(one), one.top1) != (cost_of(other), other.top1)

    known = [n for n, row in enumerate(rows) if row.top1 is not None]
    return {n for n in known if not any(beats(other, rows[n]) for other in rows)}
