"""LiteRT (TensorFlow Lite): the folded plan, converted from TensorFlow's operators.

The converter may multiply constants into each other, so a few weights in a file are products of the
plan's: a pooled mean's scale with the classifier's kernel, gamma with the second kernel of
squeeze-and-excitation. `read` divides by them.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec import plan as p
from nfspec.backends.exporters import savedmodel
from nfspec.backends.exporters.format import Batches, Facts, Format, Outputs, Read, Run, Runtime
from nfspec.backends.exporters.settings import IMAGES, Network, network_of
from nfspec.errors import InputError
from nfspec.files import opened
from nfspec.plan.counting import parameter_count
from nfspec.plan.free_memory import FLOAT32
from nfspec.wording import reason_of

METADATA = b"nfspec"  # the key in the file's own table
IDENTIFIER = b"TFL3"
FLOAT = 0  # of the schema's TensorType
KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MUL")  # that have a plan's parameters
MOST = 2**31 - 2**24  # bytes: a flatbuffer's offsets are of 31 bits
SIGNATURE = "serving_default"


def write(path: Path, network: Network) -> Facts:
    """Write a network as a file of LiteRT.

    Raises:
        InputError: A choice is not offered by this format, or the weights are too many for it.
        OSError: It cannot be written.
    """
    settings = network.settings
    if settings.dtype != "f32":
        raise InputError(f"dtype: a file for LiteRT is f32; found {settings.dtype}")
    size = FLOAT32 * parameter_count(network.folded)
    if size > MOST:
        raise InputError(
            f"{network.plan.name}: a file for LiteRT has at most 2 GB, and these weights have "
            f"{size / 1e9:.1f} GB; export to onnx instead"
        )
    import tensorflow as tf

    return Facts(Counter(_kinds(_converted(path, network))), tf.__version__)


def quantise(path: Path, network: Network, batches: Batches) -> None:
    """Write a network in int8, by TensorFlow's converter; images and outputs stay float32.

    Raises:
        InputError: A choice is not offered by this format.
        OSError: It cannot be written.
    """
    _converted(path, network, batches)


def _converted(path: Path, network: Network, batches: Batches | None = None) -> Any:
    """Write what the converter makes of a network; returns its tables."""
    import tensorflow as tf

    holder, function = savedmodel.module_of(network)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], holder)
    if batches is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([images] for images in batches())
    model = _model(converter.convert())
    _add_metadata(model, json.dumps(network.metadata()).encode())
    path.write_bytes(_packed(model))
    return model


def _schema() -> Any:
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


def _model(data: bytes) -> Any:
    schema = _schema()
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))


def _packed(model: Any) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(2**20)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _add_metadata(model: Any, text: bytes) -> None:
    schema = _schema()
    held = schema.BufferT()
    held.data = np.frombuffer(text, np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = METADATA, len(model.buffers)
    model.buffers.append(held)
    model.metadata = [*(model.metadata or []), entry]


def _kinds(model: Any) -> Iterator[str]:
    """The kind of each operator."""
    operators = vars(_schema().BuiltinOperator).items()
    names = {value: name for name, value in operators if isinstance(value, int)}
    for graph in model.subgraphs:
        for each in graph.operators:
            yield names[model.operatorCodes[each.opcodeIndex].builtinCode]


def load(path: Path) -> Run:
    """The file in LiteRT on the CPU.

    Raises:
        InputError: LiteRT cannot load it.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from ai_edge_litert.interpreter import Interpreter

    try:
        runner = Interpreter(model_path=str(path)).get_signature_runner(SIGNATURE)
    except (ValueError, RuntimeError) as error:
        reason = reason_of(error)
        raise InputError(f"{path}: LiteRT cannot load it ({reason})") from None

    def run(images: NDArray[Any]) -> Outputs:
        found = runner(**{IMAGES: np.ascontiguousarray(images)})
        return {name: np.array(value) for name, value in found.items()}

    return run


def read(path: Path) -> Read:
    """Metadata and weights of a file.

    Raises:
        InputError: It is not a .tflite file of nfspec.
        OSError: It is not a regular file that can be opened.
    """
    with opened(path) as file:
        data = file.read()
    if data[4:8] != IDENTIFIER:
        raise InputError(f"{path}: not a .tflite file; expected one of nfspec export")
    try:
        model = _model(data)
        entries = {each.name: each.buffer for each in model.metadata or []}
        said = bytes(model.buffers[entries[METADATA]].data) if METADATA in entries else b"{}"
        metadata = json.loads(said)
        if not isinstance(metadata, dict):
            raise ValueError("its metadata are no table")
        network = network_of(metadata, str(path))
        return Read(network, {} if network.settings.quantised else _weights(model, network))
    except InputError:
        raise
    except Exception as error:  # a damaged flatbuffer leads to errors of many kinds
        reason = reason_of(error)
        raise InputError(f"{path}: not a .tflite file that can be read ({reason})") from None


@dataclass(frozen=True)
class _Product:
    """An operator of a file that multiplies by constants.

    Attributes:
        kind: Its kind.
        names: Names of its constants and its output, in which are those of the plan's operations.
        scaled: True if its input was multiplied by a number in the operator before it.
        constants: The constants, flat, in their order.
    """

    kind: str
    names: str
    scaled: bool
    constants: tuple[NDArray[Any], ...]


def _products(model: Any) -> list[_Product]:
    """The operators with float constants, in the file's order."""
    (graph,) = model.subgraphs
    kinds = list(_kinds(model))
    numbered = list(zip(kinds, graph.operators, strict=True))
    found: list[_Product] = []
    scaled = set()
    for kind, each in numbered:
        held = [graph.tensors[at] for at in each.inputs[1:] if at >= 0]
        arrays = [model.buffers[tensor.buffer].data for tensor in held if tensor.type == FLOAT]
        constants = tuple(
            np.frombuffer(np.asarray(data, np.uint8).tobytes(), "<f4")
            for data in arrays
            if data is not None and len(data)
        )
        if constants:
            named = [graph.tensors[at].name.decode() for at in (*each.inputs[1:], *each.outputs)]
            found.append(_Product(kind, ";".join(named), each.inputs[0] in scaled, constants))
            if kind == "MUL" and constants[0].size == 1:
                scaled.update(each.outputs)
    return found


def _weights(model: Any, network: Network) -> dict[str, NDArray[Any]]:
    """The plan's parameters.

    Raises:
        ValueError: One is not there.
    """
    products, found = _products(model), {}
    scales = {op.name: op.scale for op in network.folded.ops if isinstance(op, p.GlobalPool)}
    for op in network.folded.ops:
        if not op.parameters:
            continue
        own = [each for each in products if f"{op.name}/" in each.names and each.kind in KINDS]
        flat = [value for each in own for value in _divided(each, op, scales)]
        if isinstance(op, p.Residual):  # alpha, where it is not 1, stands before the skip gain
            flat = flat[-1:]
        for q in op.parameters:
            value = flat.pop(0) if flat else np.zeros(0)
            if value.size != q.size:
                raise ValueError(f"no weight {q.name} of shape {q.shape} in it")
            found[q.name] = _restored(value, q.shape).astype(np.float32)
    return found


def _divided(product: _Product, op: p.Operation, scales: Mapping[str, float]) -> list[NDArray[Any]]:
    """The constants of a product, without a factor that the converter multiplied into them."""
    kernel, *bias = product.constants
    factor = 1.0
    if product.kind == "FULLY_CONNECTED" and not product.scaled:
        if isinstance(op, p.Dense):
            factor = scales.get(op.inputs[0], 1.0)
        elif isinstance(op, p.SqueezeExcite) and "matmul_1" in product.names:
            factor = op.gamma
    return [kernel.astype(np.float64) / factor, *bias]


def _restored(value: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A constant in the plan's layout: convs are OHWI in a file, and matrices OI."""
    if len(shape) == 4:
        height, width, inputs, outputs = shape
        return value.reshape(outputs, height, width, inputs).transpose(1, 2, 3, 0)
    return value.reshape(shape[::-1]).T if len(shape) == 2 else value.reshape(shape)


FORMAT = Format(
    name="litert",
    suffix=".tflite",
    summary="LiteRT (TensorFlow Lite)",
    packages=("tensorflow", "ai_edge_litert"),
    command="pip install tensorflow ai-edge-litert",
    write=write,
    read=read,
    parts=lambda path: [path],
    runtimes=(Runtime("ai_edge_litert", "LiteRT", load),),
    quantise=quantise,
)
