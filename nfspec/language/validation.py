"""pydantic's errors in the words of a spec file."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from nfspec.errors import suggest
from nfspec.language.named import NAMES, TYPE
from nfspec.language.spec import NOT_INHERITED, Spec
from nfspec.wording import either, entries, found_text, quoted, toml_key

Key = tuple[str | int, ...]
NOT_IN_FILES = {"scalar", "list", "number", "word", "[key]"}  # parts that pydantic adds to a path

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


class Finding(NamedTuple):
    """Something wrong, as yet without a place: the code, the path and the message."""

    code: str
    path: Key
    message: str


def shown(path: Key) -> str:
    """A path as people write it: `stages.group_width[1]`, `agc.names."head.*"`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (toml_key(part) if len(part) <= 60 else quoted(part))
    return text if len(text) <= 200 else text[:197] + "..."


def _container(annotation: Any) -> Any:
    """The table, array or dict in a type, whatever it is wrapped in; None if there is none."""
    if get_origin(annotation) in (tuple, dict):
        return annotation
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(_container, get_args(annotation))), None)


def _keys(container: Any) -> dict[str, Any]:
    """Key to type for what a table may hold; of a dict, its known keys if it has such."""
    if get_origin(container) is dict:
        key, value = get_args(container)
        return dict.fromkeys(get_args(key), value)
    return {f.alias or name: f.annotation for name, f in container.model_fields.items()}


def _type_at(path: Key) -> Any:
    annotation: Any = Spec
    for part in path:
        container = _container(annotation)
        arguments = get_args(container)
        if isinstance(part, int):
            annotation = arguments[0]
        else:
            annotation = arguments[1] if arguments else _keys(container)[part]
    return annotation


def _choices(annotation: Any) -> list[str]:
    """The values that a type takes, in a few words each; literal words are in quotes."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _choices(arguments[0])
    if origin is Literal:
        return [f'"{word}"' for word in arguments]
    if origin in (Union, types.UnionType):
        return [choice for member in arguments for choice in _choices(member)]
    if origin is tuple:
        return ["an array"]
    return [WORDS.get(annotation, "a table")] if annotation is not type(None) else []


def _tables() -> dict[str, Any]:
    containers = {name: _container(annotation) for name, annotation in _keys(Spec).items()}
    return {name: table for name, table in containers.items() if table is not None}


def field_count(path: Key) -> int:
    """Number of fields that a missing path stands for: 1, or those that the table has to have."""
    if len(path) > 1 or path[0] not in _tables():
        return 1
    return sum(f.is_required() for f in _tables()[str(path[0])].model_fields.values())


def _unknown(path: Key) -> str:
    key = str(path[-1])
    known = list(_keys(_container(_type_at(path[:-1]))))
    known += [TYPE] * (path[0] in NAMES and len(path) == 2)
    if hint := suggest(key, known):
        return f"unknown key{hint}"
    homes = [f'"{name}.{key}"' for name, table in _tables().items() if key in _keys(table)]
    if homes:
        return f"unknown key here; did you mean {either(homes)}?"
    return f"unknown key; expected {either(known)}"


def _unexpected(value: Any, path: Key) -> str:
    """The message for a value of another type, or a word that is not one of those known."""
    choices = _choices(_type_at(path))
    message = f"expected {either(choices)}; found {found_text(value)}"
    one = not isinstance(path[-1], int) and not {"an array", "a table"} & {*choices}
    if one and isinstance(value, list | tuple):
        return f"{message}; this field is one value, which serves the whole network"
    if not isinstance(value, str) or not value:
        return message
    words = [choice.strip('"') for choice in choices if choice.startswith('"')]
    longer = [f'"{word}"' for word in words if word.startswith(value)]  # gelu: not elu
    return message + (f"; did you mean {either(longer)}?" if longer else suggest(value, words))


def _told(error: ErrorDetails, path: Key) -> tuple[str, str]:
    """Code and message of one of pydantic's errors."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden" or error["loc"][-1] == "[key]":
        return "SPEC-UNKNOWN-KEY", _unknown(path)
    if kind == "missing" and path[-1] in NOT_INHERITED:
        return "SPEC-MISSING", "missing; every spec has one of its own"
    if kind == "missing":
        return "SPEC-MISSING", "missing; give it here or in a spec that this one extends"
    if kind in LIMITS:
        word, key = LIMITS[kind]
        return "SPEC-VALUE", f"must be {word} {context[key]}; found {found_text(value)}"
    if kind == "finite_number":
        return "SPEC-VALUE", f"must be finite; found {found_text(value)}"
    if kind in ("too_short", "too_long"):
        word, key = ("least", "min_length") if kind == "too_short" else ("most", "max_length")
        return "SPEC-LENGTH", f"must have at {word} {entries(context[key])}; has {len(value)}"
    if kind == "string_too_long":
        return "SPEC-VALUE", f"longer than {context['max_length']} characters"
    if kind == "string_pattern_mismatch":
        allowed = "letters, digits and . _ + / -, at most 80 and a letter or digit first"
        return "SPEC-VALUE", f"expected {allowed}; found {found_text(value)}"
    return "SPEC-VALUE" if kind == "literal_error" else "SPEC-TYPE", _unexpected(value, path)


def _path(error: ErrorDetails, merged: dict[str, Any]) -> Key:
    """The error's path without what pydantic puts into it: tags of unions, `[key]`."""
    path: list[str | int] = []
    value: Any = merged
    for part in error["loc"]:
        if part in NOT_IN_FILES and not (isinstance(value, dict) and part in value):
            continue
        path.append(part)
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
    return tuple(path)


def findings(error: ValidationError, merged: dict[str, Any]) -> Iterator[Finding]:
    """Problems with a merged spec, in the order of the fields."""
    for details in error.errors(include_url=False):
        kind, value = details["type"], details["input"]
        if kind == "too_short" and len(value) >= details["ctx"]["min_length"]:
            continue  # pydantic counts the good entries alone, and has reported the bad ones
        path = _path(details, merged)
        code, message = _told(details, path)
        yield Finding(code, path, message)
