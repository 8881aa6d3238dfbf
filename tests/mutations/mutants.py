"""A mutation: a small fault in one file, and the tests that have to notice it."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LIST = Path(__file__).with_name("mutations.toml")


class MutationError(Exception):
    """A mutation that cannot be made as the list has it."""


@dataclass(frozen=True)
class Mutation:
    """One entry of the list.

    Attributes:
        id: Short name.
        area: Part of the project, by which mutations are chosen.
        fault: The mistake, in words.
        file: Path of the file from the repository's root.
        old: Text that stands exactly once in the file.
        new: Text that takes its place.
        tests: Paths of the tests to run, from the repository's root.
        framework: Value of KERAS_BACKEND for the tests; empty for tests without a framework.
    """

    id: str
    area: str
    fault: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    framework: str = ""

    def fields(self) -> dict[str, Any]:
        """The entry as JSON has it."""
        return {**asdict(self), "tests": list(self.tests)}

    def applied(self, text: str) -> str:
        """The file's text with the fault in it.

        Raises:
            MutationError: The old text does not stand there exactly once, or the new text is no
                Python.
        """
        count = text.count(self.old)
        if count != 1:
            raise MutationError(f"{self.id}: the old text stands {count} times in {self.file}")
        changed = text.replace(self.old, self.new)
        try:
            compile(changed, self.file, "exec")
        except SyntaxError as error:
            raise MutationError(f"{self.id}: the new text is no Python: {error}") from None
        return changed

    def applied_in(self, root: Path) -> str:
        """The text of the file of a checkout, with the fault in it.

        Raises:
            MutationError: As `applied`, or there is no such file, or a test file is not there.
        """
        for path in (self.file, *(test.partition("::")[0] for test in self.tests)):
            if not (root / path).exists():
                raise MutationError(f"{self.id}: no file {path}")
        return self.applied((root / self.file).read_text(encoding="utf-8"))


def read(path: Path = LIST) -> list[Mutation]:
    """Read a list of mutations.

    Raises:
        MutationError: Two entries have one id.
    """
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["mutation"]
    mutations = [Mutation(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]
    ids = [mutation.id for mutation in mutations]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise MutationError(f"ids that stand twice: {', '.join(twice)}")
    return mutations
