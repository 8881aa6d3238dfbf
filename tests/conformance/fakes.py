"""A folder in which the workers of `fake_subjects` run, and the processes that ran there."""

import os
import shutil
from pathlib import Path


def prepare(folder):
    """Make a folder in which `fakes:NAME` is a subject; the present folder has to be that."""
    shutil.copy(Path(__file__).with_name("fake_subjects.py"), folder / "fakes.py")


def starts(folder):
    """The subjects of the workers that were started, in order, and their processes."""
    path = folder / "starts"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(name, int(pid)) for name, pid in map(str.split, lines)]


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
