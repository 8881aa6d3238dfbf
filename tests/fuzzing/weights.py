"""Readers of weights: DeepMind's pickles, timm's files, nfspec's own."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import nfspec

from fuzzing import hostile
from fuzzing.archives import members, spoilt_safetensors, spoilt_zips, zipped
from fuzzing.mutation import by_bytes, by_pieces
from fuzzing.networks import LARGE, SMALL, params, plan, plan_of_file
from fuzzing.pickles import PIECES, PROGRAMS, instructions
from fuzzing.target import Target, asserted


def _check(actual: dict[str, Any], network: nfspec.Plan) -> None:
    asserted(list(actual) == list(network.parameters), "other names than the plan's")
    for name, parameter in network.parameters.items():
        array = actual[name]
        asserted(type(array) is np.ndarray and array.dtype == np.float32, f"{name}: not float32")
        asserted(array.shape == parameter.shape, f"{name}: shape {array.shape}")


def _read(reader: Callable[[Path, nfspec.Plan], dict[str, Any]], path: Path) -> None:
    network = plan_of_file(path)
    _check(reader(path, network), network)


def _written(write: Callable[[Path], None], name: str) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path)
        return path.read_bytes()


def _deepmind(text: str) -> bytes:
    return _written(
        lambda path: nfspec.weights.to_deepmind(path, plan(text), params(text)), "x.npz"
    )


def _of_other_protocols(data: bytes) -> Iterator[bytes]:
    """The same tree as older Pythons write it, and with the helpers of dill."""
    tree = pickle.loads(data)
    for protocol in (2, 3, 5):
        yield pickle.dumps(tree, protocol=protocol)
    yield pickle.dumps(tree, protocol=3).replace(b"numpy._core", b"numpy.core")


def _timm(text: str, name: str) -> bytes:
    return _written(lambda path: nfspec.weights.to_timm_file(path, plan(text), params(text)), name)


def _own(text: str) -> bytes:
    return _written(
        lambda path: nfspec.weights.save(path, plan(text), params(text)), "x.safetensors"
    )


def deepmind() -> Target:
    """Pickles of DeepMind's."""
    first = _deepmind(SMALL)
    seeds = [first, *_of_other_protocols(first)]
    spoilt = by_pieces([instructions(seed) for seed in seeds], PIECES)
    return Target(
        "deepmind",
        "x.npz",
        partial(_read, nfspec.weights.from_deepmind),
        seeds,
        _deepmind(LARGE),
        hostile.pickles(),
        PROGRAMS | spoilt | by_bytes(seeds),
    )


def pth() -> Target:
    """timm's files that PyTorch writes."""
    import torch

    state = {
        name: torch.from_numpy(array)
        for name, array in nfspec.weights.to_timm(plan(SMALL), params(SMALL)).items()
    }
    older = io.BytesIO()
    torch.save(state, older, _use_new_zipfile_serialization=False)
    wrapped = io.BytesIO()
    torch.save({"epoch": 1, "state_dict": {f"module.{k}": v for k, v in state.items()}}, wrapped)
    first = _timm(SMALL, "x.pth")
    seeds = [first, wrapped.getvalue(), older.getvalue()]
    content = members(first)
    root = next(iter(content)).partition("/")[0]
    data = content[f"{root}/data.pkl"]
    others = PROGRAMS | by_pieces([instructions(data)], PIECES)
    return Target(
        "pth",
        "x.pth",
        partial(_read, nfspec.weights.from_timm),
        seeds,
        _timm(LARGE, "x.pth"),
        {
            name: zipped({**content, f"{root}/data.pkl": bad})
            for name, bad in hostile.pickles().items()
        }
        | hostile.torch_files(content, root),
        spoilt_zips(content, f"{root}/data.pkl", others) | by_bytes(seeds) | PROGRAMS,
    )


def timm_safetensors() -> Target:
    """timm's safetensors."""
    seeds = [_timm(SMALL, "x.safetensors")]
    return Target(
        "timm-st",
        "x.safetensors",
        partial(_read, nfspec.weights.from_timm),
        seeds,
        _timm(LARGE, "x.safetensors"),
        hostile.safetensors_files(seeds[0]),
        spoilt_safetensors(seeds),
    )


def own() -> Target:
    """nfspec's own safetensors."""
    seeds = [_own(SMALL)]
    return Target(
        "own",
        "x.safetensors",
        partial(_read, nfspec.weights.load),
        seeds,
        _own(LARGE),
        hostile.safetensors_files(seeds[0]),
        spoilt_safetensors(seeds),
    )
