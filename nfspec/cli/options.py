"""Options that several commands take: their largest values, and lists with commas."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

import typer

from nfspec.arguments import MAX_TIMEOUT, one_of
from nfspec.compilation import BACKENDS
from nfspec.errors import BackendError, InputError
from nfspec.language.overrides import ON_COMMAND_LINE, overriding, parsed
from nfspec.language.reading import Layer

MAX_SIDE = 8_192  # px, as in a spec
MAX_IMAGES = 1_000_000  # in a batch, as in a recipe
MAX_DEVICES = 1_000_000

ALL_BACKENDS = ",".join(BACKENDS)
SpecName = Annotated[
    str, typer.Argument(metavar="SPEC", help="A built-in spec, or the path of a .toml file.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change a field of the spec, such as stages.alpha=0.3; the value as in a file, words "
        "without quotes. Can be repeated.",
    ),
]
Original = Annotated[
    bool,
    typer.Option(
        "--original",
        help="Resize by DeepMind's formulas, to repeat published figures on ImageNet. "
        "Photographs of several megapixels are better resized without it.",
    ),
]
# Options of commands that test subjects.
TestedBackends = Annotated[
    str,
    typer.Option(
        "--backends", metavar="NAMES", help="Test nfspec on these frameworks, a list with commas."
    ),
]
Subjects = Annotated[
    list[str] | None,
    typer.Option(
        "--subject",
        metavar="SUBJECT",
        help="Implementation to test instead of nfspec: timm, optax, the file of nfspec generate "
        "(torch-source, flax-source and so on) or of nfspec export (onnxruntime, openvino, litert, "
        "savedmodel, stablehlo), an entry point, module:object or path/to/file.py:object. Can be "
        "repeated.",
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="cpu|gpu|tpu", help="Device to run on.")]
CompileOnly = Annotated[
    bool,
    typer.Option(
        "--compile-only",
        help="With --device tpu: compile every program of JAX for a TPU by the TPU's own compiler "
        "(libtpu), which needs no TPU. Nothing is said of numbers on one.",
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        min=1.0, max=MAX_TIMEOUT, metavar="SECONDS", help="Seconds to wait for one answer."
    ),
]


def changed_by(changes: list[str] | None) -> list[Layer]:
    """The values that --set puts over a spec, for `load`.

    Raises:
        SpecError: Names each text that cannot be read.
    """
    return overriding(parsed(changes or []), ON_COMMAND_LINE)


def names(text: str) -> tuple[str, ...]:
    """The names of a list with commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def some_of(option: str, text: str, known: Collection[str], least: int = 1) -> tuple[str, ...]:
    """The names of a list with commas, all of which must be known.

    Args:
        option: The option that has the list, for the message.
        text: The list.
        known: The names to choose from.
        least: The smallest number of names.

    Raises:
        InputError: A name is not known, or there are too few.
    """
    listed = names(text)
    if len(listed) < least or any(name not in known for name in listed):
        raise InputError(f"{option}: expected some of {', '.join(known)}; found {text!r}")
    return listed


def parse_backends(text: str) -> tuple[str, ...]:
    """The frameworks that --backends names.

    Raises:
        BackendError: A framework is not known, or none is named.
    """
    try:
        return some_of("--backends", text, BACKENDS)
    except InputError as error:
        raise BackendError(str(error)) from None


def parse_subjects(subjects: list[str] | None, backends: str) -> tuple[str, ...]:
    """The subjects that --subject names, each once; without any, nfspec on the frameworks that
    --backends names."""
    return tuple(dict.fromkeys(subjects)) if subjects else parse_backends(backends)


def device_of(device: str, compile_only: bool) -> str:
    """The device of a conformance run, of --device and --compile-only.

    Raises:
        InputError: No such device; programs can be compiled for a TPU alone.
    """
    from nfspec.conformance.cases.results import COMPILER
    from nfspec.conformance.running.settings import DEVICES

    one_of("--device", device, DEVICES)
    if not compile_only:
        return device
    if device != "tpu":
        raise InputError(f"--compile-only: expected --device tpu; found --device {device}")
    return COMPILER
