"""`nfspec new`: a commented spec file to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from nfspec.cli.options import Changes, changed_by
from nfspec.console import print_lines
from nfspec.errors import InputError
from nfspec.files import replacing
from nfspec.language.loader import dialects, load, variants
from nfspec.language.overrides import ON_COMMAND_LINE
from nfspec.language.spec import NOT_INHERITED, Spec
from nfspec.language.template import starting_spec
from nfspec.outputs import FORCE_HELP, require_free


def checked_name(name: str) -> str:
    """The name of a new spec.

    Raises:
        InputError: It cannot be one.
    """
    try:
        field: TypeAdapter[str] = TypeAdapter(Annotated[str, Spec.model_fields["name"]])
        return field.validate_python(name)
    except ValidationError:
        raise InputError(
            f'"{name}" cannot be the name of a spec: expected up to 80 letters, digits and '
            ". _ + / -, of which the first is a letter or digit"
        ) from None


def extends_of(base: str, folder: Path) -> str:
    """The name of the base in a spec that stands in a folder."""
    if base in variants():
        return base
    path = Path(base).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InputError(
            f"{base} is not in the folder of the new spec or below it, so the new spec cannot "
            "extend it; copy it there, or give --output in its folder"
        )
    return path.relative_to(folder.resolve()).as_posix()


def _target(name: str, output: Path | None, force: bool) -> Path:
    file = output or Path(name.rpartition("/")[2] + ".toml")
    if file.suffix != ".toml":
        raise InputError(f"{file}: the name of a spec's file ends in .toml; give it with --output")
    if not file.parent.is_dir():
        raise InputError(f"{file}: there is no folder {file.parent}; make it first")
    require_free(file, force)
    return file


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the new spec, without .toml.")
    ],
    base: Annotated[
        str,
        typer.Option(
            "--from", metavar="SPEC", help="The spec to extend: a built-in one, or a path."
        ),
    ] = "nfnet-f0",
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write. Default: NAME.toml in this folder."),
    ] = None,
    changes: Changes = None,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """Write a commented spec to start from.

    It means the same as the spec that it extends, but for what --set changes.

    Nothing in a file is run, whoever wrote it.
    """
    name = name.removesuffix(".toml")
    over = changed_by(changes)
    for layer in over:
        if fixed := layer.data.keys() & {"schema", "family", *NOT_INHERITED}:
            raise InputError(f"--set: {min(fixed)}: edit it in the file that is written")
    file = _target(checked_name(name), output, force)
    if base in dialects():
        raise InputError(
            f'"{base}" is a base spec, not a network: it has no stages; extend a network of '
            "nfspec list"
        )
    text = starting_spec(name, extends_of(base, file.parent), load(base, over), ON_COMMAND_LINE)
    try:
        with replacing(file, only_new=not force) as temporary:
            temporary.write_bytes(text.encode())
    except FileExistsError:  # made since it was looked for
        require_free(file, force)
        raise
    print_lines([f"wrote {file}; edit it, then run: nfspec check {file}"])
