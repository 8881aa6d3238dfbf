"""Values that are in no file: those that Python callers and the option --set put over a spec's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nfspec.arguments import shown
from nfspec.errors import InputError, Problem, SpecError
from nfspec.language.expansion import names_something
from nfspec.language.reading import MAX_BYTES, MAX_DOTS_IN_LINE, MAX_NESTING, Layer, parse
from nfspec.language.validation import Key
from nfspec.wording import printable, quoted

IN_PYTHON = "overrides"
ON_COMMAND_LINE = "--set"

# A word begins with a letter, or as `3x3` does.
_BARE_WORD = re.compile(r"(?!(?:true|false|inf|nan)$)(?:[A-Za-z_]|[1-9]x)[A-Za-z0-9_./-]*")


def given(label: str, values: Mapping[Key, Any]) -> Layer:
    """Values as a layer that `load` puts over a spec.

    Args:
        label: Name of their source, for errors.
        values: Path to value, such as ("recipe", "batch") to 64.
    """
    data: dict[str, Any] = {}
    places: dict[Key, tuple[int, int]] = {(): (0, 0)}
    for path, value in values.items():
        places |= {path[:n]: (0, 0) for n in range(1, len(path) + 1)}
        table = data
        for key in path[:-1]:
            table = table.setdefault(str(key), {})
        table[str(path[-1])] = value
    return Layer(label, None, 0, data, places)


def overriding(values: Mapping[str, Any], label: str = IN_PYTHON) -> list[Layer]:
    """A layer for each value, the strongest last; but a name of a stem or head is the weakest, so
    that the values beside it count, as they do in a file.

    Args:
        values: Dotted path, such as "stages.alpha", to value. Numbers and arrays may be NumPy's; a
            dict is a table.
        label: Name of their source, for errors.

    Raises:
        SpecError: A path is not a dotted key of TOML's; all such paths are named.
        InputError: A value is nothing that TOML has.
    """
    layers: list[Layer] = []
    problems: list[Problem] = []
    for text, value in values.items():
        if not isinstance(text, str):
            raise InputError(f"{label}: expected paths such as 'stages.alpha'; found {shown(text)}")
        try:
            layers.append(given(label, {_path(text, label): _plain(value, text, label)}))
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    return sorted(layers, key=names_something, reverse=True)


def parsed(texts: Sequence[str]) -> dict[str, Any]:
    """The values of the option --set, as `overriding` takes them.

    Args:
        texts: `PATH=VALUE` each, the value as TOML writes it. A word needs no quotes.

    Raises:
        SpecError: Names each text that cannot be read.
    """
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for text in texts:
        path, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            message = f"expected FIELD=VALUE, such as stages.alpha=0.3; found {quoted(text)}"
            problems.append(Problem("SPEC-TOML", "", message, ON_COMMAND_LINE))
            continue
        try:
            _path(path, ON_COMMAND_LINE)
            values[path] = _value(value)
        except SpecError as error:
            (problem,) = error.problems
            where = "" if problem.file else printable(path)
            problems.append(Problem(problem.code, where, problem.message, ON_COMMAND_LINE))
    if problems:
        raise SpecError(problems)
    return values


def _value(text: str) -> Any:
    """A value as TOML writes it, or a word without quotes."""
    if _BARE_WORD.fullmatch(text):
        return text
    if len(text) > MAX_BYTES or text.count(".") > MAX_DOTS_IN_LINE:
        raise SpecError([Problem("SPEC-LIMIT", "", "too long for a value")])
    table = parse(f"value = {text}", "")
    if len(table) > 1:
        raise SpecError([Problem("SPEC-TOML", "", f"expected one value; found {quoted(text)}")])
    return table["value"]


def _path(text: str, label: str) -> Key:
    """The parts of a dotted key."""
    try:
        if len(text) > MAX_BYTES or text.count(".") > MAX_NESTING:
            raise ValueError("too long")
        table = parse(f"{text} = 0", label)
    except (SpecError, ValueError):
        table = {}
    path: list[str] = []
    value: Any = table
    while isinstance(value, dict) and len(value) == 1:
        ((key, value),) = value.items()
        path.append(key)
    if not path or isinstance(value, dict):
        message = f"{quoted(text)} is not a path such as stages.alpha"
        raise SpecError([Problem("SPEC-TOML", "", message, label)])
    return tuple(path)


def _plain(value: Any, path: str, label: str, depth: int = 0) -> Any:
    """A value as `tomllib` would return it."""
    if hasattr(value, "tolist"):  # NumPy's
        value = value.tolist()
    if depth <= MAX_NESTING:
        if isinstance(value, Mapping):
            return {str(key): _plain(v, path, label, depth + 1) for key, v in value.items()}
        if isinstance(value, list | tuple):
            return [_plain(v, path, label, depth + 1) for v in value]
        if isinstance(value, str | int | float):  # bool is an int
            return value
    raise InputError(
        f"{label}: {path}: expected text, a number, True or False, a list or a dict; found "
        f"{shown(value)}"
    )
