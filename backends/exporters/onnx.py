"""ONNX: the folded plan node by node, run by onnxruntime and OpenVINO. No framework is imported.

The operators are those of the standard's opset alone. Two files of a network have equal bytes.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nfspec.backends.exporters import openvino
from nfspec.backends.exporters.format import Batches, Facts, Format, Outputs, Read, Run, Runtime
from nfspec.backends.exporters.layout import narrow, places
from nfspec.backends.exporters.quiet import quiet
from nfspec.backends.exporters.settings import IMAGES, Network, network_of
from nfspec.errors import InputError
from nfspec.files import opened
from nfspec.plan.counting import parameter_count
from nfspec.plan.free_memory import FLOAT32
from nfspec.wording import reason_of

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

MOST = 2**31 - 2**24  # bytes of weights in a file of one part
OPSET = 20  # the first with Gelu
IR_VERSION = 9  # of the same release, 1.15


def write(path: Path, network: Network) -> Facts:
    """Write a network as ONNX; weights of over 2 GB go to a second file, `PATH.data`.

    Raises:
        OSError: It cannot be written.
    """
    from nfspec.backends.exporters import protobuf

    model, tensors = without_weights(network)
    kinds = Counter(node.op_type for node in model.graph.node)
    protobuf.write(path, model, tensors, _values(network))
    return Facts(kinds, f"opset {OPSET}")


def without_weights(network: Network) -> tuple[ModelProto, list[TensorProto]]:
    """The model without its weights; and the name, shape and dtype of each weight."""
    from onnx import TensorProto, helper

    from nfspec.backends.exporters.graph import graph_of

    graph, given, outputs = graph_of(network)
    made = helper.make_graph(graph.nodes, network.plan.name, [given], outputs, graph.constants)
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="nfspec",
    )
    helper.set_model_props(model, network.metadata())
    kinds = {"f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
    kind = kinds.get(network.settings.dtype, TensorProto.FLOAT)
    return model, [
        TensorProto(name=name, dims=place.shape, data_type=kind)
        for name, place in places(network.folded).items()
    ]


def _values(network: Network) -> Iterator[NDArray[Any]]:
    """The weights one after another, as they are in the file."""
    found = places(network.folded)
    for name, value in network.weights():
        yield narrow(found[name].stored(value), network.settings.dtype)


def quantise(path: Path, network: Network, batches: Batches) -> None:
    """Write a network in int8, by onnxruntime's static quantisation: weights by channel.

    Raises:
        InputError: The weights are too many.
        OSError: It cannot be written.
    """
    size = FLOAT32 * parameter_count(network.folded)
    if size > MOST:
        raise InputError(
            f"{network.plan.name}: onnxruntime quantises networks of at most 2 GB, and these "
            f"weights have {size / 1e9:.1f} GB; export to openvino instead"
        )
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self.left = batches()

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            images = next(self.left, None)
            return None if images is None else {IMAGES: images}

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        whole = Path(folder, "float.onnx")
        write(whole, replace(network, settings=replace(network.settings, quantised="")))
        with quiet("root"):  # it advises to run a step that changes nothing here
            quantize_static(whole, path, Reader(), per_channel=True)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, network.metadata())
    onnx.save(model, path)


def load(path: Path) -> Run:
    """The file in onnxruntime on the CPU.

    Raises:
        InputError: onnxruntime cannot load it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # an error is raised, too
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own
        raise InputError(f"{path}: onnxruntime cannot load it: {error}") from None
    (given,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]

    def run(images: NDArray[Any]) -> Outputs:
        return dict(zip(names, session.run(names, {given.name: images}), strict=True))

    return run


def read(path: Path) -> Read:
    """Metadata and weights of a file.

    Raises:
        InputError: It is not an ONNX file of nfspec.
        OSError: It is not a regular file that can be opened.
    """
    import onnx

    opened(path).close()
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's and onnx's own
        reason = reason_of(error)
        raise InputError(f"{path}: not an ONNX file that can be read ({reason})") from None
    network = network_of({each.key: each.value for each in model.metadata_props}, str(path))
    if network.settings.quantised:
        return Read(network, {})
    folded, params = network.folded, {}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, place in places(folded).items():
        if name not in tensors or tuple(tensors[name].dims) != place.shape:
            raise InputError(f"{path}: no weight {name} of shape {place.shape} in it")
        value = onnx.numpy_helper.to_array(tensors[name]).astype(np.float32)
        params[name] = place.restored(value, folded.parameters[name].shape)
    return Read(network, params)


def parts(path: Path) -> list[Path]:
    beside = path.with_name(f"{path.name}.data")
    return [path, beside] if beside.exists() else [path]


RUNTIME = Runtime("onnxruntime", "onnxruntime", load)
FORMAT = Format(
    name="onnx",
    suffix=".onnx",
    summary=f"ONNX, opset {OPSET}",
    packages=("onnx", "onnxruntime"),
    command="pip install onnx onnxruntime",
    write=write,
    read=read,
    parts=parts,
    runtimes=(RUNTIME, openvino.RUNTIME),
    quantise=quantise,
)
