"""timm's names and layouts for weights, and the files that its weights come in.

Source: timm 1.0.31, models/nfnet.py, layers/{squeeze_excite,eca,std_conv}.py. Kernels are OIHW
there, dense kernels (O, I) or, in squeeze-excite, (O, I, 1, 1), gains (O, 1, 1, 1).
"""

from __future__ import annotations

import argparse
import struct
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nfspec.errors import BackendError, WeightError
from nfspec.plan import (
    ECA,
    Activation,
    Conv,
    Dense,
    Dropout,
    GlobalPool,
    Operation,
    Plan,
    Pool,
    Residual,
    SqueezeExcite,
    StochasticDepth,
    WSConv,
    unknown_operation,
)
from nfspec.plan.standardisation import one_for_all
from nfspec.weights.arrays import converted, owned
from nfspec.weights.checking import CLASSIFIER, Ends, Float32, Shape, check, ends_of, text_names
from nfspec.weights.container import contents, write
from nfspec.weights.files import reading, writing
from nfspec.weights.unpickle import UNREADABLE, scan
from nfspec.wording import printable

CONVS = {
    "conv0": "conv1",
    "conv1": "conv2",
    "conv1b": "conv2b",
    "conv2": "conv3",
    "conv_shortcut": "downsample.conv",
}
LEAVES = {"kernel": "weight", "gain": "gain", "bias": "bias", "skip_gain": "skipinit_gain"}
# Averaged weights come first, as in timm.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
SUFFIXES = (".safetensors", ".pth", ".pt", ".tar", ".bin", ".ckpt")
COUNT = "n_averaged"  # torch.optim.swa_utils keeps it beside the weights
PICKLES = 5  # in a file of PyTorch's before 1.6, before its tensors


def _attention_place(plan: Plan, op: Operation) -> str | None:
    """timm's name, within a block, of an operation that is attention; None for other operations.

    Raises:
        WeightError: timm has no such operation.
    """
    match op:
        case SqueezeExcite() | ECA():
            return "attn_last" if op.inputs[0] == f"{plan.section(op)}.conv2" else "attn"
        case Conv():
            raise WeightError(f"{plan.name} is folded; timm has no names for folded networks")
        case (
            WSConv() | Activation() | Pool() | StochasticDepth() | Residual() | GlobalPool()
            | Dropout() | Dense()
        ):  # fmt: skip
            return None
        case _:
            raise unknown_operation(op, "nfspec.weights.timm")


def names(plan: Plan) -> dict[str, str]:
    """Canonical name to timm's.

    Raises:
        WeightError: The plan is folded, or its convs are not all standardised alike.
    """
    if reason := one_for_all(plan):
        raise WeightError(f"{plan.name} {reason}; timm cannot express that: keep nfspec's format")
    stem = [op.name for op in plan.ops if op.name.startswith("stem.conv")]
    layers = {name: f"stem.conv{i}" for i, name in enumerate(stem, 1)}
    if len(stem) == 1:
        layers[stem[0]] = "stem.conv"
    layers |= {"final_conv": "final_conv", "head.fc": "head.fc"}
    for row in plan.blocks:
        base = f"stages.{row.stage}.{row.index}"
        layers[row.name] = base
        layers |= {f"{row.name}.{ours}": f"{base}.{theirs}" for ours, theirs in CONVS.items()}
    for op in plan.ops:
        if (place := _attention_place(plan, op)) is not None:
            base = f"{layers[plan.section(op)]}.{place}"
            layers |= {f"{op.name}.fc0": f"{base}.fc1", f"{op.name}.fc1": f"{base}.fc2"}
            layers[op.name] = f"{base}.conv"  # ECA's, which has no layers within
    theirs = {}
    for name in plan.parameters:
        layer, _, leaf = name.rpartition(".")
        theirs[name] = f"{layers[layer]}.{LEAVES[leaf]}"
    return theirs


def _theirs(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """An array in timm's layout; `name` is canonical."""
    if name.endswith(".gain"):
        return array.reshape(-1, 1, 1, 1)
    if not name.endswith(".kernel"):
        return array
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if array.ndim == 1:
        return array.reshape(1, 1, -1)
    return array.T if name == "head.fc.kernel" else array.T[:, :, None, None]


def _ours(name: str, array: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """An array in the canonical layout, given its canonical name and the plan's shape."""
    if name in CLASSIFIER:
        return array.T
    if len(shape) == 4:
        return array.transpose(2, 3, 1, 0)
    return array.reshape(shape[::-1]).T


def timm_shapes(plan: Plan) -> dict[str, Shape]:
    """timm's name to shape."""
    places = names(plan)
    return {
        places[name]: _theirs(name, np.broadcast_to(np.float32(0), parameter.shape)).shape
        for name, parameter in plan.parameters.items()
    }


def _ends(plan: Plan, places: Mapping[str, str]) -> Ends:
    """The ends of a network under timm's names, OIHW and (O, I)."""
    ours = ends_of(plan)
    axes = {places[name]: int(axis == 2) for name, axis in ours.axes.items()}
    return Ends(tuple(places[name] for name in ours.classifier), axes)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        message = "torch files need PyTorch, which is not installed; run: pip install torch"
        raise BackendError(message) from None
    return torch


def _torch_file(torch: Any, file: BinaryIO, label: str) -> Any:
    # timm's trainer keeps its options beside the weights; a Namespace is a dict by another name.
    allowed = torch.serialization.safe_globals([argparse.Namespace])
    try:
        with warnings.catch_warnings(), allowed:
            warnings.simplefilter("ignore")  # torch warns of nonsense before it refuses it
            _scan_torch(file)
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except (*UNREADABLE, AssertionError, OSError, struct.error, zipfile.BadZipFile):
        message = "not a torch file of tensors only, or damaged or cut short"
        raise WeightError(f"{label}: {message}") from None


def _scan_torch(file: BinaryIO) -> None:
    """Refuse a file that would take memory or time out of proportion to its size.

    Raises:
        ValueError: Packed records, or a pickle that no writer of weights makes.
    """
    start = file.read(4)
    file.seek(0)
    if start != b"PK\x03\x04":  # as PyTorch tells the two apart
        for _ in range(PICKLES):
            scan(file)
        return
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError("a packed record, which PyTorch does not write")
            if entry.filename.endswith("data.pkl"):
                with archive.open(entry) as record:
                    scan(record)


def _unwrapped(state: Any, roots: Collection[str], source: str) -> dict[str, Any]:
    """The state dict inside a training checkpoint, without prefixes that all its names have.

    `module.` comes from data parallelism and averages, `_orig_mod.` from compilation, `model.` from
    Lightning, and others from modules of the user's own.

    Args:
        state: A state dict, or a checkpoint around one.
        roots: The first parts of timm's names.
        source: The file's name, put before messages.
    """
    if isinstance(state, Mapping):
        outer = dict(dict.items(state) if isinstance(state, dict) else state.items())
        inner = (outer[key] for key in WRAPPERS if isinstance(outer.get(key), Mapping))
        state = next((each for each in inner if each), state)
    if not isinstance(state, Mapping):
        where = f"{source}: " if source else ""
        raise WeightError(f"{where}expected a state dict, found {type(state).__name__}")
    values = text_names(state, source)
    values = {k: value for k, value in values.items() if k.rpartition(".")[2] != COUNT}
    while len(firsts := {name.partition(".")[0] for name in values}) == 1:
        if not firsts.isdisjoint(roots) or not all("." in name for name in values):
            break
        values = {name.partition(".")[2]: value for name, value in values.items()}
    return values


@contextmanager
def _state(source: Any, label: str) -> Iterator[Any]:
    """Give the contents of a file; its tensors can be read as long as the block lasts."""
    if not isinstance(source, str | Path):
        yield source
        return
    path = Path(source)
    if path.suffix not in SUFFIXES:
        raise WeightError(f"{label}: expected a file that ends in {', '.join(SUFFIXES)}")
    if path.suffix == ".safetensors":
        with contents(path) as whole:
            yield whole.tensors
    else:
        torch = _torch()
        with reading(path) as file:
            yield _torch_file(torch, file, label)


def from_timm(
    source: str | Path | Mapping[str, Any], plan: Plan, *, own_shapes: bool = False
) -> dict[str, Float32]:
    """Weights of a timm model as canonical ones.

    Args:
        source: A .safetensors file, a file of torch.save's (.pth, .pth.tar, .pt, .bin or .ckpt;
            needs PyTorch, and is read with `weights_only=True`), or a state dict of torch tensors
            or NumPy arrays. A checkpoint's averaged weights are taken before its other ones, and
            prefixes that all names have are taken off. float16, bfloat16 and float64 become
            float32 where that holds their values.
        plan: The network.
        own_shapes: Take any number of classes and of input channels, and no classifier, as the
            source has it. `fit` makes such weights fit the plan.

    Returns:
        Canonical name to float32 array, in the plan's order, sharing no memory with `source`.

    Raises:
        NoClassifier: Only the classifier is missing, as from timm's `num_classes=0`.
        WeightError: The file holds something else, the tensors are not this network's, or float32
            cannot hold a value.
        BackendError: PyTorch is needed and not installed.
    """
    places, expected = names(plan), timm_shapes(plan)
    label = printable(str(source)) if isinstance(source, str | Path) else ""
    ends = _ends(plan, places)
    roots = {name.partition(".")[0] for name in expected}
    with _state(source, label) as state:
        values = _unwrapped(state, roots, label)
        arrays = converted(values, expected, plan.name, label, ends, own_shapes=own_shapes)
    return {
        name: owned(_ours(name, arrays[places[name]], parameter.shape))
        for name, parameter in plan.parameters.items()
        if places[name] in arrays
    }


def to_timm(plan: Plan, params: Mapping[str, Float32]) -> dict[str, Float32]:
    """Canonical weights under timm's names and in its layouts.

    Returns:
        timm's name to float32 array, sharing no memory with `params`.

    Raises:
        WeightError: The weights are not the plan's.
    """
    places = names(plan)
    return {places[k]: owned(_theirs(k, array)) for k, array in check(plan, params).items()}


def to_timm_file(path: str | Path, plan: Plan, params: Mapping[str, Float32]) -> None:
    """Save weights as a file that timm loads.

    Args:
        path: Ends in .safetensors, or in .pth or .pt (needs PyTorch). An older file there is kept
            until the new one is whole.
        plan: The network.
        params: Canonical name to float32 array.

    Raises:
        WeightError: The weights are not the plan's, or the file cannot be written.
        BackendError: PyTorch is needed and not installed.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise WeightError(
            f"{printable(str(path))}: expected a file that ends in {', '.join(SUFFIXES)}"
        )
    tensors = to_timm(plan, params)
    if path.suffix == ".safetensors":
        write(path, tensors, {"format": "pt"})
        return
    torch = _torch()
    state = {name: torch.from_numpy(array) for name, array in tensors.items()}
    with writing(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # from PyTorch's own writer, as on a full disk
            reason = error.__context__ if isinstance(error.__context__, OSError) else None
            raise reason or OSError("PyTorch cannot write it; is the disk full?") from None
