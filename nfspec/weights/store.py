"""nfspec's own weight files: safetensors of canonical names, with the spec they were saved for."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec.arguments import instance
from nfspec.errors import NfspecWarning, WeightError
from nfspec.plan import Plan
from nfspec.weights.arrays import converted
from nfspec.weights.checking import Float32, check, ends_of, shapes, text_names
from nfspec.weights.container import DAMAGED, contents, write
from nfspec.wording import printable

FORMAT = "nfspec/1"
MAX_FIELDS = 10


class DigestWarning(NfspecWarning):
    """Weights whose shapes fit a plan, saved for a spec that means another network."""


def read_all(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read a safetensors file, whatever is in it: the tensors, and the file's metadata.

    Raises:
        WeightError: Unreadable, or not a whole safetensors file.
    """
    with contents(path) as file:
        try:
            arrays = {name: np.asarray(tensor) for name, tensor in file.tensors.items()}
        except (ValueError, MemoryError):
            # Dtypes that NumPy does not have, and shapes that it refuses.
            raise WeightError(f"{printable(str(path))}: {DAMAGED}") from None
        return arrays, file.metadata


def save(path: str | Path, plan: Plan, params: Mapping[str, Float32]) -> None:
    """Save weights as a safetensors file, with the name, digest and canonical form of their spec.

    Args:
        path: File to write; an older file there is kept until the new one is whole.
        plan: The network.
        params: Canonical name to float32 array, of NumPy, JAX or PyTorch.

    Raises:
        InputError: `plan` is no plan.
        WeightError: The weights are not the plan's, or the file cannot be written.
    """
    instance("plan", plan, Plan, "nfspec.resolve")
    metadata = {
        "format": FORMAT,
        "name": plan.name,
        "digest": plan.digest,
        "spec": plan.canonical,
    }
    if isinstance(params, Mapping):  # what else it is, `check` says
        values, ends = text_names(params), ends_of(plan)
        params = converted(values, shapes(plan), plan.name, "", ends, own_shapes=False, widen=())
    write(Path(path), check(plan, params), metadata)


def load(path: str | Path, plan: Plan, *, own_shapes: bool = False) -> dict[str, Float32]:
    """Load weights that `save` wrote, or any safetensors file of canonical names.

    Args:
        path: The file.
        plan: The network.
        own_shapes: Take any number of classes and of input channels, and no classifier, as the
            file has it. `fit` makes such weights fit the plan.

    Returns:
        Canonical name to float32 array, in the plan's order.

    Raises:
        NoClassifier: Only the classifier is missing.
        WeightError: Unreadable, not a whole safetensors file, or not this network's tensors.

    Warns:
        DigestWarning: The tensors fit, but were saved for a spec with another meaning, such as
            another eps, which shapes do not show.
    """
    label = printable(str(path))
    with contents(Path(path)) as file:
        params = converted(
            file.tensors,
            shapes(plan),
            plan.name,
            label,
            ends_of(plan),
            own_shapes=own_shapes,
            widen=(),
        )
    metadata = file.metadata
    if metadata.get("digest", plan.digest) != plan.digest:
        lines = _differences(metadata.get("spec", ""), plan.canonical, own_shapes)
        message = f"{label}: fits {plan.name} in shape, but was saved for another spec"
        if lines or not own_shapes:
            warnings.warn("\n".join([f"{message}:", *lines]), DigestWarning, stacklevel=2)
    return params


def _fields(table: Mapping[str, Any]) -> dict[str, str]:
    """Dotted path to value as JSON; lists are values."""
    texts: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            texts |= {f"{key}.{path}": text for path, text in _fields(value).items()}
        else:
            texts[key] = json.dumps(value)
    return texts


def _differences(theirs: str, ours: str, own_shapes: bool) -> list[str]:
    """A line for each field in which two canonical forms differ, the first ten of them.

    Where shapes are the file's own, fields that say the number of classes or channels may differ.
    """
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
    if own_shapes:
        of_channels = {"input.channels", "input.mean", "input.std"}
        ignored = {"head.classes", *(of_channels if "input.channels" in differing else ())}
        differing = [path for path in differing if path not in ignored]
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
