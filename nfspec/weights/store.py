"""nfspec's own weight files: safetensors of canonical names, with the spec they were saved for."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nfspec.errors import WeightError
from nfspec.plan import Plan
from nfspec.weights.checking import Float32, Header, Shape, check, printable, require, shapes
from nfspec.weights.files import head, replacing

FORMAT = "nfspec/1"
MAX_FIELDS = 10
DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


class DigestWarning(UserWarning):
    """Weights whose shapes fit a plan, saved for a spec that means another network."""


def write(path: Path, tensors: Mapping[str, Float32], metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        WeightError: The file cannot be written.
    """
    # safetensors reads an array's memory in order, whatever its strides.
    dense = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(dense, temporary, metadata)
        except SafetensorError as error:
            raise WeightError(f"{path}: cannot be written: {error}") from None


def read(
    path: Path, expected: Mapping[str, Shape], network: str, widen: Collection[str] = ()
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read a safetensors file that must hold exactly the expected tensors.

    Names, shapes and dtypes are compared before any tensor is read.

    Args:
        path: The file.
        expected: Name to shape.
        network: The network's name, for messages.
        widen: Dtypes to let pass as well as float32.

    Returns:
        The tensors in the order of `expected`, and the file's metadata.

    Raises:
        WeightError: Unreadable, not a whole safetensors file, or other tensors in it.
    """
    start = head(path, 9)
    if start[8:] != b"{":
        raise WeightError(f"{path}: {_guess(start)}")
    try:
        with safe_open(path, framework="numpy") as file:
            found = {}
            for name in sorted(file.keys()):
                part = file.get_slice(name)
                dtype = DTYPES.get(part.get_dtype(), part.get_dtype())
                shape = tuple(part.get_shape())
                found[name] = Header(shape, "float32" if dtype in widen else dtype)
            require(expected, found, network, str(path))
            return {name: file.get_tensor(name) for name in expected}, file.metadata() or {}
    except SafetensorError:
        message = "a safetensors file that is damaged or cut short; download or save it again"
        raise WeightError(f"{path}: {message}") from None


def read_all(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read a safetensors file, whatever is in it: the tensors, and the file's metadata.

    Raises:
        WeightError: Unreadable, or not a whole safetensors file.
    """
    head(path, 1)
    try:
        with safe_open(path, framework="numpy") as file:
            names = sorted(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, ValueError, AttributeError, TypeError, MemoryError):
        # Shapes that NumPy refuses, and dtypes that it does not have.
        raise WeightError(f"{path}: not a safetensors file, or damaged or cut short") from None


def _guess(start: bytes) -> str:
    text = "not a safetensors file"
    if start.startswith(b"PK"):
        return f"{text} but a zip archive; for a .pth of timm's use nfspec.weights.from_timm"
    if start.startswith(b"\x80"):
        return f"{text} but a pickle; for DeepMind's files use nfspec.weights.from_deepmind"
    return text


def save(path: str | Path, plan: Plan, params: Mapping[str, Float32]) -> None:
    """Save weights as a safetensors file, with the name, digest and canonical form of their spec.

    Args:
        path: Where to; an older file there is kept until the new one is whole.
        plan: The network.
        params: Canonical name to float32 array.

    Raises:
        WeightError: The weights are not the plan's, or the file cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "name": plan.name,
        "digest": plan.digest,
        "spec": plan.canonical,
    }
    write(Path(path), check(plan, params), metadata)


def load(path: str | Path, plan: Plan) -> dict[str, Float32]:
    """Load weights that `save` wrote, or any safetensors file of canonical names.

    Args:
        path: The file.
        plan: The network.

    Returns:
        Canonical name to float32 array, in the plan's order.

    Raises:
        WeightError: Unreadable, not a whole safetensors file, or not this network's tensors.

    Warns:
        DigestWarning: The tensors fit, but were saved for a spec with another meaning, such as
            another eps, which shapes do not show.
    """
    params, metadata = read(Path(path), shapes(plan), plan.name)
    if metadata.get("digest", plan.digest) != plan.digest:
        lines = _differences(metadata.get("spec", ""), plan.canonical)
        message = f"{path}: fits {plan.name} in shape, but was saved for another spec"
        warnings.warn("\n".join([f"{message}:", *lines]), DigestWarning, stacklevel=2)
    return params


def _fields(table: Mapping[str, Any]) -> dict[str, str]:
    """Dotted path to value as JSON; lists are values."""
    found: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found |= {f"{key}.{path}": text for path, text in _fields(value).items()}
        else:
            found[key] = json.dumps(value)
    return found


def _differences(theirs: str, ours: str) -> list[str]:
    """A line for each field in which two canonical forms differ, the first ten of them."""
    try:
        # A stranger's file may hold any text here.
        data = json.loads(theirs)
        old = _fields(data if isinstance(data, dict) else {})
    except (ValueError, RecursionError):
        old = {}
    if not old:
        return ["  the file does not say which"]
    new = _fields(json.loads(ours))
    differing = [path for path in {**new, **old} if old.get(path) != new.get(path)]
    lines = [
        f"  {printable(path)}: {_cut(old.get(path))} in the file, {_cut(new.get(path))} here"
        for path in differing[:MAX_FIELDS]
    ]
    if len(differing) > MAX_FIELDS:
        lines.append(f"  and {len(differing) - MAX_FIELDS} more")
    return lines


def _cut(text: str | None) -> str:
    if text is None:
        return "nothing"
    return text if len(text) <= 60 else f"{text[:57]}..."
