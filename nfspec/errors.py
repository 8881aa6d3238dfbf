"""The errors that nfspec raises on purpose, and the text of each.

Bad input of any kind ends in one of these, with every problem at once; the command line prints the
message and exits with status 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class NfspecError(Exception):
    """Base of the errors a user can act on."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a spec.

    Attributes:
        code: Short stable identifier, such as `SPEC-UNKNOWN-KEY`.
        path: Dotted path of the field, such as `stages.group_width[1]`; empty for the whole file.
        message: A sentence that says the problem, the expected value, and what to do.
        file: The file as the user named it; empty when the spec did not come from a file.
        line: 1-based; 0 when unknown.
        column: 1-based, in characters; 0 when unknown.
    """

    code: str
    path: str
    message: str
    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        head = ": ".join(part for part in (place, self.path) if part)
        return f"{head}: {self.message} [{self.code}]" if head else f"{self.message} [{self.code}]"


class SpecError(NfspecError):
    """A spec that cannot be read or cannot work. `problems` lists every problem."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[SpecError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)  # Python would make it of the message


class NfspecWarning(UserWarning):
    """Base of the warnings about what was given, which the command line prints as a sentence."""


class WeightError(NfspecError):
    """Weights that do not fit the plan, or a file that does not hold weights."""


class BackendError(NfspecError):
    """A framework that is not installed, or not the one Keras already runs on."""


class InputError(NfspecError):
    """An argument or input file (image, size, seed) that cannot be used."""


_LOOK_ALIKE = str.maketrans("oOlI", "0011")


def suggest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean "…"?` for the known word nearest to `word`, or an empty string.

    A letter that looks like a digit counts as that digit.
    """
    plain = {known_word: known_word.translate(_LOOK_ALIKE) for known_word in known}
    near = difflib.get_close_matches(word[:100].translate(_LOOK_ALIKE), plain.values(), n=1)
    return next((f'; did you mean "{w}"?' for w, p in plain.items() if p in near), "")
