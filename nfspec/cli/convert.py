"""`nfspec convert`: weights between nfspec's own files and those of DeepMind and timm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nfspec.cli.options import Changes, changed_by
from nfspec.console import compact, print_lines, say
from nfspec.errors import InputError
from nfspec.files import opened
from nfspec.language.loader import load
from nfspec.outputs import FORCE_HELP, require_free
from nfspec.plan.free_memory import require_free_memory
from nfspec.plan.resolver import resolve
from nfspec.weights.kinds import (
    READERS,
    SUFFIXES,
    WRITERS,
    Kind,
    kind_of_file,
    kind_of_name,
    read_fitting,
)
from nfspec.weights.pretrained import weights_file


def _check_paths(source: Path, target: Path, kind: Kind, force: bool) -> None:
    try:
        opened(source).close()
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}") from None
    if target.suffix not in SUFFIXES[kind]:
        expected = " or ".join(SUFFIXES[kind])
        raise InputError(f"{target}: the name of a file for {kind} ends in {expected}")
    if target.exists() and target.samefile(source):
        raise InputError(f"{target} is the input; give the output another name")
    require_free(target, force)


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="File of weights to read, or a name of some: see nfspec list --pretrained.",
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="File to write.")],
    variant: Annotated[
        str, typer.Option(metavar="SPEC", help="The network's spec: a built-in one, or a path.")
    ],
    source_kind: Annotated[
        Kind | None,
        typer.Option(
            "--from",
            metavar="nfspec|deepmind|timm",
            help="Format of IN. Default: recognised by its name and content.",
        ),
    ] = None,
    target_kind: Annotated[
        Kind | None,
        typer.Option(
            "--to",
            metavar="nfspec|deepmind|timm",
            help="Format of OUT. Default: recognised by its name.",
        ),
    ] = None,
    fit: Annotated[
        bool,
        typer.Option(
            "--fit",
            help="Take weights of another number of classes or input channels, and make them fit.",
        ),
    ] = False,
    changes: Changes = None,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """Convert weights between the formats of nfspec, DeepMind and timm.

    A name that ends in .npz is DeepMind's; .pth and .pt are timm's; .safetensors is nfspec's or
    timm's. The metadata of an input shows which of the two it is; an output is nfspec's unless
    --to is timm. Nothing in a file is run, whoever wrote it: only the arrays of a pickle are read.
    """
    to = target_kind or kind_of_name(target, "--to")
    source = weights_file(source, say)
    _check_paths(source, target, to, force)
    plan = resolve(load(variant, changed_by(changes)))
    # Two copies: the weights as they are read, and those in the other layout.
    require_free_memory(plan, "convert the weights of", 2)
    kind = source_kind or kind_of_file(source, "--from")
    fitted = read_fitting(source, plan, kind) if fit else None
    params = fitted.params if fitted else READERS[kind](source, plan)
    require_free(target, force)  # again: a file may have come to be there meanwhile
    WRITERS[to](target, plan, params)
    total = compact(sum(array.size for array in params.values()))
    print_lines(
        [
            *(fitted.changes if fitted else ()),
            f"wrote {target}: {len(params)} tensors, {total} parameters, {to}",
        ]
    )
