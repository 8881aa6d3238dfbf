"""Arguments of public functions: a wrong type or value is one sentence, never a silent answer."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

from nfspec.errors import InputError, suggest

T = TypeVar("T")

MAX_SEED = 2**32 - 1  # Keras and NumPy take no larger one
MOST_EXAMPLES = 1_000_000  # cases that a conformance run draws for a property
MAX_TIMEOUT = 1e6  # seconds to wait for a worker


def shown(value: object) -> str:
    """Text for a value in an error message: the value itself if it is plain, otherwise its type."""
    if value is None or isinstance(value, bool | int | float | str | bytes | tuple | list):
        return reprlib.repr(value)
    if isinstance(value, Real):  # NumPy's numbers, told without importing NumPy
        return f"{type(value).__name__} {value}"
    return f"an object of type {type(value).__name__}"


def refuse(name: str, expected: str, value: object, hint: str = "") -> InputError:
    """The error to raise for an argument."""
    return InputError(f"{name}: expected {expected}; found {shown(value)}{hint}")


def whole(name: str, value: object, least: int, unit: str = "") -> int:
    """Require a whole number, Python's or NumPy's, of at least `least`.

    Raises:
        InputError: Another type or value; True and 1.0 are no whole numbers.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise refuse(name, f"a whole number{unit and f' of {unit}'} from {least} on", value)
    return int(value)


def number(
    name: str, value: object, least: float = -math.inf, most: float = math.inf, above: bool = False
) -> float:
    """Require a finite number, Python's or NumPy's, from `least` (or above it) to `most`.

    Raises:
        InputError: Another type or value.
    """
    good = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not least <= value <= most or (above and value == least):  # type: ignore[operator]
        bounds = "" if least == -math.inf else f" {'above' if above else 'from'} {least:g}"
        bounds += "" if most == math.inf else f" to {most:g}"
        raise refuse(name, f"a finite number{bounds}", value)
    return float(value)  # type: ignore[arg-type]


def flag(name: str, value: object) -> bool:
    """Require True or False.

    Raises:
        InputError: Something else.
    """
    if not isinstance(value, bool):
        raise refuse(name, "True or False", value)
    return value


def one_of(name: str, value: object, choices: Sequence[str]) -> str:
    """Require one of some words.

    Raises:
        InputError: Something else.
    """
    if not isinstance(value, str) or value not in choices:
        known = ", ".join(f'"{choice}"' for choice in choices)
        hint = suggest(value, choices) if isinstance(value, str) else ""
        raise refuse(name, f"one of {known}", value, hint)
    return value


def instance(name: str, value: object, kind: type[T], source: str) -> T:
    """Require an object of a class; `source` names the function that returns such objects.

    Raises:
        InputError: Something else.
    """
    if not isinstance(value, kind):
        raise refuse(name, f"what {source} returns", value)
    return value


def mapping(name: str, value: object, of: str) -> Mapping[Any, Any]:
    """Require a dict, or another mapping.

    Raises:
        InputError: Something else.
    """
    if not isinstance(value, Mapping):
        raise refuse(name, f"a dict of {of}", value)
    return value
