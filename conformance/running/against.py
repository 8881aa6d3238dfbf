"""Two implementations against each other and the reference: which of them moved, and where first.

Each case is put to both. Their outputs agree if they differ by at most twice the bound, which is
how far apart two outputs can be that are both within it.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.target import target
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.properties.base import Expectation, judge_output
from nfspec.conformance.running.answers import VERDICTS, Answer, PreparedCase, ask, started
from nfspec.conformance.running.command import needed_folder
from nfspec.conformance.running.run import chosen, essential_cases
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.workers.process import WorkerError
from nfspec.conformance.workers.worker import Worker
from nfspec.errors import InputError

AgainstVerdict = Literal[
    "THEY AGREE",  # all that both offer was compared, and is within the bounds of each other
    "THEY DIFFER",  # something is not, or one of them gave no answer to what it offers
    "NOTHING COMPARED",  # no case was answered by both
]
Moved = Literal["A", "B", "both", "neither"]


@dataclass
class Place:
    """An output of a property, a tap or a block, in all cases together.

    Attributes:
        property: Id of the property.
        name: Name of the output, tap or block.
        mode: Mode of the arithmetic.
        a, b: The largest |error| / bound of A and of B.
        apart: The largest |A - B| / (2 · bound); above 1 they differ.
        case: The case where they are farthest apart, one line of JSON.
    """

    property: str
    name: str
    mode: str
    a: float = 0.0
    b: float = 0.0
    apart: float = -1.0
    case: str = ""

    @builtins.property  # the field has the name
    def differ(self) -> bool:
        return self.apart > 1.0

    @builtins.property
    def moved(self) -> Moved:
        """The one of the two, or both, that is beyond the reference's bound."""
        if self.a > 1.0:
            return "both" if self.b > 1.0 else "A"
        return "B" if self.b > 1.0 else "neither"

    def add(self, a: float, b: float, apart: float, case: Case) -> None:
        """Count a case."""
        self.a, self.b = max(self.a, a), max(self.b, b)
        if apart > self.apart:
            self.apart, self.case = apart, case.line()


@dataclass
class Against:
    """A comparison.

    Attributes:
        a, b: Names of the two subjects.
        device: cpu, gpu or tpu.
        folder: The folder of the comparison, if a name depends on it; else empty.
        places: The places where they were compared, in the order of the network.
        errors: What one of them did not answer although it offers it, a sentence each.
        unoffered: Ids of properties that one of them does not offer.
        problems: Sentences on subjects that did not run.
    """

    a: str
    b: str
    device: str = "cpu"
    folder: str = ""
    places: list[Place] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    unoffered: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> AgainstVerdict:
        if not self.places:
            return "NOTHING COMPARED"
        differ = any(place.differ for place in self.places)
        return "THEY DIFFER" if differ or self.errors else "THEY AGREE"

    @property
    def first(self) -> list[Place]:
        """The first place where they differ of the operations, of the blocks, each of which gets
        the reference's input, and of the taps of the network, where an error goes on."""
        tiers: dict[int, Place] = {}
        for place in self.places:
            if place.differ:
                tiers.setdefault(max(1, PROPERTIES[place.property].tier), place)
        return [tiers[tier] for tier in sorted(tiers)]


def against(settings: Settings, progress: Callable[[str], None] = lambda message: None) -> Against:
    """Put the essential cases of a run to two subjects, and compare their answers.

    Args:
        settings: Settings of a run, whose `subjects` are the two. No cases are drawn.
        progress: Called with the property that is begun.

    Raises:
        InputError, SpecError: The settings cannot be used.
    """
    if len(settings.subjects) != 2:
        raise InputError(f"against: expected two subjects; found {len(settings.subjects)}")
    about = target(settings.source)
    folder = needed_folder(settings.subjects, settings.source or "")
    comparison = Against(*settings.subjects, device=settings.device, folder=folder)
    for mode in settings.modes:
        with threadpool_limits(1), started(settings, mode) as (a, b):
            for asked in chosen(settings):
                cases = essential_cases(asked, about, mode, settings.seed)
                if cases and mode in asked.modes:
                    progress(f"{asked.id} {mode}")
                    _property(comparison, cases, a, b)
            problems = (f"{w.column.name}: {w.given_up}" for w in (a, b) if w.given_up)
            comparison.problems += problems
    return comparison


def _property(comparison: Against, cases: list[Case], a: Worker, b: Worker) -> None:
    """Compare two workers in one property; it ends where one of them has died for good."""
    places: dict[str, Place] = {}
    for case in cases:
        if a.given_up or b.given_up:
            break
        prepared = PreparedCase(case)
        answers = ask(prepared, [a, b])
        of_a, of_b = answers[a], answers[b]
        if isinstance(of_a, WorkerError) or isinstance(of_b, WorkerError):
            _unanswered(comparison, case, answers)
            continue
        for name, ratio_a, ratio_b, apart in _ratios(of_a, of_b):
            label = case.block or name
            place = places.setdefault(label, Place(case.property, label, case.mode))
            place.add(ratio_a, ratio_b, apart, case)
    comparison.places += places.values()


def _unanswered(
    comparison: Against, case: Case, answers: dict[Worker, Answer | WorkerError]
) -> None:
    """Note a case that was not answered by both: an error, or something that is not offered."""
    for worker, error in answers.items():
        if not isinstance(error, WorkerError):
            continue
        if VERDICTS[error.kind] in ("not offered", "missing"):
            if case.property not in comparison.unoffered:
                comparison.unoffered.append(case.property)
        else:
            reason = str(error).splitlines()[-1].removeprefix(f"{worker.subject}: ")
            text = f"{case.property}: {worker.subject}: {reason}"
            if text not in comparison.errors:
                comparison.errors.append(text)


def _ratios(a: Answer, b: Answer) -> Iterator[tuple[str, float, float, float]]:
    """Name of each output that both gave, |error| / bound of A and B, |A - B| / (2 · bound)."""
    findings = [{f.name: f for f in answer.judgement.findings} for answer in (a, b)]
    for name, wanted in a.prepared.expected.outputs.items():
        if name in a.compared and name in b.compared and all(name in each for each in findings):
            doubled = {label: 2.0 * np.asarray(term) for label, term in wanted.terms.items()}
            value = np.asarray(a.compared[name], np.float64)
            apart = judge_output(name, b.compared[name], Expectation(value, doubled, wanted.rms))
            yield name, findings[0][name].ratio, findings[1][name].ratio, apart.ratio
