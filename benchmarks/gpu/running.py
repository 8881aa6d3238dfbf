"""Items one after another, within a time: each result is written when it is there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nfspec.errors import InputError
from nfspec.files import content, write

Record = dict[str, Any]  # one result, as JSON
Say = Callable[[str], None]
LEAST = 10.0  # seconds without which nothing is begun
MOST_BYTES = 2**26  # of a file that is read again


class NoTimeLeft(Exception):
    """An item that was given up for the time; what it has kept stays."""


@dataclass(frozen=True)
class Item:
    """A piece of what is measured.

    Attributes:
        name: Name of its file, without `.json`.
        title: The item in a few words.
        seconds: Time that it may take at least, if there is as much.
        measure: Function of the results that an earlier run kept, the time (as of
            `time.monotonic`) until which it may take, and a function that keeps a result. It may
            raise `NoTimeLeft`; any other error is the item's last result.
    """

    name: str
    title: str
    seconds: float
    measure: Callable[[list[Record], float, Callable[[Record], None]], None]


@dataclass
class Entry:
    """The contents of an item's file.

    Attributes:
        item: Its name.
        title: Its title.
        finished: False where some is left for another time.
        results: Its results.
        date: When the last of them was written, ISO 8601, UTC.
    """

    item: str
    title: str
    finished: bool
    results: list[Record]
    date: str = ""


def path_of(folder: Path, item: Item) -> Path:
    return folder / f"{item.name}.json"


def kept(folder: Path, item: Item) -> Entry:
    """The entry of an item in a folder: an empty one if it has nothing.

    Raises:
        InputError: Its file is not one that was written here.
    """
    path = path_of(folder, item)
    if not path.exists():
        return Entry(item.name, item.title, False, [])
    try:
        data = json.loads(content(path, MOST_BYTES))
        entry = Entry(**data)
        whole = isinstance(entry.results, list) and all(isinstance(r, dict) for r in entry.results)
        if entry.item != item.name or not whole:
            raise ValueError
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; delete it, or give another --out") from None
    except (ValueError, TypeError, RecursionError):
        raise InputError(
            f"{path} is not what this command writes; delete it, or give another --out"
        ) from None
    return entry


def run(
    items: Sequence[Item],
    folder: Path,
    seconds: float,
    say: Say,
    written: Callable[[list[Entry]], None] = lambda entries: None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Entry]:
    """Measure items in order until the time is over, but for those that are finished.

    An item may take its own seconds, or an equal part of what is left, if that is more.

    Args:
        items: What is to be measured.
        folder: Folder with a file for each.
        seconds: Time for all of them.
        say: Called with a line for each step.
        written: Called with all entries after each change.
        clock: The time in seconds.

    Returns:
        All entries, in the order of the items.
    """
    entries = {item.name: kept(folder, item) for item in items}
    end = clock() + seconds
    for number, item in enumerate(items):
        entry = entries[item.name]
        if entry.finished:
            say(f"{item.title}: there already")
            continue
        left = end - clock()
        if left < LEAST:
            say("no time is left for what follows")
            break
        todo = sum(not entries[later.name].finished for later in items[number:])
        until = clock() + min(left, max(item.seconds, left / todo))
        say(f"{item.title} ({until - clock():.0f} s at most) ...")

        def keep(record: Record, entry: Entry = entry, item: Item = item) -> None:
            entry.results.append(record)
            _write(folder, item, entry)
            written(list(entries.values()))

        try:
            item.measure(list(entry.results), until, keep)
            entry.finished = True
        except NoTimeLeft:
            say(f"{item.title}: what is left is for another time")
        except Exception as error:  # whatever went wrong is this item's result
            said = str(error).strip() or type(error).__name__
            entry.results.append({"error": f"{type(error).__name__}: {said.splitlines()[0]}"})
            entry.finished = True
        _write(folder, item, entry)
        written(list(entries.values()))
    return list(entries.values())


def _write(folder: Path, item: Item, entry: Entry) -> None:
    entry.date = datetime.now(UTC).isoformat(timespec="seconds")
    write(path_of(folder, item), json.dumps(vars(entry), indent=1) + "\n")
