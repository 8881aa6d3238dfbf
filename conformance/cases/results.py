"""The results of a conformance run: plain data, kept as JSON, from which reports are made."""

from __future__ import annotations

import builtins
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter

SCHEMA = "nfspec-conformance/1"
COMPILER = "tpu-compiler"  # the device for which programs are compiled, and on which none runs

Verdict = Literal[
    "pass",  # every case within its bound, every regime met
    "pass in part",  # as far as the subject offers cases; others are not offered
    "fail",  # a case beyond its bound, or not finite
    "uncovered",  # all within, but the cases did not meet a regime that they must meet
    "error",  # the subject raised
    "crashed",  # its process died
    "hung",  # no answer in time
    "missing",  # its framework is not installed, or has no such device or mode
    "not offered",  # the subject has no such operation
    "compiles",  # every program was compiled for the device; none ran there
    "deviates",  # fails, as deviations.toml says it does
    "stale deviation",  # deviations.toml says that it fails, and it passes
]
# Verdicts of a cell that make a run fail.
BAD: frozenset[Verdict] = frozenset(
    {"fail", "uncovered", "error", "crashed", "hung", "stale deviation"}
)
GOOD: frozenset[Verdict] = frozenset({"pass", "pass in part", "deviates", "compiles"})
# Verdicts of a cell some or all of whose cases the subject does not offer.
PARTIAL: frozenset[Verdict] = frozenset({"pass in part", "not offered"})
# Verdicts that say something about the subject's answers, and not about why there are none.
JUDGED = GOOD | {"fail", "uncovered", "stale deviation"}

RunVerdict = Literal[
    "CONFORMANT",  # all that the run tests was judged, no cell is bad, and the run has no problem
    "CONFORMANT IN PART",  # the same of what is offered; some or all of a cell is not offered
    "NOT CONFORMANT",  # a cell is bad, or the run has a problem
    "COMPILES",  # every program was compiled for the device; nothing is said of numbers there
    "DOES NOT COMPILE",  # one was not
    "NOTHING JUDGED",  # no case of any cell was answered
]

# The ratios |error| / bound at which histograms are cut, powers of two: the first bin is below
# 2^-12, the last from 16 on.
HISTOGRAM_EDGES = tuple(2.0**k for k in range(-12, 5))


def histogram(ratios: list[float]) -> list[int]:
    """Counts of ratios in the bins between `HISTOGRAM_EDGES`, with both open ends."""
    bins = np.searchsorted(HISTOGRAM_EDGES, np.nan_to_num(ratios, nan=math.inf), side="right")
    return np.bincount(bins, minlength=len(HISTOGRAM_EDGES) + 1).tolist()


@dataclass(frozen=True)
class Column:
    """A subject on a device in a mode.

    Attributes:
        subject: Its name, such as `jax` for nfspec on JAX, or `timm`.
        framework: Framework that it runs on.
        device: cpu, gpu, tpu or tpu-compiler.
        mode: f32, tf32, bf16 or f16.
        facts: Versions, device, switches as read back from the framework; empty if it never ran.
        problem: The reason why it did not run or stopped, in a sentence; empty if it ran.
    """

    subject: str
    framework: str
    device: str
    mode: str
    facts: dict[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def name(self) -> str:
        return f"{self.subject}/{self.device}/{self.mode}"


@dataclass(frozen=True)
class PropertyInfo:
    """A property as reports name it."""

    id: str
    tier: int
    title: str


@dataclass
class Cell:
    """One property of one column.

    Attributes:
        property: Its id.
        column: `Column.name`.
        verdict: See `Verdict`.
        cases: Number of cases that were judged.
        median, worst: Median and maximum over the cases of each case's largest |error| / bound; 0
            where bits are compared and equal, infinite for the reasons that `infinite` has.
        histogram: Counts of those ratios in the bins of `HISTOGRAM_EDGES`.
        worst_case: The case with the worst ratio, as its JSON fields; where some cases had no
            answer and no ratio is above 1, the first of those.
        message: Description of the failure, many lines; empty if nothing failed.
        coverage: Regime to the number of cases that met it.
        seconds: Time of the whole property, all columns together.
        no_method: True if the subject has no method for the property at all, so that none of its
            cases could be asked.
        unoffered: Number of cases that the subject does not offer.
        unanswered: Number of cases to which it gave no answer, as it raised, crashed or hung.
        wide: Number of cases that it answered in float64.
        infinite: The reason for an infinite `worst`: "the bits differ", "not finite", "another
            shape" or "no output"; empty if it is finite.
    """

    property: str
    column: str
    verdict: Verdict
    cases: int = 0
    median: float = 0.0
    worst: float = 0.0
    histogram: list[int] = field(default_factory=list)
    worst_case: dict[str, Any] | None = None
    message: str = ""
    coverage: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    no_method: bool = False
    unoffered: int = 0
    unanswered: int = 0
    wide: int = 0
    infinite: str = ""

    @builtins.property  # the field has the name
    def judged(self) -> bool:
        """True if the subject answered, so that there was something to judge."""
        return self.cases > 0 or self.verdict in JUDGED


@dataclass(repr=False)
class Results:
    """A whole run.

    Attributes:
        settings: The settings of the run: seed, examples, device, modes and so on.
        spec: name, source and digest of the spec tested; None for the general grid of shapes.
        columns, properties, cells: The table; a cell may be absent where a run was cut short.
        deviations: The entries of deviations.toml that matched, as their fields.
        explanations: For a subject that keeps other conventions: `subject`, `property`, `asked`
            (spec), `fields` (field to the value with which it conforms; empty if none was found),
            `ratio_before`, `ratio_after`; and `says`, `defects`, `at_most`, `factor`, `inherits`,
            `error` where they say something, as `nfspec.conformance.conventions.explain` describes
            them.
        problems: Sentences, each of which names something wrong with the run as a whole, such as an
            entry of deviations.toml for an unknown property. A run with a problem is not
            conformant.
        notes: Sentences that do not change the verdict, such as one about a method whose name is
            not one that the kit asks for.
        folder: The folder of the run, if a relative path or a module in it was named; replay
            commands change to it first. Empty if nothing depends on it.
        started: ISO 8601, UTC.
        seconds: Time of the run.
    """

    settings: dict[str, Any]
    spec: dict[str, str] | None
    columns: list[Column]
    properties: list[PropertyInfo]
    cells: list[Cell] = field(default_factory=list)
    deviations: list[dict[str, Any]] = field(default_factory=list)
    explanations: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    folder: str = ""
    started: str = ""
    seconds: float = 0.0

    @property
    def verdict(self) -> RunVerdict:
        """The verdict on the whole run. Every report, the command and its exit status show it."""
        if not any(cell.judged for cell in self.cells):
            return "NOTHING JUDGED"
        bad = any(cell.verdict in BAD for cell in self.cells)
        good = any(cell.verdict in GOOD for cell in self.cells)
        if self.settings.get("device") == COMPILER:
            return "DOES NOT COMPILE" if bad or self.problems or not good else "COMPILES"
        if bad or self.problems or not good:
            return "NOT CONFORMANT"
        partial = any(cell.verdict in PARTIAL for cell in self.cells)
        return "CONFORMANT IN PART" if partial else "CONFORMANT"

    def __repr__(self) -> str:
        """The verdict and the extent: a run has far more than a line can hold."""
        cases = sum(cell.cases for cell in self.cells)
        tested = len({cell.property for cell in self.cells if cell.judged})
        return f"<Results: {self.verdict}, cases: {cases}, properties judged: {tested}>"

    @property
    def conformant(self) -> bool:
        """True if something was judged and nothing wrong was found, in whole or in part."""
        return self.verdict in ("CONFORMANT", "CONFORMANT IN PART")

    def cell(self, property_id: str, column: str) -> Cell | None:
        """The cell of a property and a column; None where there is none."""
        place = (property_id, column)
        return next((c for c in self.cells if (c.property, c.column) == place), None)

    def to_json(self) -> str:
        """Indented JSON; infinite ratios are the text "inf", as JSON has no such number."""
        verdict = {"verdict": self.verdict, "conformant": self.conformant}
        return json.dumps(finite({"schema": SCHEMA, **asdict(self), **verdict}), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Results:
        """The inverse of `to_json`."""
        data = json.loads(text)
        return cls(
            settings=data["settings"],
            spec=data["spec"],
            columns=[Column(**column) for column in data["columns"]],
            properties=[PropertyInfo(**info) for info in data["properties"]],
            cells=[cell_of(fields) for fields in data["cells"]],
            deviations=data["deviations"],
            explanations=data["explanations"],
            problems=data["problems"],
            notes=data.get("notes", []),
            folder=data.get("folder", ""),
            started=data["started"],
            seconds=data["seconds"],
        )


_CELL = TypeAdapter(Cell)


def cell_of(fields: dict[str, Any]) -> Cell:
    """A cell from its JSON fields.

    Raises:
        TypeError, ValueError: A field is missing, unknown or has another type.
    """
    cell = _CELL.validate_python(vars(Cell(**fields)))
    if (
        len(cell.histogram) not in (0, len(HISTOGRAM_EDGES) + 1)
        or min(cell.histogram, default=0) < 0
    ):
        raise ValueError("a cell's histogram has a count for each bin")
    return cell


def finite(value: Any) -> Any:
    """Data that JSON can hold: numbers that are not finite become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value
