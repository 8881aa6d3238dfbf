"""Labels as people write them, names of classes or numbers, as numbers of classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from nfspec.errors import InputError
from nfspec.wording import few, printable

DIGITS_OF_A_LABEL = 9  # of one that is a number


def numbered(
    labels: Sequence[str], classes: tuple[str, ...], place: Callable[[int], str]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names of classes, and the number of each label's class.

    Args:
        labels: The label of each image.
        classes: Names of the classes, in the order of their numbers. Labels are such names, or, if
            no label is one, whole numbers from 0 on, which are places in this list. If empty, the
            labels themselves are the names, in order; whole numbers by their size.
        place: The place of a label, for errors, by its number.

    Raises:
        InputError: A label is none of the classes.
    """
    names = classes or in_order(set(labels))
    places = {name: n for n, name in enumerate(names)}
    if classes and places.keys().isdisjoint(labels) and are_numbers(labels):
        places = {str(n): n for n in range(len(names))}
        labels = [str(int(label)) for label in labels]
    for n, label in enumerate(labels):
        if label not in places:
            raise InputError(
                f"{place(n)}: the network has no class {printable(label)!r:.80}; it has "
                f"{few(names)}"
            )
    return tuple(names), np.asarray([places[label] for label in labels], np.int64)


def are_numbers(labels: Sequence[str] | set[str]) -> bool:
    """True if all labels are whole numbers from 0 on."""
    return all(
        label.isascii() and label.isdigit() and len(label) <= DIGITS_OF_A_LABEL for label in labels
    )


def in_order(labels: set[str]) -> tuple[str, ...]:
    """Names in order; whole numbers by their size."""
    return tuple(sorted(labels, key=int if are_numbers(labels) else str))


def text_of(label: object) -> str | None:
    """A label of JSON or of a table as text; None if it is neither text nor a whole number."""
    if isinstance(label, str):
        return label.strip() or None
    whole = isinstance(label, int) and not isinstance(label, bool)
    return str(label) if whole else None
