"""docs/language.md and docs/errors.md, generated from the models and from the table of codes.

After a change of either, `python -m nfspec.language.documents` writes both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nfspec.files import write
from nfspec.language.codes import CODES, section
from nfspec.language.loader import dialects, layers, merge
from nfspec.language.named import HEADS, STEMS
from nfspec.language.schema import generate
from nfspec.language.template import value_text
from nfspec.markdown import table
from nfspec.wording import either

FOLDER = Path(__file__).parent.parent.parent / "docs"

LANGUAGE = """\
# The language

Every table and field of a spec file, version `nfspec/1`. `make docs` writes this page from the \
models in `nfspec/language`.

A spec extends another one, and states what differs. No field has a default: it is stated in the \
file, or in a file that this one extends. The last columns have the values of the dialects, the \
base specs that fix the conventions of one implementation; where such a column is empty, the \
network states the field. `nfspec show SPEC --resolved` prints each value of a spec, with the file \
and line that it comes from.

Values can be changed without a file: `--set stages.alpha=0.3` on the command line, as often as \
needed, and `nfspec.load("nfnet-f0", {"stages.alpha": 0.3, "head.classes": 10})` in Python. A \
value is written as in a file, but a word needs no quotes. Such a value is stronger than that of \
any file. The spec keeps its name, unless `name` is one of the values; its digest is another one \
if the network is another one.

A column is one value for all, or a list with one value for each stage (in `[stem]`, for each \
conv). Numbers are finite; a whole number is also taken where a number is expected.
"""
ABOUT_NAMES = {
    "stem": (
        "A name is replaced by the fields in its row when a spec is read; `nfspec show SPEC "
        "--resolved` prints them. The widths are parts of the stem's, which is `width` as a number "
        "beside the name, or the width of the last conv of the stem that the name replaces; they "
        "are rounded down. A field that stands beside the name, such as `pool`, or in a file that "
        "extends this one, is stronger than the name; those of files below it are replaced. A list "
        "with another number of convs ends the name. The names and the numbers are timm's, where "
        "the first stage has a stride of 2 after a stem of stride 2: `stages.stride` states it."
    ),
    "head": (
        "The names are those of DeepMind's families, and are replaced in the same way. An "
        "activation, a global average pool, dropout and the classifier are in every head."
    ),
}
ERRORS = """\
# Errors of a spec

Every error of a spec ends in a code. `nfspec explain CODE` prints its section of this page. \
`make docs` writes the page from `nfspec/language/codes.py`, and a test runs each example.
"""


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _range(schema: Mapping[str, Any]) -> str:
    bounds = {
        "minimum": "from",
        "exclusiveMinimum": "above",
        "maximum": "to",
        "exclusiveMaximum": "and below",
    }
    parts = [f" {word} {_number(schema[key])}" for key, word in bounds.items() if key in schema]
    return "".join(parts)


def _entries(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    if most is None:
        return f"at least {least} entries" if least else "entries"
    return f"{least} to {most:,} entries"


def type_text(schema: Mapping[str, Any]) -> str:
    """Type and range of a value, from its JSON Schema."""
    members = schema.get("oneOf") or schema.get("anyOf")
    if members and members[-1] == {**members[-1], "type": "array", "items": members[0]}:
        return f"{type_text(members[0])}, or a list of these"
    if members:
        return ", or ".join(type_text(member) for member in members)
    if "const" in schema:
        return f"`{value_text(schema['const'])}`"
    if "enum" in schema:
        return either([f"`{value_text(word)}`" for word in schema["enum"]])
    match schema["type"]:
        case "boolean":
            return "true or false"
        case "integer":
            return f"whole number{_range(schema)}"
        case "number":
            return f"number{_range(schema)}"
        case "string":
            most = schema.get("maxLength")
            return f"text of at most {most} characters" if most else "text"
        case "array":
            return f"list of {_entries(schema)}: {type_text(schema['items'])}"
        case "object":
            return f"table of names to: {type_text(schema['additionalProperties'])}"
    raise TypeError(f"docs/language.md has no words for the type {schema['type']}")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def _rows(
    title: str, properties: Mapping[str, Any], stated: Mapping[str, Mapping[str, Any]]
) -> Iterator[list[str]]:
    """A row for each field of a table; `title` is empty for the fields outside tables."""
    for name, schema in properties.items():
        values = (each.get(title, {}) if title else each for each in stated.values())
        cells = [f"`{value_text(value[name])}`" if name in value else "" for value in values]
        yield [f"`{name}`", type_text(schema), _cell(schema["description"]), *cells]


def _named(table_name: str) -> list[str]:
    """The names that a table knows, and the fields that each stands for."""
    if table_name == "stem":
        rows = [
            (name, {"width": [f"{part}/8" for part in stem.eighths]} | stem.fields())
            for name, stem in STEMS.items()
        ]
    elif table_name == "head":
        rows = [*HEADS.items()]
    else:
        return []
    fields = [*dict.fromkeys(field for _, values in rows for field in values)]
    cells = [
        [_value_cell(name), *(_value_cell(values.get(field)) for field in fields)]
        for name, values in rows
    ]
    heading = ("type", *(f"`{field}`" for field in fields))
    return ["", ABOUT_NAMES[table_name], "", *table(heading, cells)]


def _value_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"`{value_text(value)}`"


def language() -> str:
    """The text of docs/language.md."""
    model = generate()
    stated = {name: merge(layers(name))[0] for name in dialects()}
    head = ("field", "type and range", "meaning", *dialects())
    plain = {k: v for k, v in model["properties"].items() if "$ref" not in v}
    # Each dialect has a schema, name and source of its own, which nothing inherits.
    lines = ["", "## Fields outside tables", ""]
    lines += table(head, _rows("", plain, {name: {} for name in stated}))
    for name, schema in model["properties"].items():
        if "$ref" in schema:
            inner = model["$defs"][schema["$ref"].rpartition("/")[2]]
            lines += ["", f"## [{name}]", "", inner["description"], ""]
            lines += table(head, _rows(name, inner["properties"], stated))
            lines += _named(name)
    return LANGUAGE + "\n".join(lines) + "\n"


def errors() -> str:
    """The text of docs/errors.md."""
    return "\n".join([ERRORS, *(section(code) for code in CODES.values())])


def documents() -> dict[Path, str]:
    """File to text."""
    return {FOLDER / "language.md": language(), FOLDER / "errors.md": errors()}


if __name__ == "__main__":
    for path, text in documents().items():
        write(path, text)
