"""`python -m nfspec` is the command line."""

import os
import sys

# What lies in the present folder, which -m puts first, must not stand in for a module.
try:
    if not sys.flags.safe_path and sys.path[0] == os.getcwd():  # noqa: PTH109
        del sys.path[0]
except OSError:  # a folder that was deleted
    pass

from nfspec import streams


def main() -> None:
    """Run the command line. Ctrl-C while modules are imported is no traceback either."""
    streams.end_at_once()
    streams.ready()
    from nfspec.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
