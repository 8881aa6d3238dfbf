"""A scaled spec as a commented file that extends its parent."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby

from nfspec.console import compact
from nfspec.design.scaling import Scaled
from nfspec.language.differences import Path, spec_fields
from nfspec.language.spec import SCHEMA
from nfspec.language.template import WIDTH, path_text, value_text

# What a reader may expect to have changed, and has to be told that it is as it was.
TOLD: tuple[Path, ...] = (
    ("input", "train"),
    ("input", "test"),
    ("stem", "width"),
    ("stages", "depth"),
    ("stages", "width"),
    ("stages", "group_width"),
    ("stages", "expansion"),
    ("stages", "alpha"),
    ("head", "conv_width"),
    ("head", "dropout"),
    ("stochastic_depth", "rate"),
)


def kept(scaled: Scaled) -> tuple[str, ...]:
    """The fields that are as they were, of those that a reader may expect to have changed."""
    told = [path for path in TOLD if path not in scaled.changed]
    if scaled.spec.head.conv != "width":
        told.remove(("head", "conv_width"))
    return tuple(map(path_text, told))


def scaled_file(scaled: Scaled, name: str, extends: str, by: Sequence[str]) -> str:
    """The text of a spec file, which means what the scaled spec means.

    Args:
        scaled: The scaled spec.
        name: The new spec's name.
        extends: The parent, as the file says it.
        by: The knobs that were allowed to change.
    """
    counted, before, old = scaled.counted, scaled.before, spec_fields(scaled.parent)
    source = f"{scaled.parent.name}, scaled by {', '.join(by)}"
    lines = [
        f"schema = {value_text(SCHEMA)}",
        f"name = {value_text(name)}",
        f"extends = {value_text(extends)}",
        f"source = {value_text(source)}",
        "",
        f"# {compact(counted.macs)} MACs at {counted.size[0]} px, {compact(counted.parameters)} "
        "parameters.",
        f"# {scaled.parent.name}: {compact(before.macs)} at {before.size[0]} px, "
        f"{compact(before.parameters)}.",
        *textwrap.wrap(
            f"As they were: {', '.join(kept(scaled))}.",
            WIDTH,
            initial_indent="# ",
            subsequent_indent="# ",
        ),
    ]
    for table, paths in groupby(scaled.changed, key=lambda path: path[0]):
        lines += ["", f"[{table}]"]
        for path in paths:
            code = f"{path_text(path[1:])} = {value_text(scaled.changed[path])}"
            lines.append(f"{code:<38}  # {value_text(old[path])}")
    return "\n".join(lines) + "\n"
