"""Specs written as TOML: a value, a whole resolved spec, and a commented file to start from."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from nfspec.language.differences import Path, spec_fields
from nfspec.language.fields import Table
from nfspec.language.spec import SCHEMA, Spec
from nfspec.wording import toml_key, toml_string

WIDTH = 80

# The fields that people change most; the explanation is the language's own where it has one.
OFFERED = {
    "input": {"channels": "", "train": "", "test": "", "mean": "", "std": ""},
    "stages": {
        "depth": "",
        "width": "",
        "width_factor": "",
        "stride": "",
        "expansion": "",
        "group_width": "",
        "kernel": "",
        "alpha": "",
        "beta": "",
        "attention": "",
    },
    "activation": {
        "kind": "The nonlinearity: relu, silu, gelu_tanh, gelu_erf, ...",
        "gamma": "",
        "gamma_at": "",
    },
    "attention": {"position": "", "gain": ""},
    "se": {"ratio": ""},
    "stochastic_depth": {"rate": "That of the deepest blocks; block 0 is never dropped."},
    "head": {
        "classes": "Outputs of the classifier.",
        "conv": "",
        "conv_ratio": 'Final conv over last stage, where conv = "ratio".',
        "conv_width": 'Channels of the final conv, where conv = "width".',
        "dropout": "Before the classifier, in training.",
    },
}


def value_text(value: Any) -> str:
    """A value of a spec as TOML writes it, on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return toml_string(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(map(value_text, value)) + "]"
    return repr(value)


def path_text(path: tuple[str, ...]) -> str:
    """A dotted key; parts that are not bare keys, such as `stages.*.gain`, are quoted."""
    return ".".join(map(toml_key, path))


def _lines_of(key: str, value: str) -> list[str]:
    """A field, an array of numbers over as many lines as it needs."""
    line = f"{key} = {value}"
    if len(line) <= WIDTH or value[0] != "[" or '"' in value:
        return [line]
    inside = textwrap.wrap(value[1:-1], WIDTH - 4, break_on_hyphens=False)
    return [f"{key} = [", *[f"    {part}" for part in inside], "]"]


def resolved(spec: Spec, places: bool = True) -> list[str]:
    """A whole spec as lines of TOML, each value with the place it comes from, if `places`.

    The lines are a spec file themselves, one that extends nothing. Tables are aligned, and where
    value and place do not fit 80 columns together the place is on the line above. Only strings,
    and arrays of them, may be longer than that.
    """
    lines: list[str] = []
    by_table = groupby(
        spec_fields(spec).items(), lambda item: item[0][0] if len(item[0]) > 1 else ""
    )
    for _, table in by_table:
        rows = [(path_text(path), value_text(value), spec.origin(path)) for path, value in table]
        comments = [f"# {at}" if at and places else "" for _, _, at in rows]
        keys = max(len(key) for key, _, _ in rows)
        room = WIDTH - keys - len(" = ") - len("  ")
        pairs = zip(rows, comments, strict=True)
        fitting = [len(value) for (_, value, _), at in pairs if len(value) + len(at) <= room]
        values = max(fitting, default=0)
        lines += [""] if lines else []
        for (key, value, _), place in zip(rows, comments, strict=True):
            line = f"{key:<{keys}} = {value:<{values}}  {place}".rstrip()
            if len(line) <= WIDTH:
                lines.append(line)
            else:
                lines += [*([place] if place else []), *_lines_of(f"{key:<{keys}}", value)]
    return lines


def _explanation(table: str, field: str) -> str:
    """The description of a field."""
    model = Spec.model_fields[table].annotation
    assert isinstance(model, type) and issubclass(model, Table)
    description = model.model_fields[field].description
    assert description, f"{table}.{field} has no explanation"
    return description


def _offered(base: Spec, values: Mapping[Path, Any], stated: str) -> dict[str, dict[str, Path]]:
    """Table to key to path, of the fields that people change most and of those to be stated."""
    tables: dict[str, dict[str, Path]] = {
        table: {key: (table, key) for key in keys} for table, keys in OFFERED.items()
    }
    for path in values:
        origin = base.origin(path)
        if len(path) > 1 and origin is not None and origin.file == stated:
            tables.setdefault(path[0], {})[path_text(path[1:])] = path
    return tables


def starting_spec(name: str, extends: str, base: Spec, stated: str = "") -> str:
    """A commented spec file that means the same as the one it extends, but for stated values.

    Args:
        name: The new spec's name.
        extends: Spec that it extends, as the file says it.
        base: That, loaded: its values stand in the file, commented out.
        stated: Origin of values of `base` that are not commented out, such as "--set".

    Returns:
        The text of the file. Every line that starts with `#` and a key is a field; all of them
        may be uncommented, and the network stays the same.
    """
    lines = [
        f"schema = {value_text(SCHEMA)}",
        f"name = {value_text(name)}",
        f"extends = {value_text(extends)}",
        f"source = {value_text(f'my own, from {base.name}')}",
        "",
        f"# The values of {base.name} stand below, commented out: to change one, take the # off.",
        f"# Fields that are not here stay as they are there: nfspec show {extends} --resolved",
    ]
    values = spec_fields(base)
    for table, keys in _offered(base, values, stated).items():
        lines += ["", f"[{table}]"]
        for key, path in keys.items():
            origin = base.origin(path)
            mark = "" if origin and origin.file == stated else "#"
            code = f"{mark}{key} = {value_text(values[path])}"
            about = OFFERED.get(table, {}).get(key) or _explanation(table, path[1])
            lines.append(f"{code:<38}  # {about}")
    return "\n".join(lines) + "\n"
