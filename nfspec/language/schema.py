"""The JSON Schema of a spec file, for editors: completion, hover help, and the errors of one field.

Generated from the models of `spec.py`. It looks at one file and not at what that extends, so
that only `name` and `schema` are required; `nfspec.load` is what decides. After a change of the
models, `python -m nfspec.language.schema` writes the file that a spec's first line names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nfspec.files import write
from nfspec.language.named import NAMES, TYPE
from nfspec.language.spec import SCHEMA, Spec

FILE = Path(__file__).parent.parent / "nfspec.schema.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def _table(model: dict[str, Any]) -> dict[str, Any]:
    """A table as a file may write it: whatever it does not say is inherited."""
    kept = {key: value for key, value in model.items() if key not in ("title", "required")}
    properties = {}
    for name, field in model["properties"].items():
        properties[name] = {key: value for key, value in field.items() if key != "title"}
    return {**kept, "properties": properties}


def generate() -> dict[str, Any]:
    """Generate the JSON Schema of a spec file."""
    model = Spec.model_json_schema(by_alias=True)
    root = _table({key: value for key, value in model.items() if key != "$defs"})
    root["properties"]["recipe"] = {"$ref": "#/$defs/Recipe"}  # TOML writes no null
    root["properties"]["finetune"] = {"$ref": "#/$defs/Finetune"}
    root["properties"]["extends"] = {
        "description": "Name of a built-in spec, or path of a .toml file in this file's folder.",
        "type": "string",
    }
    tables = {name: _table(table) for name, table in model["$defs"].items()}
    for table, (names, description) in NAMES.items():
        target = root["properties"][table]["$ref"].rpartition("/")[2]
        field = {"description": description, "enum": [*names], "type": "string"}
        tables[target]["properties"] = {TYPE: field, **tables[target]["properties"]}
    widths = tables["Stem"]["properties"]["width"]
    described = widths.pop("description")
    tables["Stem"]["properties"]["width"] = {
        "description": described,
        "oneOf": [widths["items"], widths],
    }
    return {
        "$schema": DIALECT,
        "title": f"{SCHEMA}: a Normalizer-Free Network",
        **root,
        "description": "A network, or what it changes of the one it extends.",
        "required": ["schema", "name"],
        "$defs": tables,
    }


def text() -> str:
    """The schema as the file has it."""
    return json.dumps(generate(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    write(FILE, text())
