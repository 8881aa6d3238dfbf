"""The command line, `nfspec`.

Results go to stdout, what is wrong to stderr. Exit status: 0; 1 where `diff` finds a difference,
`compare`, `conform`, `export` and `verify` an implementation that is not the same, and where
`predict` and `embed` left out an image that cannot be read;
2 for anything that cannot be used; 130 when interrupted.

One file for each command, which parses, calls and prints. Commands import every other room, and
each is imported when it is asked for.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import nfspec
from nfspec import streams
from nfspec.console import print_lines, say
from nfspec.errors import InputError, NfspecError


@dataclass(frozen=True)
class Command:
    """A command that is not imported yet.

    Attributes:
        function: Module and name of its function.
        summary: The first sentence of its help, which `nfspec --help` prints.
    """

    function: str
    summary: str


COMMANDS = {
    "list": Command("nfspec.cli.listing:list_specs", "List the built-in networks and base specs."),
    "show": Command("nfspec.cli.show:show", "Show a spec's computed numbers, block by block."),
    "agc": Command("nfspec.cli.agc:agc", "Show what clipping and weight decay do to each tensor."),
    "check": Command("nfspec.cli.check:check", "Check that specs load and resolve."),
    "explain": Command(
        "nfspec.cli.explain:explain",
        "Explain an error of a spec by its code: when it occurs, and how to fix it.",
    ),
    "diff": Command(
        "nfspec.cli.diff:diff", "Show where two specs differ; exit status 1 if they do."
    ),
    "new": Command("nfspec.cli.new:new", "Write a commented spec to start from."),
    "table": Command(
        "nfspec.cli.candidates:table",
        "Compare candidates: parameters, costs, and top-1 where it is known.",
    ),
    "scale": Command("nfspec.cli.scale:scale", "Write a spec of the same kind at a budget."),
    "compare": Command("nfspec.cli.compare:compare", "Compare the frameworks with the reference."),
    "conform": Command(
        "nfspec.cli.conform:conform", "Test implementations against the float64 reference."
    ),
    "replay": Command("nfspec.cli.replay:replay", "Run one case and print the bound term by term."),
    "bench": Command("nfspec.cli.bench:bench", "Measure a network next to its peers."),
    "generate": Command(
        "nfspec.cli.generate:generate", "Write a network as plain source in a framework."
    ),
    "export": Command(
        "nfspec.cli.export:export",
        "Write a network as a file for another runtime, and prove the file.",
    ),
    "verify": Command(
        "nfspec.cli.verify:verify", "Prove an exported file again, from what is in it alone."
    ),
    "train": Command(
        "nfspec.cli.train:train", "Train a network by its spec's recipe, or by nfspec's own."
    ),
    "evaluate": Command("nfspec.cli.evaluate:evaluate", "Evaluate a network on labelled images."),
    "predict": Command(
        "nfspec.cli.predict:predict", "Name the classes of images, with probabilities."
    ),
    "embed": Command(
        "nfspec.cli.embed:embed",
        "Write the vector that a network has of each image before its classifier.",
    ),
    "plot": Command(
        "nfspec.cli.plot:plot", "Draw the loss, accuracy and clip fraction of trainings."
    ),
    "signal": Command(
        "nfspec.cli.signal:signal",
        "Show the variance that each block sees beside the one that it should see.",
    ),
    "cost": Command("nfspec.cli.cost:cost", "Estimate the memory and the time of a training."),
    "lower": Command(
        "nfspec.cli.lower:lower",
        "Compile a network for another device, and print what it costs there.",
    ),
    "convert": Command(
        "nfspec.cli.convert:convert",
        "Convert weights between the formats of nfspec, DeepMind and timm.",
    ),
}


@cache
def _imported(name: str) -> Any:
    """Import a command, and make of its function what typer runs."""
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(name)(pkgutil.resolve_name(COMMANDS[name].function))
    return typer.main.get_command(alone)


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
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])

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
) -> None:
    """Normalizer-Free Networks, written down once and the same in every framework."""


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
