"""Checkpoints of a training: everything that the next step depends on, in one file, whole or not
at all.

A file is safetensors: parameters by canonical name, what the optimizer keeps by the path of its
variables, the seeds of what drops at random, and as metadata where the training was. Any framework
reads what another wrote; only the same one goes on to the bit. A checksum over the names, types,
shapes and values of all tensors and over the metadata shows damage of any byte that means anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import keras
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from nfspec.backends.layers.base import NFLayer
from nfspec.backends.layers.drop import Drop
from nfspec.backends.values import array_of
from nfspec.errors import WeightError
from nfspec.training.failures import OtherTraining
from nfspec.weights.container import write
from nfspec.weights.store import read_all

FORMAT = "nfspec-checkpoint/2"
NAME = re.compile(r"step-([0-9]{8,18})\.safetensors")
KEPT = 2  # the newest; and the best


@dataclass(frozen=True)
class Position:
    """The position of a training: steps taken, and the best evaluation so far."""

    step: Annotated[int, Field(ge=0)]
    best_step: Annotated[int, Field(ge=0)] = 0
    best: Annotated[float, Field(ge=-1, le=1)] = -1.0  # top-1, a fraction; -1: none yet


POSITION = TypeAdapter(Position)


def _variables(model: keras.Model, optimizer: Any) -> Iterator[tuple[str, Any]]:
    for layer in model._flatten_layers():
        if isinstance(layer, NFLayer):
            for name, variable in layer.canonical_variables.items():
                yield f"parameter/{name}", variable
        if isinstance(layer, Drop):
            yield f"seed/{layer.canonical}", layer.seed_generator.state
    for variable in optimizer.variables:
        # Keras counts the optimizers of a process: the path begins with sgd, sgd_1, ...
        yield f"optimizer/{variable.path.partition('/')[2]}", variable


def path_of(folder: Path, step: int) -> Path:
    """The file of a step's checkpoint."""
    return folder / f"step-{step:08d}.safetensors"


def save(folder: Path, model: keras.Model, optimizer: Any, position: Position, digest: str) -> None:
    """Write a checkpoint, then delete those that are neither of the newest two nor the best.

    Raises:
        WeightError: It cannot be written; older ones are still there.
    """
    tensors = {name: array_of(variable) for name, variable in _variables(model, optimizer)}
    metadata = {"format": FORMAT, "digest": digest, "position": json.dumps(asdict(position))}
    metadata["checksum"] = checksum(tensors, metadata)
    write(path_of(folder, position.step), tensors, metadata)
    steps = saved(folder)
    for step in set(steps[:-KEPT]) - {position.best_step}:
        path_of(folder, step).unlink(missing_ok=True)


def take_part(model: keras.Model, optimizer: Any) -> None:
    """Give the process that writes a checkpoint this one's parts of parameters and averages."""
    for _, variable in _variables(model, optimizer):
        array_of(variable)


def checksum(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> str:
    """The sha256 of everything in a checkpoint but the checksum itself."""
    facts = sorted(item for item in metadata.items() if item[0] != "checksum")
    heads = [[name, tensors[name].dtype.str, tensors[name].shape] for name in sorted(tensors)]
    digest = hashlib.sha256(json.dumps([facts, heads]).encode())
    for name in sorted(tensors):
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()


def put_aside(path: Path) -> None:
    """Give a damaged checkpoint a name under which it is none."""
    with contextlib.suppress(OSError):
        path.replace(path.with_suffix(".damaged"))


def saved(folder: Path) -> list[int]:
    """Steps that there are checkpoints of, in order."""
    names = {path.name for path in folder.glob("step-*.safetensors")}
    steps = {int(match[1]) for match in map(NAME.fullmatch, names) if match}
    return sorted(step for step in steps if path_of(folder, step).name in names)


def restore(path: Path, model: keras.Model, optimizer: Any, digest: str) -> Position:
    """Set a built model and its built optimizer to what they were.

    Raises:
        WeightError: Unreadable, damaged, or of another training.
    """
    tensors, metadata = read_all(path)
    if "sha256" in metadata:
        raise OtherTraining(
            f"{path}: written by an earlier version of nfspec; go on with that version, or give "
            "another --out"
        )
    if metadata.get("format") != FORMAT or metadata.get("checksum") != checksum(tensors, metadata):
        raise WeightError(f"{path}: damaged: its content is not what was written")
    if metadata.get("digest") != digest:
        raise OtherTraining(
            f"{path}: a checkpoint of another training than this one; go on with the options and "
            "the images that it was started with, or give another --out"
        )
    try:
        position = POSITION.validate_json(metadata.get("position", ""), strict=True)
    except ValidationError:
        raise WeightError(f"{path}: damaged: it does not state its step") from None
    if path.name != path_of(path.parent, position.step).name:
        raise WeightError(
            f"{path}: damaged: it holds step {position.step}, but its name says another"
        )
    wanted = dict(_variables(model, optimizer))
    _require_same(path, wanted, tensors)
    for name, variable in wanted.items():
        variable.assign(keras.ops.convert_to_tensor(tensors[name], variable.dtype))
    return position


def _require_same(path: Path, wanted: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> None:
    for name in [*wanted, *tensors]:
        ours = tuple(wanted[name].shape) if name in wanted else None
        theirs = tensors[name].shape if name in tensors else None
        if ours != theirs:
            raise WeightError(f"{path}: {name}: expected {ours}, found {theirs} (None: no array)")
