"""A case: one input of a property, one line of JSON, from which all its arrays follow."""

from __future__ import annotations

import builtins
import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from nfspec import plan as p
from nfspec.errors import InputError
from nfspec.language.fields import Unit
from nfspec.language.tables import AGC
from nfspec.plan import Op, Role
from nfspec.plan.clipping import ClipRule, clip_rule
from nfspec.wording import printable

MOST_NAMED = 20  # of unknown fields
LONGEST = 2**16  # characters of a line
LONGEST_MESSAGE = 200  # characters of the message about a line that is refused
LARGEST = 2**26  # elements of an array of a case; its bounds take about ten float64 arrays like it
# Regimes of networks, besides "normal".
DRAWN = "drawn"  # the weights are those that a model is made with
DROPS = "drops"  # they are trained, and drop at random
FLAT = "flat"  # convs with channels whose weights are nearly alike, all alike, or 0
GAINS = "gains"  # gains of very different sizes, of both signs, and 0; skip gains of both signs

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Clip:
    """Adaptive gradient clipping of one parameter, as a spec's `[agc]` has it.

    Attributes:
        role, shape: Role and shape of the parameter, in the canonical layout (HWIO, IO).
        unit, clipping, eps: Values of the `[agc]` table.
    """

    role: Role
    shape: tuple[int, ...]
    unit: Unit
    clipping: float
    eps: float

    @property
    def rule(self) -> ClipRule:
        table = AGC(
            enabled=True,
            clipping=self.clipping,
            eps=self.eps,
            unit=self.unit,
            exclude=(),
            roles={},
            names={},
        )
        return clip_rule(table, "parameter", self.role, self.shape)


KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        p.WSConv, p.Activation, p.Pool, p.SqueezeExcite, p.ECA, p.Residual, p.GlobalPool, p.Dense,
        p.StochasticDepth, p.Dropout, Clip,
    )
}  # fmt: skip

# An operation's name, wiring and initial values in a case: they do not change its outputs.
NEUTRAL: dict[str, Any] = {
    "name": "op",
    "kernel_init": p.Init("constant", 1.0),
    "gain_init": 1.0,
    "init": "normal",
    "init_std": 1.0,
    "block": "op",
    "skip_gain_init": 0.0,
}


def local_names(op: Op) -> dict[str, str]:
    """The local name of each of an operation's parameters, such as `kernel`, to the canonical one.

    The skip gain is named by the block, not by the sum that multiplies by it.
    """
    prefix = op.block if isinstance(op, p.Residual) else op.name
    return {q.name.removeprefix(f"{prefix}."): q.name for q in op.parameters}


def neutral(op: Any) -> Any:
    """An operation with the fields that do not change its outputs set to the same for all."""
    return dataclasses.replace(op, **_neutral_fields(type(op)))


def _neutral_fields(kind: type[Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(kind)}
    inputs = ("x", "shortcut") if kind is p.Residual else ("x",)
    return {k: v for k, v in {**NEUTRAL, "inputs": inputs}.items() if k in names}


@dataclass(frozen=True)
class Case:
    """One test.

    Attributes:
        property: Its id.
        seed: Seed of the arrays.
        regime: Name of the way in which they are drawn.
        mode: Mode of the arithmetic: f32, tf32, bf16, f16.
        op: The operation or `Clip`, where it is about one; its fields, and its `type`.
        shape: Shape of the input, where the operation does not fix it.
        spec: The spec, where it is about a network: its name or path, and what is changed in it,
            as `nfspec.conformance.cases.target.source_of` writes it.
        digest: Digest of that spec, as a file may change.
        block: Name of the block, where it is about one.
        reduced: True if it is about the spec's network cut to a few narrow blocks.
    """

    property: str
    seed: int = 0
    regime: str = "normal"
    mode: str = "f32"
    op: Any = None
    shape: tuple[int, ...] = ()
    spec: str = ""
    digest: str = ""
    block: str = ""
    reduced: bool = False

    @builtins.property  # the field has the name
    def drops(self) -> bool:
        """True if a reduced network has the spec's rates of dropping, which it follows in
        training alone; otherwise it has none."""
        return self.regime in (DROPS, FLAT, GAINS)

    def fields(self) -> dict[str, Any]:
        """The fields as JSON values, without those at their defaults."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value == field.default and field.name != "property":
                continue
            if field.name == "op":
                value = {"type": type(value).__name__, **_op_fields(value)}
            values[field.name] = value
        return json.loads(json.dumps(values))

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps(self.fields(), separators=(",", ":"))

    @builtins.property
    def id(self) -> str:
        """sha256 of the line, hexadecimal."""
        return hashlib.sha256(self.line().encode()).hexdigest()

    @classmethod
    def parse(cls, text: str | dict[str, Any]) -> Case:
        """The inverse of `line` and of `fields`.

        Raises:
            InputError: It is no case.
        """
        try:
            if isinstance(text, str) and len(text) > LONGEST:
                raise ValueError(f"a line of {len(text):,} characters; at most {LONGEST:,}")
            data = json.loads(text) if isinstance(text, str) else dict(text)
            if "op" in data:
                data["op"] = _op(dict(data["op"]))
            _known(cls, data)
            case = _CASE.validate_python(data)
            _small(case)
            return case
        except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
            reason = printable(_first(error)[:LONGEST_MESSAGE])
            raise InputError(f"not a case: {type(error).__name__}: {reason}") from None

    def rng(self, stream: str = "") -> np.random.Generator:
        """A counter-based generator keyed by the case; one for each stream."""
        key = hashlib.sha256(f"{self.id}/{stream}".encode()).digest()[:16]
        return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


def _op_fields(op: Any) -> dict[str, Any]:
    """The fields that are neither the same for all cases nor at their defaults: a field that an
    operation gets later leaves its cases, and the arrays drawn for them, as they were."""
    known = {of.name: of.default for of in dataclasses.fields(op)}
    return {
        name: getattr(op, name)
        for name, default in known.items()
        if name not in (*NEUTRAL, "inputs") and getattr(op, name) != default
    }


def _op(data: dict[str, Any]) -> Any:
    kind: Any = KINDS[data.pop("type")]
    fixed = _neutral_fields(kind)
    if set(data) & set(fixed):
        raise ValueError(f"a case cannot state {', '.join(sorted(set(data) & set(fixed)))}")
    _known(kind, data)
    return _adapter(kind).validate_python({**fixed, **data})


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _small(case: Case) -> None:
    """Check the sizes of a case's arrays before any of them is made.

    Raises:
        ValueError: One of them would be too large, or a size is not one.
    """
    op, shape = case.op, case.op.shape if isinstance(case.op, Clip) else case.shape
    sizes = {"shape": shape}
    if isinstance(op, Op):
        sizes |= {parameter.name: parameter.shape for parameter in op.parameters}
    if isinstance(op, p.Convolution | p.Pool) and len(shape) == 4:
        sizes |= _windows(op, *shape)
    for name, size in sizes.items():
        if min(size, default=1) < 1:
            raise ValueError(f"{name}: expected sizes of at least 1; found {list(size)}")
        if math.prod(size) > LARGEST:
            raise ValueError(
                f"{name} {list(size)} has {math.prod(size):,} elements; at most {LARGEST:,}"
            )


def _windows(
    op: p.Convolution | p.Pool, count: int, height: int, width: int, channels: int
) -> dict[str, tuple[int, ...]]:
    """The image with its padding, the pixels that all windows read together, and the output."""
    if isinstance(op, p.Pool):
        window, made = op.window, channels
    else:
        window, made = op.extent, op.out_channels
    sides = (-(-height // op.stride), -(-width // op.stride))
    return {
        "padded input": (count, height + window, width + window, channels),
        "windows": (count, *sides, window, window, channels),
        "output": (count, *sides, made),
    }


def _known(kind: type[Any], data: dict[str, Any]) -> None:
    unknown = set(data) - {field.name for field in dataclasses.fields(kind)}
    if unknown:
        listed = ", ".join(printable(str(name)) for name in sorted(unknown, key=str)[:MOST_NAMED])
        more = f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
        raise ValueError(f"no fields of {kind.__name__}: {listed}{more}")


def _first(error: Exception) -> str:
    """The first reason of an error, in a line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg']}"
    return str(error)


def digest(calls: list[Arrays]) -> str:
    """sha256 of the names, shapes and bits of several calls' arrays."""
    bits = hashlib.sha256()
    for call in calls:
        for name, array in call.items():
            bits.update(f"{name}{array.shape}{array.dtype}".encode())
            bits.update(np.ascontiguousarray(array).data)
    return bits.hexdigest()


_CASE = TypeAdapter(Case)
