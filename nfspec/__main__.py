"""`python -m nfspec` is the command line."""

import os
import signal
import sys
from contextlib import suppress

# What lies in the present folder, which -m puts first, must not stand in for a module.
with suppress(OSError):  # a folder that was deleted
    if not sys.flags.safe_path and sys.path[0] == os.getcwd():  # noqa: PTH109
        del sys.path[0]


def _interrupted(*_: object) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)


def main() -> None:
    """Run the command line. Ctrl-C while modules are imported is no traceback either."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, _interrupted)
    from nfspec.cli import main as command_line

    signal.signal(signal.SIGINT, usual)
    command_line()


if __name__ == "__main__":
    main()
