"""The weight of each class in the loss of a training."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nfspec.arguments import number, refuse
from nfspec.data.sources import Source
from nfspec.errors import InputError, suggest
from nfspec.files import content
from nfspec.wording import few, printable, reason_of

BALANCED = "balanced"
MOST = 1e6
MOST_BYTES = 2**26  # of a file
OPTION = "--class-weights"
Given = str | Path | Mapping[str, float] | Sequence[float]
Pairs = Iterable[tuple[str, str, Any]]  # the place of a weight for errors, its class, the weight


def class_weights(given: Given, source: Source) -> tuple[float, ...]:
    """The weight of each class, by which the loss of its images is multiplied.

    Args:
        given: "balanced" for images / (classes that have images · images of the class), so that all
            classes count the same and the mean over the images is 1 (King and Zeng 2001, as in
            scikit-learn); weights by name, a dict or `cat=2,dog=0.5`, where those of other classes
            are 1; a weight for each class in order, a sequence or `2,0.5`; or the path of a CSV
            file with a class and its weight on each line.
        source: The images to train on.

    Raises:
        InputError: It is none of these, a class is unknown or named twice, a weight is no number
            from 0 on, or the weights of all images are 0.
    """
    counts = np.bincount(source.labels, minlength=len(source.classes))
    if isinstance(given, str) and given == BALANCED:
        present = counts > 0
        shares = counts.sum() / (present.sum() * np.maximum(counts, 1))
        return tuple(map(float, np.where(present, shares, 0.0)))
    weights = _weights(given, source.classes)
    if not any(weight and count for weight, count in zip(weights, counts, strict=True)):
        raise InputError(f"{OPTION}: all images have weight 0, so that nothing would be trained")
    return weights


def _weights(given: Given, classes: tuple[str, ...]) -> tuple[float, ...]:
    if isinstance(given, Mapping):
        return _by_name(((OPTION, name, weight) for name, weight in given.items()), classes)
    if isinstance(given, Path):
        return _by_name(_rows(given), classes)
    if not isinstance(given, str):
        return _in_order(given, classes)
    parts = given.split(",")
    if all(map(_is_number, parts)):
        return _in_order([float(part) for part in parts], classes)
    if "=" not in given:
        return _by_name(_rows(Path(given)), classes)
    cut = (part.rpartition("=") for part in parts)
    return _by_name(((OPTION, name.strip(), weight) for name, _, weight in cut), classes)


def _in_order(weights: Sequence[float], classes: tuple[str, ...]) -> tuple[float, ...]:
    if not isinstance(weights, Sequence | np.ndarray):
        raise refuse(OPTION, f'"{BALANCED}", a file, or weights by name or in order', weights)
    if len(weights) != len(classes):
        raise InputError(
            f"{OPTION}: {len(weights):,} weights for {len(classes):,} classes ({few(classes)}); "
            "expected one for each, in this order"
        )
    return tuple(number(OPTION, weight, 0.0, MOST) for weight in weights)


def _by_name(pairs: Pairs, classes: tuple[str, ...]) -> tuple[float, ...]:
    found: dict[str, float] = {}
    for place, name, weight in pairs:
        if name not in classes:
            hint = suggest(str(name), classes)
            raise InputError(
                f"{place}: no class is called {printable(str(name))!r}; there are "
                f"{few(classes)}{hint}"
            )
        if name in found:
            raise InputError(f"{place}: the class {printable(name)!r} has a weight already")
        value = float(weight) if isinstance(weight, str) and _is_number(weight) else weight
        found[name] = number(f"{place}: {printable(name)}", value, 0.0, MOST)
    return tuple(found.get(name, 1.0) for name in classes)


def _rows(path: Path) -> Pairs:
    """The lines of a file, of a class and its weight each."""
    shown = printable(str(path))
    try:
        text = content(path, MOST_BYTES).decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(
            f'{OPTION}: {shown} is no file; expected "{BALANCED}", weights such as cat=2,dog=0.5, '
            "or a CSV file of classes and weights"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{shown}: not UTF-8; expected a class and its weight a line") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise InputError(f"{shown}: cannot be read: {reason}") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            place = f"{shown}:{reader.line_num}"
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != 2:
                raise InputError(f"{place}: expected a class and its weight, with a comma between")
            heading = reader.line_num == 1 and not _is_number(row[1])
            if not heading or row[1].strip().lower() not in ("weight", "weights"):
                yield place, row[0].strip(), row[1].strip()
    except csv.Error as error:
        raise InputError(f"{shown}:{reader.line_num}: not a row of a CSV file ({error})") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def told(weights: Sequence[float], classes: Sequence[str]) -> str:
    """A line on the weights of classes, the largest first."""
    order = sorted(zip(weights, classes, strict=True), key=lambda pair: -pair[0])
    return f"class weights  {few((f'{name} {weight:.4g}' for weight, name in order), 4)}"
