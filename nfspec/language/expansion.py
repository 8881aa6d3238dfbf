"""`type` in [stem] and [head], a name, and the fields that it stands for in its place.

It happens before the layers of a chain are merged, so that the names are known here alone, and a
network has one digest whether its stem is named or listed. A name replaces the fields of the files
below it; a field beside the name, or in a file above it, replaces that of the name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from nfspec.errors import Problem, suggest
from nfspec.language.named import HEADS, NAMES, STEMS, TYPE, NamedStem
from nfspec.language.reading import Layer
from nfspec.language.validation import Key
from nfspec.wording import either, found_text, quoted

MOST = 65_536  # channels, as the language has it


class Expanded(NamedTuple):
    """A chain without names.

    Attributes:
        chain: The layers, as they were where they name nothing.
        problems: The problems with the names and their widths.
        stand_ins: Paths of values that could not be used, which those of other layers stand for.
    """

    chain: list[Layer]
    problems: list[Problem]
    stand_ins: frozenset[Key]


def names_something(layer: Layer) -> bool:
    """True if a layer names a stem or a head."""
    return any(TYPE in _table(layer, table) for table in NAMES)


def expanded(chain: Sequence[Layer]) -> Expanded:
    """Replace the names in a chain of layers, the base first, by their fields."""
    reader = _Reader("extends" not in chain[0].data)
    layers = [reader.read(layer) for layer in chain]
    return Expanded(layers, reader.problems, frozenset(reader.stand_ins))


def _table(layer: Layer, name: str) -> dict[str, Any]:
    table = layer.data.get(name)
    return table if isinstance(table, dict) else {}


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class _Reader:
    """Goes through a chain once, and knows the name and the width of the stem so far."""

    def __init__(self, whole: bool):
        self.whole = whole  # False: files below the first are missing
        self.stem: NamedStem | None = None
        self.width: Any = None
        self.problems: list[Problem] = []
        self.stand_ins: set[Key] = set()

    def read(self, layer: Layer) -> Layer:
        for table in NAMES:
            given = _table(layer, table)
            if not given:
                continue
            name = self.name(layer, table) if TYPE in given else None
            if table == "head":
                fields = HEADS[name] if name else {}
            else:
                fields = self.stem_fields(layer, name)
            if fields or given.keys() & {TYPE, "width"}:
                layer = self.replaced(layer, table, fields)
        return layer

    def name(self, layer: Layer, table: str) -> str | None:
        """The name that a table has, if it is known."""
        value, (known, _) = layer.data[table][TYPE], NAMES[table]
        if isinstance(value, str) and value in known:
            return value
        message = f"expected {either([quoted(each) for each in known])}; found {found_text(value)}"
        hint = suggest(value, known) if isinstance(value, str) else ""
        self.wrong(layer, "SPEC-VALUE", (table, TYPE), message + hint)
        fields = ("width", "kernel", "stride", "pool") if table == "stem" else ("conv",)
        self.stand_ins |= {(table, field) for field in fields}
        return None

    def stem_fields(self, layer: Layer, name: str | None) -> dict[str, Any]:
        """The fields of [stem] that a layer has by name, or by a number as its width."""
        given = layer.data["stem"]
        fields: dict[str, Any] = {}
        if name:
            self.stem = STEMS[name]
            fields = self.stem.fields()
        width = given.get("width")
        if isinstance(width, list | tuple):
            self.width = width[-1] if width and _whole(width[-1]) else None
            if self.stem and len(width) != len(self.stem.eighths):
                self.stem = None  # another number of convs, of which a number says too little
        elif width is not None:
            fields |= self.widths(layer, width, ("stem", "width"))
        elif name and self.width is not None:
            fields |= self.widths(layer, self.width, ("stem", TYPE))
        return fields

    def widths(self, layer: Layer, width: Any, path: Key) -> dict[str, Any]:
        """The field `width` of the stem so far, whose last conv has `width` channels."""
        if self.stem is None:
            if self.whole and ("stem", "width") not in self.stand_ins:
                message = (
                    "expected an array, with the channels of each conv; found "
                    f"{found_text(width)}; a number is for a stem with a name, such as stem.type = "
                    '"deep_quad"'
                )
                self.wrong(layer, "SPEC-TYPE", path, message)
        elif not _whole(width):
            message = "expected a whole number, the channels of the last conv, or an array"
            self.wrong(layer, "SPEC-TYPE", path, f"{message}; found {found_text(width)}")
        elif not self.stem.least <= width <= MOST:
            bound = f"least {self.stem.least}" if width < self.stem.least else f"most {MOST}"
            about = "must be" if path[-1] == "width" else "stem.width must be"
            self.wrong(
                layer,
                "SPEC-VALUE",
                path,
                f"{about} at {bound} for this stem; found {found_text(width)}",
            )
        else:
            self.width = width
            return {"width": self.stem.widths(width)}
        self.stand_ins |= {("stem", field) for field in ("width", "kernel", "stride")}
        return {}

    def wrong(self, layer: Layer, code: str, path: Key, message: str) -> None:
        self.problems.append(layer.problem(code, path, message))

    def replaced(self, layer: Layer, table: str, fields: dict[str, Any]) -> Layer:
        """A layer with fields in place of the name, which are where the name is."""
        given = dict(layer.data[table])
        given.pop(TYPE, None)
        if table == "stem" and not isinstance(given.get("width", []), list | tuple):
            del given["width"]
        places = dict(layer.places)
        if (at := places.pop((table, TYPE), None)) is not None:
            places = {(table, field): at for field in fields} | places
        return replace(layer, data=layer.data | {table: fields | given}, places=places)
