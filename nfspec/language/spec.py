"""The language nfspec/1: a spec file, of tables that are typed and strict.

No field that a network depends on has a default. A field that a file does not state comes from the
spec that it extends, so that a resolved spec states every convention. The JSON Schema for editors
and docs/language.md are generated from these models.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr

from nfspec.language.fields import Table
from nfspec.language.graph import (
    SE,
    WS,
    ActivationTable,
    Attention,
    BlockTable,
    Conv,
    Drop,
    EcaTable,
    Head,
    Input,
    RoundingTable,
    Stem,
)
from nfspec.language.stages import Stages
from nfspec.language.tables import AGC, Finetune, Recipe

SCHEMA = "nfspec/1"
NOT_INHERITED = ("name", "source")  # each file states its own
NOT_THE_GRAPH = {"name", "source", "agc", "recipe", "finetune"}
SCALAR_COLUMNS = (
    "stride",
    "dilation",
    "expansion",
    "group_width",
    "groups",
    "kernel",
    "alpha",
    "attention",
)
WS_COLUMNS = (
    "eps",
    "eps_rule",
    "ddof",
    "gain",
)  # of [ws]; one value all along is written as that value
# Columns of [stages] that came after the first release, and the values that say nothing.
LATER = {"dilation": 1, "groups": "none"}


@dataclass(frozen=True)
class Origin:
    """The place of a value: file, line and column, 1-based; 0 if it is in no file."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Spec(Table):
    """A whole network, with nothing left to defaults. Made by `nfspec.load`."""

    schema_: Literal["nfspec/1"] = Field(alias="schema", description="Version of the language.")
    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+/-]{0,79}$", description="Name of the network."),
    ]
    source: Annotated[
        str,
        Field(
            max_length=500,
            description="Where the numbers are from: a paper, a file, or the author.",
        ),
    ] = ""
    family: Annotated[
        Literal["nfnet", "nf_regnet", "nf_resnet"],
        Field(
            description=(
                "Model family of the original after which DeepMind's weight files name modules."
            )
        ),
    ]
    input: Input
    stem: Stem
    stages: Stages
    block: BlockTable
    rounding: RoundingTable
    ws: WS
    activation: ActivationTable
    conv: Conv
    attention: Attention
    se: SE
    eca: EcaTable
    stochastic_depth: Drop
    head: Head
    agc: AGC
    recipe: Recipe | None = None
    finetune: Finetune | None = None

    # Labels of the layers put over it, the last one first, and that of its own file.
    _files: tuple[str, ...] = PrivateAttr(default=())
    _origins: dict[tuple[str | int, ...], Origin] = PrivateAttr(default_factory=dict)

    def origin(self, path: tuple[str | int, ...]) -> Origin | None:
        """The place where the value at a path, or the nearest table around it, was written."""
        for n in range(len(path), 0, -1):
            if (origin := self._origins.get(path[:n])) is not None:
                return origin
        return None

    def canonical(self) -> str:
        """The network's meaning as canonical JSON: every column at full length, keys sorted.

        Fields that do not change the graph are left out: name, source, agc, recipe and finetune. So
        are those of LATER at the values that say nothing, so that a network keeps its digest.
        """
        data = self.model_dump(by_alias=True, exclude=NOT_THE_GRAPH)
        for column in SCALAR_COLUMNS:
            data["stages"][column] = self.stages.column(column)
        for column, neutral in LATER.items():
            if set(data["stages"][column]) == {neutral}:
                del data["stages"][column]
        for column in WS_COLUMNS:
            if len(values := set(self.ws.column(column, 1))) == 1:
                data["ws"][column] = values.pop()
        if data["ws"]["gain"] is True:  # which came after the first release
            del data["ws"]["gain"]
        return json.dumps(data, sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """sha256 of the canonical form, hexadecimal."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()
