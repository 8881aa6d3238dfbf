"""timm's names and layouts for weights, and the files that its weights come in.

Source: timm 1.0.31, models/nfnet.py, layers/{squeeze_excite,eca,std_conv}.py. Kernels are OIHW
there, dense kernels (O, I) or, in squeeze-excite, (O, I, 1, 1), gains (O, 1, 1, 1).
"""

from __future__ import annotations

import argparse
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec.errors import BackendError, WeightError
from nfspec.files import opened
from nfspec.plan import ECA, Plan, SqueezeExcite
from nfspec.weights.arrays import as_float32, owned
from nfspec.weights.checking import Float32, Found, Shape, check, require
from nfspec.weights.files import head, replacing
from nfspec.weights.store import read, write
from nfspec.weights.unpickle import UNREADABLE, scan

CONVS = {
    "conv0": "conv1",
    "conv1": "conv2",
    "conv1b": "conv2b",
    "conv2": "conv3",
    "conv_shortcut": "downsample.conv",
}
LEAVES = {"kernel": "weight", "gain": "gain", "bias": "bias", "skip_gain": "skipinit_gain"}
WRAPPERS = ("state_dict_ema", "state_dict", "model")  # the averaged weights first, as timm does
SUFFIXES = (".safetensors", ".pth", ".pt", ".tar", ".bin", ".ckpt")
PREFIXES = ("module.", "_orig_mod.", "model.")  # of data parallelism, compilation, Lightning
COUNT = "n_averaged"  # what torch.optim.swa_utils keeps beside the weights
PICKLES = 5  # in a file of PyTorch's before 1.6, before its tensors


def names(plan: Plan) -> dict[str, str]:
    """Canonical name to timm's."""
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
        if isinstance(op, SqueezeExcite | ECA):
            block = plan.section(op)
            place = "attn_last" if op.inputs[0] == f"{block}.conv2" else "attn"
            base = f"{layers[block]}.{place}"
            layers |= {f"{op.name}.fc0": f"{base}.fc1", f"{op.name}.fc1": f"{base}.fc2"}
            layers[op.name] = f"{base}.conv"  # of ECA, which has no layers within
    found = {}
    for name in plan.parameters:
        layer, _, leaf = name.rpartition(".")
        found[name] = f"{layers[layer]}.{LEAVES[leaf]}"
    return found


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


def _ours(array: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """An array in the canonical layout, given its shape there."""
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


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        message = "torch files need PyTorch, which is not installed; run: pip install torch"
        raise BackendError(message) from None
    return torch


def _torch_file(path: Path) -> Any:
    torch = _torch()
    head(path, 1)
    # timm's trainer keeps its options beside the weights; a Namespace is a dict by another name.
    allowed = torch.serialization.safe_globals([argparse.Namespace])
    try:
        with warnings.catch_warnings(), allowed:
            warnings.simplefilter("ignore")  # torch warns of nonsense before it refuses it
            _scan_torch(path)
            return torch.load(path, map_location="cpu", weights_only=True)
    except (*UNREADABLE, AssertionError, OSError, struct.error, zipfile.BadZipFile):
        message = "not a torch file of tensors only, or damaged or cut short"
        raise WeightError(f"{path}: {message}") from None


def _scan_torch(path: Path) -> None:
    """Refuse what would take memory or time out of proportion to the file.

    Raises:
        ValueError: Packed records, or a pickle that no writer of weights makes.
    """
    with opened(path) as file:
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


def _plain(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
    """A dict without the attributes that a pickle may have given a mapping."""
    return dict(dict.items(mapping) if isinstance(mapping, dict) else mapping.items())


def _unwrapped(state: Any, source: str) -> dict[str, Any]:
    """The state dict inside a training checkpoint, without the prefix of data parallelism."""
    if isinstance(state, Mapping):
        state = _plain(state)
        inner = (state[key] for key in WRAPPERS if isinstance(state.get(key), Mapping))
        state = _plain(next(inner, state))
    if not isinstance(state, Mapping):
        where = f"{source}: " if source else ""
        raise WeightError(f"{where}expected a state dict, found {type(state).__name__}")
    if not all(isinstance(name, str) for name in state):
        raise WeightError(f"{source}: expected names that are text" if source else "names are text")
    found = {name: value for name, value in state.items() if name != COUNT}
    while found and any(all(n.startswith(prefix) for n in found) for prefix in PREFIXES):
        found = {name.partition(".")[2]: value for name, value in found.items()}
    return found


def from_timm(source: str | Path | Mapping[str, Any], plan: Plan) -> dict[str, Float32]:
    """Weights of a timm model as canonical ones.

    Args:
        source: A .safetensors file, a file of torch.save's (.pth, .pth.tar, .pt, .bin or .ckpt;
            needs PyTorch, and is read with `weights_only=True`), or a state dict of torch tensors
            or NumPy arrays. A checkpoint's averaged weights are taken before its other ones.
        plan: The network.

    Returns:
        Canonical name to float32 array, in the plan's order, sharing no memory with `source`.

    Raises:
        WeightError: The file holds something else, the tensors are not this network's, or a value
            is none of float32's.
        BackendError: PyTorch is needed and not installed.
    """
    places, expected = names(plan), timm_shapes(plan)
    label, state = "", source
    if isinstance(source, str | Path):
        path, label = Path(source), str(source)
        if path.suffix not in SUFFIXES:
            raise WeightError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
        if path.suffix == ".safetensors":
            state, _ = read(path, expected, plan.name, widen=("float16", "float64"))
        else:
            state = _torch_file(path)
    found: dict[str, Found] = {k: as_float32(v) for k, v in _unwrapped(state, label).items()}
    require(expected, found, plan.name, label)
    return {
        name: owned(_ours(np.asarray(found[places[name]]), parameter.shape))
        for name, parameter in plan.parameters.items()
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
        raise WeightError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
    tensors = to_timm(plan, params)
    if path.suffix == ".safetensors":
        write(path, tensors, {"format": "pt"})
        return
    torch = _torch()
    state = {name: torch.from_numpy(array) for name, array in tensors.items()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)
