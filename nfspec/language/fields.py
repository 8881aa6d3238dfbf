"""The types of a spec's fields, and the table they stand in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from nfspec.arguments import shown
from nfspec.errors import InputError

MAX_STAGES = 16
MAX_BLOCKS = 2_000  # in the whole network; the largest published has 200

Kind = Literal[
    "identity", "celu", "elu", "gelu_tanh", "gelu_erf", "leaky_relu", "log_sigmoid", "relu",
    "relu6", "selu", "sigmoid", "silu", "soft_sign", "softplus", "tanh",
]  # fmt: skip
Roles = Literal["kernel", "gain", "bias", "skip_gain", "head"]
PaddingMode = Literal["same", "symmetric"]
Rounding = Literal["floor", "nearest"]
Unit = Literal["squeeze", "timm", "output", "element", "tensor"]


def _tag(value: Any) -> str:
    """Tag of the union member that a value is meant to be, so that an error names that one only."""
    if isinstance(value, str):
        return "word"
    return "list" if isinstance(value, list | tuple) else "number"


def _column_tag(value: Any) -> str:
    return "list" if isinstance(value, list | tuple) else "scalar"


T = TypeVar("T")
N = TypeVar("N")
W = TypeVar("W")

Listed = Annotated[tuple[T, ...], Tag("list"), Field(min_length=1, max_length=MAX_BLOCKS)]
Column = Annotated[Annotated[T, Tag("scalar")] | Listed[T], Discriminator(_column_tag)]
NumberOr = Annotated[Annotated[N, Tag("number")] | Annotated[W, Tag("word")], Discriminator(_tag)]

Channels = Annotated[int, Field(ge=1, le=65_536)]
Pixels = Annotated[int, Field(ge=16, le=8_192)]
KernelSize = Annotated[int, Field(ge=1, le=31)]
Kernels = Annotated[  # of each stage: a number, or one for each of the two convs of a block
    Annotated[KernelSize, Tag("scalar")]
    | Annotated[
        tuple[
            Annotated[
                Annotated[KernelSize, Tag("scalar")]
                | Annotated[tuple[KernelSize, ...], Tag("list"), Field(min_length=2, max_length=2)],
                Discriminator(_column_tag),
            ],
            ...,
        ],
        Tag("list"),
        Field(min_length=1, max_length=MAX_STAGES),
    ],
    Discriminator(_column_tag),
]
Stride = Annotated[int, Field(ge=1, le=8)]
Dilation = Annotated[int, Field(ge=1, le=64)]
Factor = Annotated[float, Field(gt=0, le=1_000)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0, le=1e6)]
Finite = Annotated[float, Field(ge=-1e6, le=1e6)]
BlockBetas = Column[Finite]  # betas of one stage: a number, or one for each block
Beta = Annotated[
    Annotated[Literal["auto"], Tag("word")]
    | Annotated[Finite, Tag("number")]
    | Annotated[tuple[BlockBetas, ...], Tag("list"), Field(max_length=MAX_STAGES)],
    Discriminator(_tag),
]
Gamma = NumberOr[Factor, Literal["deepmind", "exact"]]


class Table(BaseModel):
    """A TOML table: unknown keys are errors, types are not coerced, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some values replaced; they are checked like the values of a file.

        Args:
            update: Field name to new value; a field that is a table takes a whole table.
            deep: Copy the values, too.

        Raises:
            InputError: A field is not known, or a value is not what the field takes.
        """
        names = {name: field.alias or name for name, field in type(self).model_fields.items()}
        given = {key: getattr(self, name) for name, key in names.items()}
        given |= {names.get(name, name): value for name, value in (update or {}).items()}
        try:
            checked = type(self).model_validate(given)
        except ValidationError as error:
            problems = (
                f"{'.'.join(map(str, e['loc']))}: {e['msg']}; found {shown(e['input'])}"
                for e in error.errors(include_url=False)
            )
            raise InputError(f"{type(self).__name__}: {', '.join(problems)}") from None
        return super().model_copy(
            update={name: getattr(checked, name) for name in names if name in (update or {})},
            deep=deep,
        )
