"""The command line, `nfspec`.

Results go to stdout, what is wrong to stderr. Exit status: 0; 1 where `diff` finds a difference,
`compare`, `conform`, `export` and `verify` an implementation that is not the same, and where
`predict` and `embed` left out an image that cannot be read;
2 for anything that cannot be used; 130 when interrupted.

One file for each command, which parses, calls and prints. Commands import every other room, and
each is imported when it is asked for.
"""

from __future__ import annotations

import os
import pkgutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import nfspec
from nfspec import streams
from nfspec.cli.commands import COMMANDS, GROUPS
from nfspec.console import print_lines, say
from nfspec.errors import InputError, NfspecError, NfspecWarning


@cache
def _imported(name: str) -> Any:
    """Import a command, and make of its function what typer runs."""
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(name, cls=_Command)(pkgutil.resolve_name(COMMANDS[name].function))
    return typer.main.get_command(alone)


class _Command(TyperCommand):
    """A command whose help has its options in groups, and examples."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups = COMMANDS[str(self.name)].groups
        arguments: list[tuple[str, str]] = []
        options: dict[str, tuple[str, str]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue  # hidden
            if parameter.param_type_name == "argument":
                arguments.append((record[0].partition(" <")[0], record[1]))  # without its type
            else:
                options[parameter.opts[0]] = record
        sections = {"Arguments": arguments}
        for title, names in groups.items():
            sections[title] = [options.pop(name) for name in names]
        sections["Other options" if groups else "Options"] = [*options.values()]
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if examples := COMMANDS[str(self.name)].examples:
            with formatter.section("Examples"):
                for purpose, line in examples.items():
                    formatter.write_text(f"{purpose}:")
                    formatter.write(f"    {line}\n")  # never broken, so that it can be copied


class _Imported(Mapping[str, Any]):
    """The commands by name; to look one up imports it."""

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        return _imported(name)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Commands(TyperGroup):
    """Commands whose expected errors end in a message and an exit status, not in a traceback."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = _Imported()

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(map(len, COMMANDS))
        for title, group in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name.ljust(width), each.summary) for name, each in group.items()]
                )
        formatter.write("\nThe options of a command, and examples: nfspec COMMAND --help\n")

    def invoke(self, ctx: Any) -> Any:
        try:
            _require_present_folder()
            with streams.Interruptible(), _warnings_as_sentences():
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


@contextmanager
def _warnings_as_sentences() -> Iterator[None]:
    """Print the project's own warnings as its errors are, without a line of code."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Any, category: Any, *place: Any, **rest: Any) -> None:
            if issubclass(category, NfspecWarning):
                say(f"warning: {message}")
            else:
                others(message, category, *place, **rest)

        warnings.simplefilter("always", NfspecWarning)
        warnings.showwarning = show
        yield


def _interrupted(error: BaseException | None) -> bool:
    """Tell whether an error is Ctrl-C, or one that a module raised for it while it was imported."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _require_present_folder() -> None:
    """Frameworks and relative paths fail in many ways in a folder that was deleted."""
    try:
        Path.cwd()
    except OSError:
        raise InputError("the current folder was deleted; change to another one") from None


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
    no_cache: Annotated[
        bool,
        typer.Option("--no-cache", help="Do not keep the programs that JAX compiles."),
    ] = False,
) -> None:
    """Normalizer-Free Networks, written down once and the same in every framework."""
    if no_cache:
        os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"


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
