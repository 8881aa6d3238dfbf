"""ExecuTorch (.pte): PyTorch's ExportedProgram of the network, with XNNPACK's kernels.

XNNPACK keeps weights under the SHA-256 of their bytes, without names. The metadata, which are what
the method `nfspec` of the file returns, have the digest of each weight, and the values of those few
that XNNPACK does not keep.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec import plan as p
from nfspec.backends.exporters import torch as format_torch
from nfspec.backends.exporters.format import Facts, Format, Outputs, Read, Run, Runtime
from nfspec.backends.exporters.quiet import quiet
from nfspec.backends.exporters.settings import Network, network_of
from nfspec.errors import InputError
from nfspec.files import opened
from nfspec.generation.targets import target_of
from nfspec.plan import FEATURES
from nfspec.wording import reason_of

METADATA = "nfspec"  # the method
WEIGHTS = "weights"  # in the metadata: name to digest, or to values
MOST_IMAGES = 4  # at most, where batches are of any size: memory is planned for the largest images
SIDE = 320  # px of a side, at least


def _quiet() -> AbstractContextManager[None]:
    return quiet("torchao", "coremltools", "torch.utils._pytree")


def most(network: Network) -> tuple[int, int]:
    """Images in a batch, and px of a side, that a file takes at most where they are free."""
    stride = network.plan.tap_info[FEATURES].stride or 1
    return MOST_IMAGES, max(SIDE, network.input.test, 6 * stride)


def _digest(value: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(value, np.float32).tobytes()).hexdigest()


def _axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of a weight of the plan in the order that XNNPACK has them: convs OHWI, those of one
    channel in each group IHWO, dense layers OI."""
    if len(shape) == 4:
        return (2, 0, 1, 3) if shape[2] == 1 else (3, 0, 1, 2)
    return tuple(reversed(range(len(shape))))


def _weights(network: Network) -> dict[str, Any]:
    owners = {q.name: op for op in network.folded.ops for q in op.parameters}
    found: dict[str, Any] = {}
    for name, value in network.weights():
        kept = not isinstance(owners[name], p.ECA | p.Residual)
        found[name] = _digest(value.transpose(_axes(value.shape))) if kept else value.tolist()
    return found


def write(path: Path, network: Network) -> Facts:
    """Write a network as a program of ExecuTorch.

    Raises:
        InputError: A choice is not offered by this format.
        OSError: It cannot be written.
    """
    about = network.metadata() | {WEIGHTS: json.dumps(_weights(network))}
    with _quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        program = format_torch.program_of(network, most(network))
        kinds = {op.kind for op in network.plan.ops if isinstance(op, p.Activation)}
        kinds |= {op.activation for op in network.plan.ops if isinstance(op, p.SqueezeExcite)}
        if "gelu_tanh" in kinds:
            program = program.run_decompositions({_aten_gelu(): _gelu})
        lowered = to_edge_transform_and_lower(
            program,
            partitioner=[XnnpackPartitioner()],
            constant_methods={METADATA: json.dumps(about)},
        )
        nodes = Counter(_kind(node) for node in lowered.exported_program().graph.nodes)
        made = lowered.to_executorch()
    with path.open("wb") as file:
        made.write_to_file(file)
    return Facts({kind: count for kind, count in nodes.items() if kind})


def _aten_gelu() -> Any:
    import torch

    return torch.ops.aten.gelu.default


def _gelu(x: Any, approximate: str = "none") -> Any:
    """GELU by its parts: XNNPACK's kernel has erf where tanh is asked for, in silence
    (executorch/backends/xnnpack/operators/op_gelu.py of 1.5.1 does not read `approximate`)."""
    if approximate != "tanh":
        return 0.5 * x * (1.0 + (x / math.sqrt(2.0)).erf())
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * (x * x * x))
    return 0.5 * x * (1.0 + inner.tanh())


def _kind(node: Any) -> str:
    """The kind of a node that computes; empty for others."""
    name = str(getattr(node.target, "__name__", node.target)).removesuffix(".default")
    return "" if node.op != "call_function" or name == "getitem" else name


def _data(path: Path) -> tuple[dict[str, Any], Mapping[str, bytes]]:
    """Metadata, and weights by their digests, of a file that is not run.

    Raises:
        InputError: It is no file of ExecuTorch.
        OSError: It is not a regular file that can be opened.
    """
    with _quiet():
        from executorch.exir._serialize._program import deserialize_pte_binary

    with opened(path) as file:
        data = file.read()
    try:
        held = deserialize_pte_binary(data)
        plans = {plan.name: plan.values for plan in held.program.execution_plan}
        text = next((each.val.string_val for each in plans.get(METADATA, ())), "{}")
        about = json.loads(text)
        named = held.named_data
        stored = {} if named is None else {**named.pte_data}
        weights = {key: bytes(named.buffers[each.buffer_index]) for key, each in stored.items()}
    except Exception as error:  # ExecuTorch raises many
        reason = reason_of(error)
        raise InputError(f"{path}: not a .pte file that can be read ({reason})") from None
    return about if isinstance(about, dict) else {}, weights


def load(path: Path) -> Run:
    """The file in ExecuTorch's runtime on the CPU.

    Raises:
        InputError: ExecuTorch cannot load it.
    """
    names = network_of(_data(path)[0], str(path)).settings.outputs
    import torch

    try:
        with _quiet():
            from executorch.runtime import Runtime as ExecuTorch
            from executorch.runtime import Verification

            whole = Verification.InternalConsistency
            method = ExecuTorch.get().load_program(path, verification=whole).load_method("forward")
    except Exception as error:  # ExecuTorch raises many
        reason = reason_of(error)
        raise InputError(f"{path}: ExecuTorch cannot load it ({reason})") from None

    def run(images: NDArray[Any]) -> Outputs:
        with _quiet():
            found = method.execute([torch.from_numpy(np.ascontiguousarray(images))])
        return {name: np.array(value) for name, value in zip(names, found, strict=True)}

    return run


def read(path: Path) -> Read:
    """Metadata and weights of a file.

    Raises:
        InputError: It is not a .pte file of nfspec.
        OSError: It is not a regular file that can be opened.
    """
    about, stored = _data(path)
    network = network_of(about, str(path))
    try:
        said = json.loads(about.get(WEIGHTS, "{}"))
        params = _params(network, said, stored)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = reason_of(error)
        raise InputError(f"{path}: its weights cannot be read ({reason})") from None
    return Read(network, params)


def _params(
    network: Network, said: Mapping[str, Any], stored: Mapping[str, bytes]
) -> dict[str, NDArray[Any]]:
    params = {}
    for op in network.folded.ops:
        for q in op.parameters:
            held = said[q.name]
            if isinstance(held, str):
                value: NDArray[Any] = np.frombuffer(stored[held], "<f4")
                axes = _axes(q.shape)
                value = value[: q.size].reshape([q.shape[axis] for axis in axes])
                value = value.transpose(np.argsort(axes))
            else:
                value = np.asarray(held)
            params[q.name] = np.array(value, np.float32).reshape(q.shape)
    return params


FORMAT = Format(
    name="executorch",
    suffix=".pte",
    summary="ExecuTorch with XNNPACK",
    packages=("torch", "executorch", "jinja2", "ruff"),
    command=f"{target_of('torch').command} executorch jinja2 ruff",
    write=write,
    read=read,
    parts=lambda path: [path],
    runtimes=(Runtime("executorch", "ExecuTorch", load),),
    least=2,
)
