"""The tensors that a network needs against those that were found: all differences in one error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec.errors import WeightError, suggest
from nfspec.plan import Plan

MAX_LINES = 20

# What the name of some tensor ends in, whose names those are, and which function reads them.
KINDS = {
    ".kernel": ("nfspec's own weights", "load"),
    ".weight": ("a timm state dict", "from_timm"),
    "/w": ("DeepMind's weights", "from_deepmind"),
}

Shape = tuple[int, ...]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Header:
    """Shape and dtype of a tensor that has not been read yet."""

    shape: Shape
    dtype: str


Found = NDArray[Any] | Header | str  # a string says why a value cannot be used


def shapes(plan: Plan) -> dict[str, Shape]:
    """Canonical name to shape."""
    return {name: parameter.shape for name, parameter in plan.parameters.items()}


def printable(name: str) -> str:
    """A name from a stranger's file, fit for a terminal."""
    return (name if name.isprintable() else ascii(name)[1:-1])[:100]


def _fault(shape: Shape, found: Found | None) -> str:
    """What is wrong with an expected tensor, or an empty string."""
    if found is None:
        return f"missing, expected shape {shape}"
    if isinstance(found, str):
        return found
    faults = []
    if found.shape != shape:
        faults.append(f"shape {found.shape}, expected {shape}")
    if str(found.dtype) != "float32":
        faults.append(f"{found.dtype}, expected float32")
    return "; ".join(faults)


def _extra(name: str, found: Found, missing: Iterable[str]) -> str:
    text = "not in this network"
    if not isinstance(found, str):
        text += f", found shape {found.shape}"
    return text + suggest(name, missing)


def _kinds(names: Iterable[str]) -> set[str]:
    return {end for name in names for end in KINDS if name.endswith(end)}


def require(
    expected: Mapping[str, Shape], found: Mapping[str, Found], network: str, source: str = ""
) -> None:
    """Check that exactly the expected tensors were found, in float32.

    Args:
        expected: Name to shape.
        found: Name to array or header; a string in place of a tensor is what to say of it.
        network: The network's name, for the message.
        source: The file's name, put before the message.

    Raises:
        WeightError: Names each missing, misshapen, mistyped and extra tensor, the first 20 of them.
    """
    wrong = [name for name, shape in expected.items() if _fault(shape, found.get(name))]
    extra = [name for name in found if name not in expected]
    if not wrong and not extra:
        return
    where = f"{source}: " if source else ""
    kinds = _kinds(found)
    if kinds and kinds.isdisjoint(_kinds(expected)):
        whose, function = KINDS[min(kinds)]
        raise WeightError(f"{where}looks like {whose}; use nfspec.weights.{function}")
    missing = [name for name in wrong if name not in found]
    lines = []
    for name in (wrong + extra)[:MAX_LINES]:
        known = name in expected
        text = (
            _fault(expected[name], found.get(name)) if known else _extra(name, found[name], missing)
        )
        lines.append(f"  {printable(name)}: {text}")
    total = len(wrong) + len(extra)
    if total > MAX_LINES:
        lines.append(f"  and {total - MAX_LINES} more")
    count = "1 tensor does" if total == 1 else f"{total} tensors do"
    raise WeightError("\n".join([f"{where}{count} not fit {network}:", *lines]))


def check(plan: Plan, params: Mapping[str, Float32], source: str = "") -> dict[str, Float32]:
    """Check that names, shapes and dtype (float32) are exactly the plan's.

    Args:
        plan: The network.
        params: Canonical name to array.
        source: The file's name, put before the message.

    Returns:
        A new dict of the same arrays, in the plan's order.

    Raises:
        WeightError: Names each missing, misshapen, mistyped and extra tensor, the first 20 of them.
    """
    if not isinstance(params, Mapping):
        raise WeightError(f"expected a dict of arrays, found {type(params).__name__}")
    found = {
        str(name): value
        if isinstance(value, np.ndarray)
        else f"{type(value).__name__}, expected a NumPy array"
        for name, value in params.items()
    }
    require(shapes(plan), found, plan.name, source)
    return {name: params[name] for name in plan.parameters}
