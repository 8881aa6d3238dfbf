"""The standard streams of a process that may have been started without them, and Ctrl-C.

This is what the command line runs first, so that as little as possible is imported here.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # a constant of our own: importing typing takes time
if TYPE_CHECKING:
    from typing import Any

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


def ready() -> None:
    """See that file descriptors 0, 1 and 2 are open, and that any text can be printed.

    A file that is opened later would otherwise get the number of one that is closed, and the
    text that is printed there. If stdout was closed, writing to it still fails; text for a closed
    stderr is dropped.
    """
    for number, how in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # It gets the lowest number that is free.
            os.set_inheritable(os.open(os.devnull, how), True)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # File names and sources need not fit the terminal's encoding.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.unraisablehook = _again


def flushed() -> bool:
    """Write out all text; False if some could not be written to stdout, which is dropped."""
    taken = True
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            taken = taken and number != 1
            # Python would try again at its end, and print a traceback.
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return taken


def _again(failure: Any) -> None:
    """Send Ctrl-C once more if it came where Python cannot raise it, such as in a destructor."""
    if failure.exc_type is KeyboardInterrupt:
        import threading

        main = threading.main_thread().ident
        threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(failure)


def _end(*_: object) -> None:
    try:
        os.write(2, b"interrupted\n")
    finally:
        os._exit(130)


def end_at_once() -> None:
    """Make Ctrl-C end the process at once, with a word, until there is something to clean up."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, _end)


class Interruptible:
    """Within this block Ctrl-C raises KeyboardInterrupt, and SIGTERM and SIGHUP raise SystemExit.

    So the code in it can delete its temporary files and end its processes.
    """

    def __enter__(self) -> None:
        self.before = {number: signal.getsignal(number) for number in ENDING}
        if self.before[signal.SIGINT] is _end:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number in ENDING[1:]:
                if self.before[number] is signal.SIG_DFL:  # not where it is ignored, as by nohup
                    signal.signal(number, _leave)

    def __exit__(self, *_: object) -> None:
        for number, before in self.before.items():
            signal.signal(number, before)


def _leave(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
    sys.exit(128 + number)
