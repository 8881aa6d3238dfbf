"""pydantic's errors in the words of a spec file."""

from __future__ import annotations

import types
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from nfspec.errors import Problem, suggest
from nfspec.spec import Spec

Key = tuple[str | int, ...]
TAGS = {"scalar", "list", "number", "word"}

EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "tuple_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
    "finite_number": "a finite number",
}


def shown(path: Key) -> str:
    """A path as people write it: `stages.group_width[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text[:200]


def found_text(value: Any) -> str:
    """A value as TOML would write it, cut to a length that fits a line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        text = '"' + value.replace("\n", "\\n") + '"'
    elif isinstance(value, dict):
        return "a table"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(map(found_text, value[:20])) + "]"
    elif isinstance(value, int) and abs(value) > 10**30:
        return f"a number above 1e{(abs(value).bit_length() - 1) * 30103 // 100000}"
    else:
        text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _path(error: ErrorDetails, merged: dict[str, Any]) -> Key:
    """The error's path without the union tags that pydantic puts into it."""
    path: list[str | int] = []
    value: Any = merged
    for part in error["loc"]:
        if part in TAGS and not (isinstance(value, dict) and part in value):
            continue
        if part == "[key]":
            continue
        path.append(part)
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
    return tuple(path)


def _known_keys(path: Key) -> list[str]:
    model: Any = Spec
    for part in path:
        annotation = model.model_fields[part].annotation
        if get_origin(annotation) in (Union, types.UnionType):  # recipe: a table or nothing
            annotation = next(a for a in get_args(annotation) if isinstance(a, type))
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return [field.alias or name for name, field in model.model_fields.items()]


def _message(error: ErrorDetails, path: Key) -> tuple[str, str]:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    found = found_text(value)
    if kind == "extra_forbidden":
        known = _known_keys(path[:-1])
        return "SPEC-UNKNOWN-KEY", f"unknown key{suggest(str(path[-1]), known)}"
    if kind == "missing":
        return "SPEC-MISSING", "missing; give it here or in a spec that this one extends"
    if kind == "literal_error":
        choices = context["expected"].replace("'", '"')
        words = [word.strip('"') for word in choices.replace(" or ", ", ").split(", ")]
        hint = suggest(value, words) if isinstance(value, str) else ""
        return "SPEC-VALUE", f"expected {choices}; found {found}{hint}"
    if kind in EXPECTED:
        return "SPEC-TYPE", f"expected {EXPECTED[kind]}; found {found}"
    limits = {
        "greater_than_equal": ("at least", "ge"),
        "greater_than": ("more than", "gt"),
        "less_than_equal": ("at most", "le"),
        "less_than": ("less than", "lt"),
    }
    if kind in limits:
        word, key = limits[kind]
        return "SPEC-VALUE", f"must be {word} {context[key]}; found {found}"
    if kind in ("too_short", "too_long"):
        word, key = ("at least", "min_length") if kind == "too_short" else ("at most", "max_length")
        return "SPEC-LENGTH", f"must have {word} {context[key]} entries; has {context['actual_length']}"
    if kind == "string_too_long":
        return "SPEC-VALUE", f"longer than {context['max_length']} characters"
    if kind == "string_pattern_mismatch":
        return "SPEC-VALUE", f"expected letters, digits and . _ + / -, at most 80; found {found}"
    return "SPEC-VALUE", f"{error['msg'][0].lower()}{error['msg'][1:]}; found {found}"


def problems_of(error: ValidationError, merged: dict[str, Any]) -> list[tuple[Key, Problem]]:
    """Each of pydantic's errors as (path, problem); the problem has no place yet."""
    found = []
    for details in error.errors(include_url=False):
        path = _path(details, merged)
        code, message = _message(details, path)
        found.append((path, Problem(code, shown(path), message)))
    return found
