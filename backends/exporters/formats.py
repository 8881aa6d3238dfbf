"""The formats by name. A new one is a module and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nfspec.backends.exporters import (
    aotinductor,
    coreml,
    executorch,
    litert,
    onnx,
    openvino,
    savedmodel,
    stablehlo,
    torch,
)
from nfspec.backends.exporters.format import Format
from nfspec.errors import InputError, suggest

FORMATS: Mapping[str, Format] = {
    each.name: each
    for each in (
        onnx.FORMAT,
        openvino.FORMAT,
        torch.FORMAT,
        stablehlo.FORMAT,
        savedmodel.FORMAT,
        litert.FORMAT,
        coreml.FORMAT,
        executorch.FORMAT,
        aotinductor.FORMAT,
    )
}
SUFFIXES: Mapping[str, Format] = {each.suffix: each for each in FORMATS.values()}


def format_of(name: str) -> Format:
    """The format of a name.

    Raises:
        InputError: There is none.
    """
    if name not in FORMATS:
        known = ", ".join(FORMATS)
        raise InputError(f"to: expected one of {known}; found {name!r}{suggest(name, FORMATS)}")
    return FORMATS[name]


def is_exported(path: Path) -> bool:
    """True for a file, or a folder, whose name is that of a format."""
    form = SUFFIXES.get(path.suffix)
    return form is not None and (path.is_dir() if form.marker else path.is_file())


def format_of_file(path: Path) -> Format:
    """The format that a file's name says.

    Raises:
        InputError: It says none.
    """
    if path.suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise InputError(f"{path}: expected a name that ends in one of {known}")
    return SUFFIXES[path.suffix]
