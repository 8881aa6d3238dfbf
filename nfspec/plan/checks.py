"""Rules between fields: those that hold before any width is computed, and those after."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from nfspec.errors import Problem, SpecError, suggest
from nfspec.language.fields import MAX_BLOCKS
from nfspec.language.spec import SCALAR_COLUMNS, WS_COLUMNS, Spec
from nfspec.language.validation import Key, shown
from nfspec.plan import Plan
from nfspec.plan.activations import DEEPMIND_SLOPE
from nfspec.plan.clipping import matches
from nfspec.wording import entries, quoted

MAX_PARAMETERS = 10**11
MAX_TRIED = 100_000  # patterns with a *, times names
MAX_UNMATCHED = 20  # patterns listed
LONGEST_NAME = 100  # characters; no parameter's has as many
WIDTHS_COME_FROM: tuple[Key, ...] = (
    ("stages", "width"),
    ("stages", "group_width"),
    ("stages", "groups"),
    ("stages", "expansion"),
    ("stages", "kernel"),
    ("stages", "width_factor"),
    ("block", "first_expansion"),
    ("block", "mid_from"),
    ("stem", "width"),
    ("rounding", "divisor"),
    ("rounding", "groups"),
)
# Part of a parameter's name, as a regular expression, to the fields that decide if it exists.
NAMES_COME_FROM: dict[str, tuple[Key, ...]] = {
    "final": (("head", "conv"),),
    "skip_gain": (("block", "skip_gain"),),
    r"\.gain\b": (("ws", "gain"),),
    "conv1b": (("block", "convs"),),
    "shortcut": (("stages", "stride"), ("stages", "width")),
    r"\.(se|eca)\b": (("stages", "attention"),),
    r"stages\.\d": (("stages", "depth"),),
    r"stem\.conv\d": (("stem", "width"),),
}


class Problems:
    """Collects the problems with a spec, each with the place where it was written.

    The values at the paths `stand_ins` replace the author's own, which could not be used. A problem
    that follows from one is a reason to stop, but is not reported.
    """

    def __init__(self, spec: Spec, stand_ins: frozenset[Key]):
        self.spec = spec
        self.stand_ins = stand_ins
        self.by_place: dict[tuple[str, Key], Problem | None] = {}

    def add(self, code: str, path: Key, message: str, *causes: Key) -> None:
        """Note a problem, once for each code and path.

        Its place is where the path's value was written. If that is inherited, the place is where
        the loaded file wrote the first of `causes`, which its author can change.
        """
        origins = [self.spec.origin(p) for p in (path, *causes)]
        # First the layers put over the spec, then its own file: the author can change these.
        own = [o for file in self.spec._files for o in origins if o and o.file == file]
        origin = own[0] if own else origins[0]
        place = (origin.file, origin.line, origin.column) if origin else ("", 0, 0)
        from_stand_in = any(p[: len(s)] == s for s in self.stand_ins for p in (path, *causes))
        problem = None if from_stand_in else Problem(code, shown(path), message, *place)
        self.by_place.setdefault((code, path), problem)

    def stop(self) -> None:
        """Raise a SpecError if there are problems."""
        if self.by_place:
            raise SpecError(filter(None, self.by_place.values()))


def stage_path(spec: Spec, column: str, stage: int) -> Key:
    """Path of a column's value for a stage: its entry, or the one value that serves all."""
    path = ("stages", column)
    return (*path, stage) if isinstance(getattr(spec.stages, column), tuple) else path


def check(spec: Spec, problems: Problems) -> None:
    """Lists of one table are of one length, kernels are odd, fields agree.

    Raises:
        SpecError: The number of blocks is not known, or too large.
    """
    _check_kernels(spec, problems)
    _check_agreement(spec, problems)
    _check_lengths(spec, problems)
    blocks = sum(spec.stages.depth)
    if blocks > MAX_BLOCKS:
        message = f"{blocks} blocks in all, more than the limit of {MAX_BLOCKS}"
        problems.add("SPEC-LIMIT", ("stages", "depth"), message)
    if any(code in ("SPEC-LENGTH", "SPEC-LIMIT") for code, _ in problems.by_place):
        problems.stop()


def _check_lengths(spec: Spec, problems: Problems) -> None:
    def length(path: Key, value: Any, expected: int, rule: str, *causes: Key) -> None:
        if isinstance(value, tuple) and len(value) != expected:
            message = f"has {entries(len(value))}, but {rule} {expected}"
            problems.add("SPEC-LENGTH", path, message, *causes)

    stages, depth = spec.stages, ("stages", "depth")
    for name in ("width", *SCALAR_COLUMNS, "beta"):
        path = ("stages", name)
        length(path, getattr(stages, name), stages.count, "the length of stages.depth is", depth)
    for name in WS_COLUMNS:
        rule = "it is one value for all, or one for each stage, and the length of stages.depth is"
        length(("ws", name), getattr(spec.ws, name), stages.count, rule, depth)
    if isinstance(stages.beta, tuple):
        for s, (betas, blocks) in enumerate(zip(stages.beta, stages.depth, strict=False)):
            length(("stages", "beta", s), betas, blocks, f"stages.depth[{s}] is", depth)
    for name in ("kernel", "stride"):
        path, width = ("stem", name), ("stem", "width")
        value = getattr(spec.stem, name)
        length(path, value, len(spec.stem.width), "the length of stem.width is", width)
    for name in ("mean", "std"):
        path, channels = ("input", name), ("input", "channels")
        length(path, getattr(spec.input, name), spec.input.channels, "input.channels is", channels)


def _check_kernels(spec: Spec, problems: Problems) -> None:
    kernels: dict[Key, Any] = {
        ("stem", "kernel"): spec.stem.kernel,
        ("stages", "kernel"): spec.stages.kernel,
        ("eca", "kernel"): spec.eca.kernel,
    }
    for path, value in kernels.items():
        for where, side in _each(path, value):
            if side != "auto" and side % 2 == 0:
                problems.add("SPEC-KERNEL", where, f"must be odd; found {side}")
    if spec.block.convs == 1:
        for s, kernel in enumerate(spec.stages.column("kernel")):
            if isinstance(kernel, tuple):
                message = f"a pair is for two convs, and block.convs is 1; found {list(kernel)}"
                path = stage_path(spec, "kernel", s)
                problems.add("SPEC-LENGTH", path, message, ("block", "convs"))


def _each(path: Key, value: Any) -> Iterator[tuple[Key, Any]]:
    """The entries of a value, however deep, each with its path."""
    if not isinstance(value, tuple):
        yield path, value
        return
    for i, entry in enumerate(value):
        yield from _each((*path, i), entry)


def _check_agreement(spec: Spec, problems: Problems) -> None:
    activation = spec.activation
    both = zip(spec.stages.column("groups"), spec.stages.column("group_width"), strict=False)
    for s, (groups, width) in enumerate(both):
        if groups != "none" and width != "none":
            message = (
                f"{groups} groups, and {width} channels in each by stages.group_width (stage {s}): "
                'one of the two has to be "none"'
            )
            path = stage_path(spec, "groups", s)
            problems.add("SPEC-GROUPS", path, message, ("stages", "group_width"))
    if spec.block.shortcut == "avg_pool":
        for s, stride in enumerate(spec.stages.column("stride")):
            if stride > 2:
                message = (
                    f"at most 2 where an average pool makes the shortcut; found {stride}; "
                    'block.shortcut = "strided_conv" takes any'
                )
                path = stage_path(spec, "stride", s)
                problems.add("SPEC-STRIDE", path, message, ("block", "shortcut"))
    if spec.block.conv2_gain_init != 1.0 and False in spec.ws.column("gain", 1):
        message = (
            f"convs without a gain cannot start from block.conv2_gain_init = "
            f"{spec.block.conv2_gain_init}; let them have gains, or start from 1.0"
        )
        problems.add("SPEC-GAIN", ("ws", "gain"), message, ("block", "conv2_gain_init"))
    table_has_none = activation.kind == "leaky_relu" and activation.slope != DEEPMIND_SLOPE
    if table_has_none and activation.gamma == "deepmind":
        message = (
            f'the "deepmind" table has leaky_relu of slope {DEEPMIND_SLOPE}, this one is of '
            f'{activation.slope}; use gamma = "exact"'
        )
        causes = ("activation", "slope"), ("activation", "kind")
        problems.add("SPEC-GAMMA", ("activation", "gamma"), message, *causes)


def check_plan(plan: Plan, problems: Problems) -> None:
    """AGC's patterns match parameters, and there are not too many of these.

    Raises:
        SpecError: They do not, or there are too many, or there was a problem before.
    """
    _check_patterns(plan.parameters, problems)
    problems.stop()
    total = sum(p.size for p in plan.parameters.values())
    if total > MAX_PARAMETERS:
        message = f"{total:.1e} parameters in all, more than the limit of {MAX_PARAMETERS:.0e}"
        causes = (*WIDTHS_COME_FROM, ("stages",), ("se",), ("head",))
        problems.add("SPEC-LIMIT", ("stages", "width"), message, *causes)
        problems.stop()


def _check_patterns(names: Collection[str], problems: Problems) -> None:
    """Report patterns that match nothing: the parameters that they mean would be clipped."""
    agc = problems.spec.agc
    patterns: dict[Key, str] = {("agc", "exclude", i): p for i, p in enumerate(agc.exclude)}
    patterns |= {("agc", "names", pattern): pattern for pattern in agc.names}
    starred = sum("*" in pattern for pattern in patterns.values())
    if starred * len(names) > MAX_TRIED:
        message = (
            f"{starred} patterns with a * for {len(names)} parameters are too many to try; "
            f"the one times the other may be {MAX_TRIED}"
        )
        problems.add("SPEC-LIMIT", ("agc",), message, ("stages", "depth"))
        return
    slips = (item for item in patterns.items() if not _matches_any(item[1], names))
    if not (listed := list(islice(slips, MAX_UNMATCHED))):
        return
    shapes = sorted({re.sub(r"\.\d+(?=\.)", ".*", name) for name in names})
    for path, pattern in listed:
        message = (
            f"no parameter is called {quoted(pattern)}, where * stands for any run of characters"
            + (_meant(pattern, names, shapes) or '; names are like "head.fc.kernel"')
        )
        sources = (paths for part, paths in NAMES_COME_FROM.items() if re.search(part, pattern))
        problems.add("SPEC-AGC", path, message, *chain.from_iterable(sources))
    if next(slips, None):
        message = f"more patterns than the {MAX_UNMATCHED} listed are the name of no parameter"
        problems.add("SPEC-AGC", ("agc",), message)


def _matches_any(pattern: str, names: Collection[str]) -> bool:
    if "*" not in pattern or len(pattern.replace("*", "")) > LONGEST_NAME:
        return pattern in names
    return any(matches(name, pattern) for name in names)


def _meant(pattern: str, names: Collection[str], shapes: Sequence[str]) -> str:
    """A hint: the pattern with its words corrected, or else the nearest that matches a parameter.

    `shapes` are the names, each index of a stage or block made a `*`.
    """
    words = sorted({word for shape in shapes for word in shape.split(".")})
    parts = pattern[:100].split(".")
    nearest = (difflib.get_close_matches(part, words, n=1) or [part] for part in parts)
    corrected = ".".join(near[0] for near in nearest)
    usable = corrected != pattern and _matches_any(corrected, names)
    return suggest(pattern, [corrected] if usable else shapes)
