"""The progress of a search for an explanation, and an end to one that takes too long."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

MOST = 300.0  # seconds of this process's computing that a search for one explanation may take
EVERY = 10.0  # seconds between two lines of progress


class OutOfTime(Exception):
    """A search took as long as it may."""


@dataclass
class Clock:
    """The clock of one search, which is told of every attempt.

    Computing is counted, and not waiting, so that a busy machine loses no explanation.

    Attributes:
        tell: Called with a few words on the progress, every few seconds.
        most: Seconds of computing after which the search ends.
    """

    tell: Callable[[str], None] = lambda text: None
    most: float = MOST
    tried: int = 0
    begun: float = field(default_factory=time.process_time)
    told: float = field(default_factory=time.monotonic)

    def tick(self) -> None:
        """Count an attempt.

        Raises:
            OutOfTime: The search is to end.
        """
        self.tried += 1
        spent = time.process_time() - self.begun
        if spent > self.most:
            raise OutOfTime(
                f"no explanation in {self.most:g} s of computing, after {self.tried} attempts"
            )
        if time.monotonic() - self.told > EVERY:
            self.told = time.monotonic()
            self.tell(f"{self.tried} attempts, {spent:.0f} of at most {self.most:g} s")
