"""The command line, `nfspec`.

Results go to stdout, what is wrong to stderr. Exit status: 0; 1 where `diff` finds a difference,
`compare` and `conform` an implementation that is not the same;
2 for anything that cannot be used; 130 when interrupted.

One file for each command, which parses, calls and prints. Commands import every other room.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import nfspec
from nfspec import streams
from nfspec.cli.agc import agc
from nfspec.cli.bench import bench
from nfspec.cli.check import check
from nfspec.cli.compare import compare
from nfspec.cli.conform import conform, replay
from nfspec.cli.convert import convert
from nfspec.cli.cost import cost
from nfspec.cli.diff import diff
from nfspec.cli.evaluate import evaluate
from nfspec.cli.listing import list_specs
from nfspec.cli.new import new
from nfspec.cli.plot import plot
from nfspec.cli.show import show
from nfspec.cli.train import train
from nfspec.console import print_lines, say
from nfspec.errors import InputError, NfspecError


class _Commands(TyperGroup):
    """Commands whose expected errors end in a message and an exit status, not in a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            _require_present_folder()
            with streams.Interruptible():
                return super().invoke(ctx)
        except NfspecError as error:
            say(str(error))
        except BrokenPipeError:
            raise  # typer ends quietly
        except OSError as error:
            say(_reason(error))
        except typer.Exit:
            raise
        except BaseException as error:
            if not _interrupted(error):
                raise
            say("interrupted")
            raise typer.Exit(130) from None
        raise typer.Exit(2)


def _interrupted(error: BaseException | None) -> bool:
    """Whether an error is Ctrl-C, or one that a module raised instead while it was imported."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _require_present_folder() -> None:
    """Frameworks and relative paths fail in many ways in a folder that was deleted."""
    try:
        Path.cwd()
    except OSError:
        raise InputError("the present folder is no longer there; change to another one") from None


def _reason(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or error}"


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print_lines([f"nfspec {nfspec.__version__}"])
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Normalizer-Free Networks, written down once and the same in every framework."""


app.command("list")(list_specs)
app.command()(show)
app.command()(agc)
app.command()(check)
app.command()(diff)
app.command()(new)
app.command()(compare)
app.command()(conform)
app.command()(replay)
app.command()(bench)
app.command()(train)
app.command()(evaluate)
app.command()(plot)
app.command()(cost)
app.command()(convert)


def main() -> None:
    """Run the command line, and end the process."""
    streams.end_at_once()
    streams.ready()
    status: Any = 2
    try:
        app()
    except SystemExit as end:
        status = end.code
    except OSError as error:  # help or a message about an option cannot be printed
        say(f"stdout: {error.strerror or error}")
    if not streams.flushed():
        status = status or 2
    sys.exit(status)
