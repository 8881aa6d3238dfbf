"""The tensors that a network needs against those that were found: all differences in one error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec.arguments import instance
from nfspec.errors import WeightError, suggest
from nfspec.plan import INPUT, Plan, WSConv
from nfspec.wording import printable

MAX_LINES = 20
CLASSIFIER = ("head.fc.kernel", "head.fc.bias")

# End of a tensor's name to the origin of such names, and the function that reads them.
KINDS = {
    ".kernel": ("nfspec's own weights", "load"),
    ".weight": ("a timm state dict", "from_timm"),
    "/w": ("DeepMind's weights", "from_deepmind"),
}


ADVICE = (
    "Only the number of classes or of input channels differs: nfspec.weights.fit changes it, and "
    "so do nfspec.compile(..., fit=True), `nfspec convert --fit` and `nfspec train --init`."
)


class NoClassifier(WeightError):
    """Weights in which only the classifier is missing, such as those of a network without one."""


Shape = tuple[int, ...]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Header:
    """Shape and dtype of a tensor that has not been read yet."""

    shape: Shape
    dtype: str


Found = Header | str  # a string says why a value cannot be used


@dataclass(frozen=True)
class Ends:
    """The tensors whose shapes depend on the number of classes or of input channels.

    Attributes:
        classifier: Names of the classifier's tensors.
        axes: Name of each of the tensors to the axis that has the classes or the channels.
    """

    classifier: tuple[str, ...]
    axes: Mapping[str, int]


NO_ENDS = Ends((), {})


def header(value: object) -> Header | str:
    """Shape and dtype of a NumPy array or scalar in either byte order, or why it is not taken.

    Subclasses of arrays are refused: a masked array, for one, would lose its mask.
    """
    if isinstance(value, np.ma.MaskedArray):
        return "a masked array, whose mask would be lost; fill it with array.filled(value)"
    if not isinstance(value, np.ndarray | np.generic):
        return f"{type(value).__name__}, expected a NumPy array"
    if isinstance(value, np.ndarray) and type(value) not in (np.ndarray, np.memmap):
        return f"{type(value).__name__}, expected a plain array, as numpy.asarray makes"
    return Header(value.shape, value.dtype.name)


def native(value: NDArray[Any] | np.generic) -> NDArray[Any]:
    """A NumPy array or scalar as a plain array in the machine's byte order; () stays ()."""
    array = np.asarray(value)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def text_names(params: Mapping[Any, Any], source: str = "") -> dict[str, Any]:
    """A dict of the same entries.

    Raises:
        WeightError: A name is not text.
    """
    values = dict(dict.items(params) if isinstance(params, dict) else params.items())
    for name in values:
        if not isinstance(name, str):
            where = f"{source}: " if source else ""
            raise WeightError(f"{where}expected names that are text, found {type(name).__name__}")
    return values


def shapes(plan: Plan) -> dict[str, Shape]:
    """Canonical name to shape."""
    instance("plan", plan, Plan, "nfspec.resolve")
    return {name: parameter.shape for name, parameter in plan.parameters.items()}


def ends_of(plan: Plan) -> Ends:
    """The ends of a network, under canonical names."""
    classifier = tuple(name for name in CLASSIFIER if name in plan.parameters)
    axes = {f"{op.name}.kernel": 2 for op in first_convs(plan)}
    return Ends(classifier, axes | {name: int(name.endswith(".kernel")) for name in classifier})


def first_convs(plan: Plan) -> list[WSConv]:
    """The convs that read the image."""
    return [op for op in plan.ops if isinstance(op, WSConv) and op.inputs == (INPUT,)]


def own_shapes_of(
    expected: Mapping[str, Shape], headers: Mapping[str, Found], ends: Ends
) -> dict[str, Shape]:
    """The expected shapes, with as many classes and input channels as the tensors at hand have.

    A classifier is not expected where no tensor of it is there. Shapes that differ in anything
    else stay as they were expected.
    """
    actual = dict(expected)
    for name, axis in ends.axes.items():
        given, shape = headers.get(name), expected[name]
        if isinstance(given, Header) and len(given.shape) == len(shape) and given.shape[axis]:
            own = (*shape[:axis], given.shape[axis], *shape[axis + 1 :])
            actual[name] = own if own == given.shape else shape
    if headers.keys().isdisjoint(ends.classifier):
        return {name: shape for name, shape in actual.items() if name not in ends.classifier}
    if len({actual[name][ends.axes[name]] for name in ends.classifier}) > 1:
        actual |= {name: expected[name] for name in ends.classifier}
    return actual


def _fits(expected: Mapping[str, Shape], headers: Mapping[str, Found]) -> bool:
    return expected.keys() == headers.keys() and not any(
        _fault(shape, headers[name]) for name, shape in expected.items()
    )


def _short(name: str) -> str:
    """A name from a stranger's file, fit for a terminal."""
    return printable(name[:100])[:100]


def _fault(shape: Shape, given: Found | None) -> str:
    """Text of the problems with an expected tensor; empty if there are none."""
    if given is None:
        return f"missing, expected shape {shape}"
    if isinstance(given, str):
        return given
    faults = []
    if given.shape != shape:
        faults.append(f"shape {given.shape}, expected {shape}")
    if given.dtype != "float32":
        faults.append(f"{given.dtype}, expected float32")
    return "; ".join(faults)


def _extra(name: str, given: Found, missing: Iterable[str]) -> str:
    text = "not in this network"
    if not isinstance(given, str):
        text += f", found shape {given.shape}"
    return text + suggest(name, missing)


def _kinds(names: Iterable[str]) -> set[str]:
    return {end for name in names for end in KINDS if name.endswith(end)}


def require(
    expected: Mapping[str, Shape],
    headers: Mapping[str, Found],
    network: str,
    source: str = "",
    ends: Ends = NO_ENDS,
) -> None:
    """Check that exactly the expected tensors were found, in float32.

    Args:
        expected: Name to shape.
        headers: Name to header, or to a text that says why there is no tensor.
        network: The network's name, for the message.
        source: The file's name, put before the message.
        ends: Those of the network, under the same names, to say what `fit` can do about it.

    Raises:
        NoClassifier: Only the classifier is missing, and nothing else is wrong.
        WeightError: Names each missing, misshapen, mistyped and extra tensor, the first 20 of them.
    """
    wrong = [name for name, shape in expected.items() if _fault(shape, headers.get(name))]
    extra = [name for name in headers if name not in expected]
    if not wrong and not extra:
        return
    where = f"{source}: " if source else ""
    fitting = _fits(own_shapes_of(expected, headers, ends), headers)
    if fitting and set(wrong) == set(ends.classifier) and wrong[0] not in headers:
        raise NoClassifier(
            f"{where}has no classifier, which {network} has ({', '.join(wrong)}); to draw a new "
            "one, start `nfspec train` with --init, or read the rest with own_shapes=True and use "
            "nfspec.weights.fit"
        )
    kinds = _kinds(headers)
    if kinds and kinds.isdisjoint(_kinds(expected)):
        whose, function = KINDS[min(kinds)]
        raise WeightError(f"{where}looks like {whose}; use nfspec.weights.{function}")
    missing = [name for name in wrong if name not in headers]
    lines = []
    for name in (wrong + extra)[:MAX_LINES]:
        known = name in expected
        text = (
            _fault(expected[name], headers.get(name))
            if known
            else _extra(name, headers[name], missing)
        )
        lines.append(f"  {_short(name)}: {text}")
    total = len(wrong) + len(extra)
    if total > MAX_LINES:
        lines.append(f"  and {total - MAX_LINES} more")
    lines += [ADVICE] * fitting
    count = "1 tensor does" if total == 1 else f"{total} tensors do"
    raise WeightError("\n".join([f"{where}{count} not fit {network}:", *lines]))


def check(plan: Plan, params: Mapping[str, Float32], source: str = "") -> dict[str, Float32]:
    """Check that names, shapes and dtype (float32) are exactly the plan's.

    Args:
        plan: The network.
        params: Canonical name to array. NumPy's scalars are arrays of shape (), and arrays of the
            other byte order are converted; subclasses, such as masked arrays, are refused.
        source: The file's name, put before the message.

    Returns:
        A new dict of the same arrays, in the plan's order.

    Raises:
        WeightError: Names each missing, misshapen, mistyped and extra tensor, the first 20 of them.
    """
    if not isinstance(params, Mapping):
        raise WeightError(f"expected a dict of arrays, found {type(params).__name__}")
    values = text_names(params, source)
    headers = {name: header(value) for name, value in values.items()}
    require(shapes(plan), headers, plan.name, source, ends_of(plan))
    return {name: native(values[name]) for name in plan.parameters}
