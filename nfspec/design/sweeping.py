"""Sweeps: candidates, each trained from several seeds, and what the seeds allow to be said."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from nfspec.arguments import MAX_SEED
from nfspec.compilation import Backend
from nfspec.design.statistics import quantile
from nfspec.errors import InputError
from nfspec.files import content, replacing, write
from nfspec.language.loader import load
from nfspec.language.overrides import ON_COMMAND_LINE, overriding, parsed
from nfspec.language.validation import shown
from nfspec.training.logs import NAME, read
from nfspec.wording import found_text, printable, reason_of

STATE = "sweep.json"  # of a sweep's folder: the outcome of each run that ended
PARTS = "parts"  # of a sweep's folder: a folder for each part, which has a STATE of its own
MOST_BYTES = 2**20  # of a plan
MOST_RUNS = 10_000
LEVEL = 0.05  # the probability that a comparison claims a difference where there is none
# Options of `nfspec train` that a plan may have in its table [train].
TRAIN = (
    "accumulation", "batch", "checkpoint-minutes", "class-weights", "clipping", "epochs", "freeze",
    "held-out", "init", "lr", "precision", "recipe", "size", "val", "warmup", "workers",
)  # fmt: skip


def _option(value: Any) -> Any:
    """Accept what an option of the command line can be given."""
    if not isinstance(value, str | int | float):  # bool is an int
        raise ValueError("expected text, a number, true or false")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("expected a finite number")
    return value


def _field(value: Any) -> Any:
    """Accept what a field of a spec can be set to: an option's value, or an array of these."""
    return [_field(each) for each in value] if isinstance(value, list) else _option(value)


Option = Annotated[Any, AfterValidator(_option)]
Value = Annotated[Any, AfterValidator(_field)]


class Plan(BaseModel):
    """The plan of a sweep, as its TOML file says it.

    Attributes:
        specs: Built-in specs, or paths of .toml files.
        data: Images, as of `nfspec train`.
        seeds: Random seeds; each candidate is trained from each.
        backend: The framework; the first that is installed if None.
        minutes: No run is begun after so many; None for no limit.
        set: Field of a spec to the values that it takes; every combination is a candidate.
        train: Options of `nfspec train`, without their dashes.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    specs: Annotated[list[str], Field(min_length=1)]
    data: str
    seeds: Annotated[list[Annotated[int, Field(ge=0, le=MAX_SEED)]], Field(min_length=1)] = [0]
    backend: Backend | None = None
    minutes: Annotated[float, Field(gt=0)] | None = None
    set: dict[str, Annotated[list[Value], Field(min_length=1)]] = {}
    train: dict[str, Option] = {}


@dataclass(frozen=True)
class Run:
    """One training of a sweep.

    Attributes:
        spec: Built-in spec, or path of a .toml file.
        changes: Changes of it, as `FIELD=VALUE`.
        seed: Random seed.
    """

    spec: str
    changes: tuple[str, ...]
    seed: int

    @property
    def label(self) -> str:
        """The candidate: the spec and its changes."""
        return " ".join((self.spec, *self.changes))

    @property
    def folder(self) -> str:
        """Name of the folder, which is that of this candidate and seed in any plan."""
        text = re.sub(r"[^A-Za-z0-9_.=+-]+", "-", "+".join((Path(self.spec).stem, *self.changes)))
        digest = hashlib.sha256(self.label.encode()).hexdigest()[:8]
        return f"{text[:80]}-{digest}-seed{self.seed}"


def read_plan(path: Path) -> Plan:
    """The plan in a TOML file.

    Raises:
        InputError: It cannot be read, or is none; the message names the field.
    """
    name = printable(str(path))
    try:
        data = tomllib.loads(content(path, MOST_BYTES).decode("utf-8"))
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not TOML ({reason_of(error)})") from None
    try:
        plan = Plan.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = "expected no such field" if first["type"] == "extra_forbidden" else first["msg"]
        what = what.removeprefix("Value error, ")
        found = "" if first["type"] == "missing" else f"; found {found_text(first['input'])}"
        raise InputError(f"{name}: {shown(first['loc'])}: {what}{found}") from None
    strange = [key for key in plan.train if key not in TRAIN]
    if strange:
        raise InputError(
            f"{name}: train.{printable(strange[0])}: expected some of {', '.join(TRAIN)}"
        )
    if len({*plan.seeds}) < len(plan.seeds) or len({*plan.specs}) < len(plan.specs):
        raise InputError(f"{name}: one of specs or seeds is there twice")
    if (count := _count(plan)) > MOST_RUNS:
        raise InputError(f"{name}: {count:,} runs; expected at most {MOST_RUNS:,}")
    return plan


def _count(plan: Plan) -> int:
    return len(plan.specs) * len(plan.seeds) * math.prod(map(len, plan.set.values()))


def runs_of(plan: Plan) -> list[Run]:
    """Every run: all candidates of the first seed, then of the next, so that a sweep that ends
    early can compare.

    Raises:
        SpecError: A candidate is no network.
        InputError: A field or a value is none.
    """
    grid = [[f"{field}={_text(value)}" for value in plan.set[field]] for field in plan.set]
    changes = list(itertools.product(*grid))
    for spec, each in itertools.product(plan.specs, changes):
        load(spec, overriding(parsed(each), ON_COMMAND_LINE))
    return [Run(spec, each, seed) for seed in plan.seeds for spec in plan.specs for each in changes]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def command_of(plan: Plan, run: Run, folder: Path) -> list[str]:
    """The arguments of `nfspec train` for a run, without --resume and --force."""
    options = {**plan.train, "seed": run.seed, "out": str(folder)}
    if plan.backend is not None:
        options["backend"] = plan.backend
    given = [f"--{name}={_text(value)}" for name, value in options.items()]
    changes = [f"--set={change}" for change in run.changes]
    return ["train", *given, *changes, "--", run.spec, plan.data]


@dataclass(frozen=True)
class Outcome:
    """The end of a run.

    Attributes:
        top1: Top-1 on the held-out images after the last epoch; None where the run failed.
        images: Number of those images.
        reason: Why it failed, such as a loss that was not finite; empty where it did not.
    """

    top1: float | None
    images: int = 0
    reason: str = ""


def outcome_of(folder: Path) -> Outcome:
    """The outcome of a run that came to its end, from its log.

    Raises:
        InputError: It has no evaluation.
        OSError: The log cannot be read.
    """
    held = [entry for entry in read(folder / NAME) if "top1" in entry]
    if not held:
        raise InputError(f"{folder}: no evaluation in its log")
    return Outcome(held[-1]["top1"], held[-1]["held_out_images"])


class State:
    """The outcomes of a sweep, by the names of the runs' folders, in a file that is written anew
    after each run.

    Args:
        folder: The sweep's folder.

    Raises:
        InputError: The file is damaged.
    """

    def __init__(self, folder: Path):
        self.path = folder / STATE
        self.outcomes: dict[str, Outcome] = {}
        try:
            said = json.loads(content(self.path, MOST_BYTES * 16).decode("utf-8"))
            for name, each in said.items():
                self.outcomes[name] = Outcome(each["top1"], each["images"], each["reason"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise InputError(
                f"{self.path}: damaged; move it away, and the runs are looked at again"
            ) from None

    def begin(self) -> None:
        """Make the file where there is none, which other processes may do at once."""
        with contextlib.suppress(FileExistsError), replacing(self.path, only_new=True) as temporary:
            temporary.write_text("{}\n", encoding="utf-8")

    def add(self, run: Run, outcome: Outcome) -> None:
        self.outcomes[run.folder] = outcome
        self.save()

    def save(self) -> None:
        text = {name: vars(each) for name, each in self.outcomes.items()}
        write(self.path, json.dumps(text, indent=1) + "\n")


@dataclass(frozen=True)
class Part:
    """A part of the runs of a sweep, for one of several machines.

    Attributes:
        number, count: The part, from 1, and the number of all parts.
    """

    number: int
    count: int

    def of(self, runs: Sequence[Run]) -> list[Run]:
        """Its runs: every run is in one part of a count."""
        return list(runs[self.number - 1 :: self.count])

    def place(self, folder: Path) -> Path:
        """The folder of its outcomes, in the sweep's folder."""
        return folder / PARTS / f"{self.number}-of-{self.count}"


def read_part(text: str) -> Part:
    """A part such as 3/8.

    Raises:
        InputError: It is none.
    """
    found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text)
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count <= MOST_RUNS:
        raise InputError(
            f"--part: expected a part and the number of parts, such as 3/8; found "
            f"{printable(text[:40])!r}"
        )
    return Part(number, count)


def outcomes_in(folder: Path) -> dict[str, Outcome]:
    """The outcomes of a sweep and of all its parts.

    Raises:
        InputError: A file is damaged.
    """
    outcomes = dict(State(folder).outcomes)
    for path in sorted(folder.glob(f"{PARTS}/*/{STATE}")):
        outcomes |= State(path.parent).outcomes
    return outcomes


@dataclass(frozen=True)
class Row:
    """A candidate of a sweep, over its seeds.

    Attributes:
        label: The spec and its changes.
        top1: Seed to top-1, of the runs that came to their end.
        failed: Seed to the reason of a failure.
    """

    label: str
    top1: dict[int, float]
    failed: dict[int, str]

    @property
    def mean(self) -> float:
        return fmean(self.top1.values()) if self.top1 else math.nan

    @property
    def half(self) -> float | None:
        """Half of the 95 % interval of the mean over seeds (Student's t); None for one seed."""
        return interval([*self.top1.values()], LEVEL)


def interval(values: Sequence[float], level: float) -> float | None:
    """Half of the interval of a mean of independent values that are normal; None for one value."""
    count = len(values)
    if count < 2:
        return None
    return quantile(count - 1, level / 2) * stdev(values) / math.sqrt(count)


def rows_of(runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> list[Row]:
    """The candidates, the best mean first; those without an end last."""
    rows: dict[str, Row] = {}
    for run in runs:
        row = rows.setdefault(run.label, Row(run.label, {}, {}))
        outcome = outcomes.get(run.folder)
        if outcome is not None and outcome.top1 is not None:
            row.top1[run.seed] = outcome.top1
        elif outcome is not None:
            row.failed[run.seed] = outcome.reason
    return sorted(rows.values(), key=lambda row: -row.mean if row.top1 else math.inf)


def verdict(rows: Sequence[Row]) -> str:
    """A sentence on the best candidate that claims no more than the seeds allow.

    It is compared with each of the others over the seeds that both have, at a level that is
    divided by the number of comparisons (Bonferroni).
    """
    ended = [row for row in rows if row.top1]
    if not ended:
        return "No run came to its end."
    best, *others = ended
    if not others:
        return f"There is one candidate with results: {best.label}."
    clear: list[str] = []
    unclear: list[str] = []
    for other in others:
        gaps = [best.top1[seed] - other.top1[seed] for seed in best.top1 if seed in other.top1]
        half = interval(gaps, LEVEL / len(others))
        (clear if half is not None and fmean(gaps) > half else unclear).append(other.label)
    if all(len(row.top1) < 2 for row in ended):
        return f"{best.label} has the best top-1 of one seed, which says nothing about chance."
    told = f"{best.label} has the best mean over seeds"
    if not unclear:
        which = "the other" if len(others) == 1 else f"each of the other {len(others)}"
        return f"{told}, beyond chance for {which}."
    apart = f"beyond chance for {len(clear)} of the other {len(others)}" if clear else ""
    names = ", ".join(unclear[:3]) + (f" and {len(unclear) - 3} more" if len(unclear) > 3 else "")
    return f"{told}{', ' + apart if apart else ''}; the seeds do not tell it from {names}."


def plot(rows: Sequence[Row], path: Path) -> None:
    """Write a PNG of the means, their 95 % intervals, and each run.

    Raises:
        InputError: matplotlib is not installed.
        OSError: The file cannot be written; `filename` is `path`.
    """
    from nfspec.training.plots import blank, label, save

    ended = [row for row in reversed(rows) if row.top1]
    figure = blank(8, 1.5 + 0.35 * len(ended))
    axes: Any = figure.subplots()
    for at, row in enumerate(ended):
        axes.plot([100 * value for value in row.top1.values()], [at] * len(row.top1), "C1.", ms=5)
        axes.errorbar(100 * row.mean, at, xerr=100 * (row.half or 0.0), fmt="C0o", capsize=3)
    axes.set_yticks(range(len(ended)), [label(row.label) for row in ended])
    axes.set(xlabel="top-1 on held-out images, %; mean over seeds, 95 % interval, each run")
    axes.grid(alpha=0.3)
    save(figure, path)
