"""Text that other packages print of themselves and of the machine, left out."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Leave out warnings, progress, lines on standard error, and the remarks of loggers.

    Errors are raised as ever.

    Args:
        loggers: Names of loggers of which only errors are left.
    """
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    sys.stderr.flush()
    kept = os.dup(2)
    with warnings.catch_warnings(), Path(os.devnull).open("w") as nothing:
        warnings.simplefilter("ignore")
        os.dup2(nothing.fileno(), 2)  # for libraries that are not Python's
        try:
            with contextlib.redirect_stderr(nothing), contextlib.redirect_stdout(nothing):
                yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
