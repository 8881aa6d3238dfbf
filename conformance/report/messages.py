"""Messages of cells and columns: their tracebacks, which are folded away, and the last line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

TRACEBACK = "Traceback (most recent call last)"
COMMAND = "nfspec replay "
# The last line of a traceback, such as `ValueError: no such thing`.
RAISED = re.compile(r"[\w.]*(Error|Exception|Exit|Interrupt|Warning)\b")


@dataclass(frozen=True)
class Part:
    """A part of a cell's message.

    Attributes:
        text: The lines.
        summary: The line that stands for them where they are folded away; empty if they are not.
    """

    text: str
    summary: str = ""


def parts(message: str) -> list[Part]:
    """A message in parts, of which the tracebacks can be folded away."""
    return list(_parts(message.split("\n")))


def _parts(lines: list[str]) -> Iterator[Part]:
    plain: list[str] = []
    while lines:
        if TRACEBACK not in lines[0]:
            plain.append(lines.pop(0))
            continue
        if plain:
            yield Part("\n".join(plain))
            plain = []
        end = next((n for n, line in enumerate(lines) if COMMAND in line), len(lines))
        trace, lines = lines[:end], lines[end:]
        yield Part("\n".join(trace), _raised(trace))
    if plain:
        yield Part("\n".join(plain))


def _raised(trace: list[str]) -> str:
    """The line that says what was raised last."""
    told = [line for line in trace if line.strip()]
    raised = (line for line in reversed(told) if RAISED.match(line))
    return next(raised, told[-1] if told else "no message")


def last_line(message: str) -> str:
    """The line that says what went wrong at the first case without an answer."""
    before = message.split("; the first:\n", 1)[-1].split("\n")
    end = next((n for n, line in enumerate(before) if COMMAND in line), len(before))
    return _raised(before[:end] or before)
