"""Cases on which an explanation has to hold before it is given: other shapes, regimes and seeds.

An explanation that was found on a few cases may be true of these alone: another unit of AGC has the
same norms for most shapes of kernels. Shapes come from the general grid, conventions from the spec.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from nfspec.conformance.cases.case import Arrays, Case, Clip
from nfspec.conformance.cases.target import Target
from nfspec.conformance.conventions.altered import Fields
from nfspec.conformance.conventions.kinds import discontinuous, fits, parameters
from nfspec.conformance.conventions.question import Question
from nfspec.conformance.running.answers import Answer, PreparedCase, ask
from nfspec.conformance.workers.process import WorkerError
from nfspec.conformance.workers.worker import Worker
from nfspec.plan import Op, WSConv

FIRST_SEED = 2**20  # so that no case of a run is drawn again
MOST_WEIGHTS = 2**13  # of an operation, so that a case takes milliseconds
MOST_PARAMETERS = 2**18  # of a block or network, so that it takes a fraction of a second

# The fields of an operation or a `Clip` that are its size, and no convention.
SIZES = frozenset(
    {
        "in_channels", "out_channels", "kernel", "stride", "dilation", "groups", "channels",
        "hidden", "in_features", "out_features", "role", "shape", "rate",
    }
)  # fmt: skip
DRAWN_AROUND = frozenset({"ws.eps", "ws.eps_rule", "agc.unit", "agc.eps"})
UNITS = (  # every shape of a unit of AGC
    ("kernel", (3, 3, 16, 8)), ("kernel", (1, 1, 1, 24)), ("kernel", (3, 3, 4, 1)),
    ("kernel", (3, 1, 1, 1)), ("kernel", (5, 5, 1, 6)), ("kernel", (64, 10)), ("kernel", (64, 1)),
    ("kernel", (1, 24)), ("gain", (24,)), ("gain", (1,)), ("bias", (24,)), ("skip_gain", ()),
)  # fmt: skip


@dataclass(frozen=True)
class Given(PreparedCase):
    """A case with arrays that are not its own, which are sent.

    Arrays that are drawn around the eps of other conventions tell these apart.
    """

    given: list[Arrays]

    @cached_property
    def calls(self) -> list[Arrays]:
        return self.given

    @property
    def sent(self) -> list[Arrays]:
        return self.given


def _resized(op: Any, size: Any) -> Any:
    """An operation of the size of another one, with its own conventions."""
    names = SIZES & {of.name for of in fields(op)}
    return replace(op, **{name: getattr(size, name) for name in names})


def _ops(about: Target, grid: Target, kind: type[Any]) -> list[Any]:
    """The operations of a kind: those of the spec, and the sizes of the grid as the spec has it."""
    own = about.of(kind)
    sizes = [op for op in grid.of(kind) if _weights(op) <= MOST_WEIGHTS and _padded_alike(op, own)]
    small = [op for op in own if _weights(op) <= MOST_WEIGHTS]
    if about.general or not own:
        return small
    conventions = dict.fromkeys(_resized(op, own[0]) for op in own)
    resized = (_resized(op, size) for op in conventions for size in sizes)
    return list(dict.fromkeys([*small, *filter(_defined, resized)]))


def _padded_alike(op: Any, own: Iterable[Any]) -> bool:
    """False of a conv of another stride or dilation than those of the spec, or of an even kernel
    that it does not have: implementations pad these in ways of their own."""
    if not isinstance(op, WSConv):
        return True
    convs = {(conv.kernel, conv.stride) for conv in own}
    kernels, strides = {kernel for kernel, _ in convs}, {1, *(stride for _, stride in convs)}
    if op.dilation not in {1, *(conv.dilation for conv in own)}:
        return False
    return (op.kernel % 2 == 1 or op.kernel in kernels) and op.stride in strides


def _defined(op: Any) -> bool:
    """False of a conv whose weights are too few for its variance."""
    return not isinstance(op, WSConv) or op.fan_in > op.ddof


def _clips(about: Target) -> list[Clip]:
    conventions = dict.fromkeys((c.unit, c.clipping, c.eps) for c in about.clips)
    return [
        Clip(role, shape, *convention)  # type: ignore[arg-type]
        for convention in conventions
        for role, shape in UNITS
    ]


def _weights(op: Any) -> int:
    return sum(q.size for q in op.parameters) if isinstance(op, Op) else 0


def cases(question: Question, grid: Target) -> list[Case]:
    """Small cases of a property, each operation in every regime."""
    asked, about = question.asked, question.about
    mode = question.evidence[0].prepared.case.mode
    again = [e.prepared.case for e in question.evidence if e.prepared.case.spec]
    if again:
        small = [case for case in again if parameters(case) <= MOST_PARAMETERS]
        return [replace(case, seed=case.seed + FIRST_SEED) for case in small]
    kinds = dict.fromkeys(type(e.prepared.case.op) for e in question.evidence)
    ops = tuple(op for kind in kinds if kind is not Clip for op in _ops(about, grid, kind))
    clips = tuple(_clips(about)) if Clip in kinds else ()
    essential = list(asked.cases(replace(about, ops=ops, clips=clips)))
    regimes = dict.fromkeys(case.regime for case in essential)
    distinct = dict.fromkeys((case.op, case.shape) for case in essential)
    return [
        Case(asked.id, seed=FIRST_SEED + i, regime=regime, mode=mode, op=op, shape=shape)
        for i, (op, shape) in enumerate(distinct)
        for regime in regimes
    ]


@dataclass
class Draws:
    """The drawn cases of a question, and a subject's answers to them.

    Attributes:
        question: The question.
        worker: The worker that is asked.
        cases: The cases.
    """

    question: Question
    worker: Worker
    cases: list[Case]

    @cached_property
    def _plain(self) -> list[Answer]:
        return list(self._asked(PreparedCase(case) for case in self.cases))

    def refuting(self, explanation: Fields, factor: Any) -> Iterator[Answer]:
        """The answers against an explanation, first those to cases drawn as a run draws them."""
        yield from self._against(self._plain, explanation, factor)
        drawn = self._asked(self._like(explanation))
        yield from self._against(drawn, explanation, factor)

    def _against(
        self, answers: Iterable[Answer], explanation: Fields, factor: Any
    ) -> Iterator[Answer]:
        of_others = not self._changes_units(explanation)
        for answer in answers:
            case = answer.prepared.case
            if of_others and self._is_other(case):
                continue
            op = None if case.op is None else self.question.altered(case.op, explanation)
            altered, calls = replace(case, op=op), answer.prepared.calls
            if op is not None and (discontinuous(altered, calls) or not fits(altered, calls)):
                continue  # there is no right answer to a dy of another shape
            if max(self.question.judged(answer, explanation, factor).values(), default=0.0) > 1.0:
                yield answer

    def _changes_units(self, explanation: Fields) -> bool:
        """True if an explanation is about the units of AGC."""
        clips = [case.op for case in self.cases if isinstance(case.op, Clip)]
        return any(
            self.question.altered(clip, explanation).rule.axes != clip.rule.axes for clip in clips
        )

    def _is_other(self, case: Case) -> bool:
        """True of a `Clip` unlike those of the spec. It tells units apart, and an implementation
        may have units of its own there that no parameter of the spec shows."""
        about = self.question.about
        if not isinstance(case.op, Clip) or about.general:
            return False
        return _ones(case.op) not in {_ones(clip) for clip in about.clips}

    def _like(self, explanation: Fields) -> Iterator[Given]:
        """The cases with arrays drawn as those of the operations under other conventions."""
        conventions = {k: v for k, v in explanation.items() if k in DRAWN_AROUND}
        for case in self.cases:
            if case.op is None or not conventions:
                continue
            op = self.question.altered(case.op, conventions)
            like = replace(case, op=op, seed=case.seed + FIRST_SEED)
            calls = self.question.asked.calls(like)
            if op != case.op and _shapes(calls) == _shapes(self.question.asked.calls(case)):
                yield Given(case, calls)

    def _asked(self, several: Iterable[PreparedCase]) -> Iterator[Answer]:
        """The answers to cases; those without one are left out."""
        for prepared in several:
            reply = ask(prepared, [self.worker])[self.worker]
            if not isinstance(reply, WorkerError):
                yield reply


def _ones(clip: Clip) -> tuple[bool, ...]:
    """The axes of a parameter that have one element: on these, definitions of units differ."""
    return tuple(n == 1 for n in clip.shape)


def _shapes(calls: list[Arrays]) -> list[dict[str, tuple[int, ...]]]:
    return [{name: array.shape for name, array in call.items()} for call in calls]
