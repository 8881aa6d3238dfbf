"""StableHLO by `jax.export`: one program for CPUs, GPUs and TPUs, run by JAX from the file alone.

A file is a zip archive of `program.bin`, what `jax.export` serialises; `weights.safetensors`, by
canonical name; and `nfspec.json`, the metadata. The program is a function of the weights, a list in
the order of their names, and of images. Convs are those that each platform likes: XLA's CPU backend
has no fast grouped convs.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec import plan as p
from nfspec.backends.exporters.format import Facts, Format, Outputs, Read, Run, Runtime
from nfspec.backends.exporters.layout import narrow, wide
from nfspec.backends.exporters.nhwc import Around, outputs_of
from nfspec.backends.exporters.settings import Network, network_of
from nfspec.backends.padding import same_pads
from nfspec.errors import InputError
from nfspec.files import opened
from nfspec.wording import reason_of

PROGRAM, WEIGHTS, METADATA = "program.bin", "weights.safetensors", "nfspec.json"
# What `jax.export` writes for sides that are symbols: a message, where one of them cannot be.
ASSERTION = "stablehlo.custom_call @shape_assertion("
PLATFORMS = ("cpu", "cuda", "tpu")
KINDS = {"f32": "F32", "f16": "F16", "bf16": "BF16"}  # safetensors' names


class _Jax:
    """JAX's operators."""

    def convolve(self, x: Any, kernel: Any, stride: int, dilation: int, around: Around) -> Any:
        from jax import lax
        from jax import numpy as jnp

        groups = x.shape[3] // kernel.shape[2]
        extent = 1 + dilation * (kernel.shape[0] - 1)
        x, rule = _padded(x, extent, stride, around, 0.0)
        layout = ("NHWC", "HWIO", "NHWC")

        def conv(x: Any, kernel: Any, groups: int = 1) -> Any:
            steps, apart = (stride, stride), (dilation, dilation)
            return lax.conv_general_dilated(x, kernel, steps, rule, None, apart, layout, groups)

        def by_groups(x: Any, kernel: Any) -> Any:
            parts = zip(jnp.split(x, groups, 3), jnp.split(kernel, groups, 3), strict=True)
            return jnp.concatenate([conv(*part) for part in parts], 3)

        def grouped(x: Any, kernel: Any) -> Any:
            return conv(x, kernel, groups)

        if groups == 1:
            return conv(x, kernel)
        return lax.platform_dependent(x, kernel, cpu=by_groups, default=grouped)

    def pool(self, x: Any, op: p.Pool, around: Around) -> Any:
        from jax import lax
        from jax import numpy as jnp

        window, stride = op.window, op.stride

        def reduced(x: Any, start: float, by: Any) -> Any:
            x, rule = _padded(x, window, stride, around, start)
            pads = [(0, 0), *rule, (0, 0)]
            return lax.reduce_window(
                x, start, by, (1, window, window, 1), (1, stride, stride, 1), pads
            )

        if op.kind == "max":
            return reduced(x, -jnp.inf, lax.max)
        if op.counted:
            return reduced(x, 0.0, lax.add) / window**2
        return reduced(x, 0.0, lax.add) / reduced(jnp.ones_like(x[:1, :, :, :1]), 0.0, lax.add)

    def activate(self, kind: str, x: Any, slope: float) -> Any:
        from jax import nn
        from jax import numpy as jnp

        functions = {
            "identity": lambda x: x,
            "celu": nn.celu,
            "elu": nn.elu,
            "gelu_erf": lambda x: nn.gelu(x, approximate=False),
            "gelu_tanh": lambda x: nn.gelu(x, approximate=True),
            "leaky_relu": lambda x: nn.leaky_relu(x, slope),
            "log_sigmoid": nn.log_sigmoid,
            "relu": nn.relu,
            "relu6": nn.relu6,
            "selu": nn.selu,
            "sigmoid": nn.sigmoid,
            "silu": nn.silu,
            "soft_sign": nn.soft_sign,
            "softplus": nn.softplus,
            "tanh": jnp.tanh,
        }
        return functions[kind](x)

    def mean(self, x: Any) -> Any:
        return x.mean((1, 2))

    def slide(self, x: Any, kernel: Any) -> Any:
        from jax import lax

        layout = ("NHC", "HIO", "NHC")
        y = lax.conv_general_dilated(
            x[:, :, None], kernel[:, None, None], (1,), "SAME", None, None, layout
        )
        return y[:, :, 0]

    def cast(self, x: Any, dtype: str) -> Any:
        return x.astype(dtype)

    def transpose(self, x: Any, axes: tuple[int, ...]) -> Any:
        return x.transpose(axes)

    def scope(self, name: str) -> Any:
        import jax

        return jax.named_scope(name)


def _padded(x: Any, kernel: int, stride: int, around: Around, fill: float) -> tuple[Any, Any]:
    """An image, and the padding that is left for an operation to do, which takes numbers alone.

    JAX's own `SAME` makes another expression of a side that is a symbol than a strided conv, so
    that the two could not be added.
    """
    from jax import numpy as jnp

    if around is not None:
        return x, around
    pads = [same_pads(side, kernel, stride) for side in x.shape[1:3]]
    if all(isinstance(side, int) for side in x.shape[1:3]):
        return x, pads
    whole = [(0, 0), *pads, (0, 0)]
    return jnp.pad(x, whole, constant_values=fill), [(0, 0), (0, 0)]


def write(path: Path, network: Network) -> Facts:
    """Write a network as a zip archive.

    Raises:
        InputError: JAX cannot export it with free sizes.
        OSError: It cannot be written.
    """
    from jax import export

    exported = export.export(_function(network), platforms=PLATFORMS)(*_arguments(network))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(METADATA, json.dumps(network.metadata(), indent=1))
        archive.writestr(PROGRAM, exported.serialize())
        with archive.open(WEIGHTS, "w", force_zip64=True) as file:
            _write_weights(file, network)
    kinds = (line.partition(" = ")[2] for line in exported.mlir_module().splitlines())
    names = (kind.split("(")[0].split(" ")[0] for kind in kinds if kind.startswith("stablehlo."))
    nodes = Counter(name.removeprefix("stablehlo.").strip('"') for name in names)
    version = exported.calling_convention_version
    return Facts(nodes, f"jax.export, calling convention {version}")


def _function(network: Network) -> Any:
    import jax

    names = sorted(network.folded.parameters)
    dtype = "float16" if network.settings.dtype == "f16" else "float32"

    @jax.jit  # type: ignore[untyped-decorator]
    def function(weights: Any, images: Any) -> Any:
        cast = {name: value.astype(dtype) for name, value in zip(names, weights, strict=True)}
        return outputs_of(network, _Jax(), cast, images)

    return function


def _arguments(network: Network) -> tuple[Any, Any]:
    """Shapes and dtypes of the weights and of the images; free sizes are symbols."""
    import jax
    from jax import export

    settings, plan = network.settings, network.plan
    scope = export.SymbolicScope()
    sides = settings.size or export.symbolic_shape("height, width", scope=scope)
    (batch,) = (
        export.symbolic_shape("batch", scope=scope) if settings.batch is None else (settings.batch,)
    )
    inner = (*sides, plan.channels) if settings.layout == "nhwc" else (plan.channels, *sides)
    dtype = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}[settings.dtype]
    parameters = network.folded.parameters
    weights = [jax.ShapeDtypeStruct(parameters[name].shape, dtype) for name in sorted(parameters)]
    pixels = "uint8" if settings.preprocess else "float32"
    return weights, jax.ShapeDtypeStruct((batch, *inner), pixels)


def _write_weights(file: Any, network: Network) -> None:
    """The weights in safetensors' format, one after another."""
    dtype, start, header = network.settings.dtype, 0, {}
    parameters = network.folded.parameters
    for name, parameter in parameters.items():
        end = start + (4 if dtype == "f32" else 2) * parameter.size
        shape = list(parameter.shape)
        header[name] = {"dtype": KINDS[dtype], "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for expected, (name, value) in zip(parameters, network.weights(), strict=True):
        assert name == expected
        file.write(narrow(value, dtype).tobytes())


@dataclass(frozen=True)
class _Parts:
    """The three parts of a file, as they were read."""

    network: Network
    program: bytes
    weights: dict[str, NDArray[Any]]  # in the file's dtype, bfloat16 as its bits


def _parts(path: Path) -> _Parts:
    """The parts of a file.

    Raises:
        InputError: It is not a file of this format.
        OSError: It is not a regular file that can be opened.
    """
    size = path.stat().st_size
    try:
        with opened(path) as file, zipfile.ZipFile(file) as archive:
            members = {each.filename: each for each in archive.infolist()}
            # Stored as they are, no part is larger than the file.
            whole = [members[name] for name in (METADATA, PROGRAM, WEIGHTS)]
            if any(m.compress_type != zipfile.ZIP_STORED or m.file_size > size for m in whole):
                raise ValueError("a part of it is compressed")
            said, program, stored = (archive.read(member) for member in whole)
        metadata = json.loads(said)
        if not isinstance(metadata, dict):
            raise ValueError(f"{METADATA} is no table")
        network = network_of(metadata, str(path))
        return _Parts(network, program, _weights(stored, network))
    except InputError:
        raise
    except (zipfile.BadZipFile, LookupError, TypeError, ValueError, RecursionError) as error:
        reason = reason_of(error)
        raise InputError(f"{path}: not a .stablehlo file that can be read ({reason})") from None


def _weights(stored: bytes, network: Network) -> dict[str, NDArray[Any]]:
    """The arrays of safetensors' bytes, which have to be the network's.

    Raises:
        ValueError: They are not.
    """
    start = 8 + int.from_bytes(stored[:8], "little")
    header, dtype = json.loads(stored[8:start]), network.settings.dtype
    kind = {"f32": "<f4", "f16": "<f2", "bf16": "<u2"}[dtype]
    found = {}
    for name, parameter in network.folded.parameters.items():
        entry = header.get(name)
        if not entry or entry["dtype"] != KINDS[dtype] or entry["shape"] != list(parameter.shape):
            raise ValueError(f"no weight {name} of shape {parameter.shape} in it")
        first, end = entry["data_offsets"]
        array = np.frombuffer(stored[start + first : start + end], kind)
        found[name] = array.reshape(parameter.shape)
    return found


def load(path: Path) -> Run:
    """The file in JAX, on its own device.

    Raises:
        InputError: JAX cannot load it, or its program has calls of others.
    """
    import jax
    from jax import export

    parts = _parts(path)
    try:
        program = export.deserialize(bytearray(parts.program))
    except Exception as error:  # of flatbuffers, JAX and MLIR
        reason = reason_of(error)
        raise InputError(f"{path}: JAX cannot load its program ({reason})") from None
    _require_arithmetic(path, program)
    dtype = jax.numpy.bfloat16 if parts.network.settings.dtype == "bf16" else None
    weights = [
        jax.device_put(value.view(dtype) if dtype else value)
        for _, value in sorted(parts.weights.items())
    ]
    call = jax.jit(program.call)

    def run(images: NDArray[Any]) -> Outputs:
        return {name: np.asarray(value) for name, value in call(weights, images).items()}

    return run


def _require_arithmetic(path: Path, program: Any) -> None:
    """Refuse a program that calls what is not in it: such a call may be of any address in memory.

    Raises:
        InputError: It has such a call.
    """
    text = program.mlir_module()
    if text.count("stablehlo.custom_call") != text.count(ASSERTION):
        raise InputError(
            f"{path}: its program has a custom call, which nfspec does not write; it is not run"
        )


def read(path: Path) -> Read:
    """Metadata and weights of a file.

    Raises:
        InputError: It is not a .stablehlo file of nfspec.
        OSError: It is not a regular file that can be opened.
    """
    parts = _parts(path)
    narrowed = parts.network.settings.dtype == "bf16"
    params = {
        name: wide(value) if narrowed else value.astype(np.float32)
        for name, value in parts.weights.items()
    }
    return Read(parts.network, params)


FORMAT = Format(
    name="stablehlo",
    suffix=".stablehlo",
    summary="StableHLO by jax.export, for CPUs, GPUs and TPUs",
    packages=("jax",),
    command="pip install jax",
    write=write,
    read=read,
    parts=lambda path: [path],
    runtimes=(Runtime("jax", "JAX", load),),
)
