"""TensorFlow's SavedModel: the folded plan in its operators, with the weights as variables.

A file is a folder, `NAME.savedmodel`. Its signature `serving_default` takes `images` and has the
outputs by name; `assets.extra/nfspec.json` has the metadata.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec import plan as p
from nfspec.backends.exporters.format import Facts, Format, Outputs, Read, Run, Runtime
from nfspec.backends.exporters.layout import narrow
from nfspec.backends.exporters.nhwc import Around, outputs_of
from nfspec.backends.exporters.settings import Network, network_of
from nfspec.errors import InputError
from nfspec.files import opened
from nfspec.plan.activations import SELU_ALPHA, SELU_SCALE
from nfspec.wording import reason_of

METADATA = Path("assets.extra", "nfspec.json")
GRAPH = "saved_model.pb"
# A graph of others may read and write any file of the user's: only these are run.
ARITHMETIC = frozenset(
    [
        "Abs",
        "AddV2",
        "AvgPool",
        "Cast",
        "Const",
        "Conv2D",
        "Elu",
        "Erf",
        "Erfc",
        "Fill",
        "Greater",
        "Identity",
        "LeakyRelu",
        "MatMul",
        "MaxPool",
        "Maximum",
        "Mean",
        "Mul",
        "Neg",
        "NoOp",
        "OnesLike",
        "Pack",
        "Pad",
        "PadV2",
        "PartitionedCall",
        "Placeholder",
        "ReadVariableOp",
        "RealDiv",
        "Relu",
        "Relu6",
        "SelectV2",
        "Shape",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "StatefulPartitionedCall",
        "StridedSlice",
        "Sub",
        "Tanh",
        "Transpose",
    ]
)
CHECKPOINTS = ("__inference__traced_save", "__inference__traced_restore")  # never run here
# Nothing that runs as it is loaded.
OBJECTS = frozenset({"user_object", "function", "bare_concrete_function", "variable"})


class TensorFlow:
    """TensorFlow's operators."""

    def convolve(self, x: Any, kernel: Any, stride: int, dilation: int, around: Around) -> Any:
        import tensorflow as tf

        rule: Any = "SAME" if around is None else [(0, 0), *around, (0, 0)]
        if around is not None and not any(map(any, around)):
            rule = "VALID"
        return tf.nn.conv2d(x, kernel, stride, rule, dilations=dilation)

    def pool(self, x: Any, op: p.Pool, around: Around) -> Any:
        import tensorflow as tf

        window, stride = op.window, op.stride
        rule = "SAME" if around is None else "VALID"
        pads = [(0, 0), *(around or [(0, 0)] * 2), (0, 0)]
        if op.kind == "max":
            x = tf.pad(x, pads, constant_values=x.dtype.min) if around else x
            return tf.nn.max_pool2d(x, window, stride, rule)
        if around is None or not any(map(any, around)):
            return tf.nn.avg_pool2d(x, window, stride, rule)
        if op.counted:
            return tf.nn.avg_pool2d(tf.pad(x, pads), window, stride, rule)
        counted = tf.nn.avg_pool2d(
            tf.pad(tf.ones_like(x[:1, :, :, :1]), pads), window, stride, rule
        )
        return tf.nn.avg_pool2d(tf.pad(x, pads), window, stride, rule) / counted

    def activate(self, kind: str, x: Any, slope: float) -> Any:
        import tensorflow as tf

        functions = {
            "identity": lambda x: x,
            "celu": tf.nn.elu,  # equal to elu at their usual alpha of 1
            "elu": tf.nn.elu,
            "gelu_erf": lambda x: tf.nn.gelu(x, approximate=False),
            "gelu_tanh": _gelu_tanh,
            "leaky_relu": lambda x: tf.nn.leaky_relu(x, slope),
            "log_sigmoid": lambda x: -tf.nn.softplus(-x),
            "relu": tf.nn.relu,
            "relu6": tf.nn.relu6,
            "selu": lambda x: SELU_SCALE * tf.where(x > 0.0, x, SELU_ALPHA * tf.nn.elu(x)),
            "sigmoid": tf.sigmoid,
            "silu": lambda x: x * tf.sigmoid(x),
            "soft_sign": tf.nn.softsign,
            "softplus": tf.nn.softplus,
            "tanh": tf.tanh,
        }
        return functions[kind](x)

    def mean(self, x: Any) -> Any:
        import tensorflow as tf

        return tf.reduce_mean(x, (1, 2))

    def slide(self, x: Any, kernel: Any) -> Any:
        import tensorflow as tf

        y = tf.nn.conv2d(x[:, :, None, None], kernel[:, None, None, None], 1, "SAME")
        return y[:, :, 0, 0]

    def cast(self, x: Any, dtype: str) -> Any:
        import tensorflow as tf

        return tf.cast(x, dtype)

    def transpose(self, x: Any, axes: tuple[int, ...]) -> Any:
        import tensorflow as tf

        return tf.transpose(x, axes)

    def scope(self, name: str) -> Any:
        import tensorflow as tf

        return tf.name_scope(name)


def _gelu_tanh(x: Any) -> Any:
    """TensorFlow's own computes a power, which its graphs do not simplify."""
    import tensorflow as tf

    return 0.5 * x * (1.0 + tf.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * (x * x * x))))


def module_of(network: Network) -> tuple[Any, Any]:
    """A tf.Module that holds the weights, and the concrete function of images."""
    import tensorflow as tf

    settings, plan = network.settings, network.plan
    kind = {"f32": tf.float32, "f16": tf.float16, "bf16": tf.bfloat16}[settings.dtype]
    holder = tf.Module(name="network")
    holder.weights = {}
    for name, value in network.weights():
        stored = tf.constant(narrow(value, settings.dtype))
        if settings.dtype == "bf16":
            stored = tf.bitcast(stored, tf.bfloat16)
        holder.weights[name] = tf.Variable(stored, trainable=False, name=name, dtype=kind)
    sides = settings.size or (None, None)
    inner = (*sides, plan.channels) if settings.layout == "nhwc" else (plan.channels, *sides)
    pixels = tf.uint8 if settings.preprocess else tf.float32
    given = tf.TensorSpec((settings.batch, *inner), pixels, name="images")
    arithmetic = tf.float16 if settings.dtype == "f16" else tf.float32

    @tf.function(input_signature=[given], autograph=False)  # type: ignore[untyped-decorator]
    def function(images: Any) -> Any:
        weights = {name: tf.cast(v, arithmetic) for name, v in holder.weights.items()}
        return outputs_of(network, TensorFlow(), weights, images)

    holder.function = function
    return holder, function.get_concrete_function()


def write(path: Path, network: Network) -> Facts:
    """Write a network as a folder.

    Raises:
        OSError: It cannot be written.
    """
    import tensorflow as tf

    holder, function = module_of(network)
    tf.saved_model.save(holder, str(path), signatures={"serving_default": function})
    room = path / METADATA
    room.parent.mkdir(exist_ok=True)
    room.write_text(json.dumps(network.metadata(), indent=1), encoding="utf-8")
    hidden = {"Const", "Placeholder", "ReadVariableOp", "NoOp", "Identity"}
    nodes = Counter(node.type for node in function.graph.get_operations())
    return Facts({kind: n for kind, n in nodes.items() if kind not in hidden}, tf.__version__)


def _metadata(path: Path) -> dict[str, str]:
    """The metadata beside a graph.

    Raises:
        InputError: There are none.
        OSError: They are not in a regular file that can be opened.
    """
    try:
        with opened(path / METADATA) as file:
            said = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {METADATA} in it is not JSON ({error})") from None
    if not isinstance(said, dict):
        raise InputError(f"{path}: {METADATA} in it is no table")
    return said


def _require_arithmetic(path: Path) -> None:
    """Refuse a graph that does more than nfspec's.

    Raises:
        InputError: It has other operators or objects, or is none.
        OSError: It is not a regular file that can be opened.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    with opened(path / GRAPH) as file:
        try:
            model.ParseFromString(file.read())
        except DecodeError:
            raise InputError(f"{path}: {GRAPH} in it is no graph of TensorFlow") from None
    for graph in model.meta_graphs:
        objects = {each.WhichOneof("kind") for each in graph.object_graph_def.nodes}
        strange = sorted(map(str, objects - OBJECTS))
        for function in graph.graph_def.library.function:
            if not function.signature.name.startswith(CHECKPOINTS):
                strange += [node.op for node in function.node_def if not _is_arithmetic(node)]
        if strange:
            raise InputError(
                f"{path}: it has {strange[0]}, which nfspec does not write; it is not run, since "
                "a graph of TensorFlow may read and write files"
            )


def _is_arithmetic(node: Any) -> bool:
    called = [each.func.name for each in node.attr.values() if each.HasField("func")]
    return node.op in ARITHMETIC and not any(name.startswith(CHECKPOINTS) for name in called)


def load(path: Path) -> Run:
    """The folder in TensorFlow on the CPU.

    Raises:
        InputError: TensorFlow cannot load it, or its graph has operators of others.
    """
    import tensorflow as tf

    _require_arithmetic(path)
    try:
        with tf.device("CPU"):
            loaded = tf.saved_model.load(str(path))
        function = loaded.signatures["serving_default"]
    except Exception as error:  # TensorFlow raises many
        reason = reason_of(error)
        raise InputError(f"{path}: TensorFlow cannot load it ({reason})") from None

    def run(images: NDArray[Any]) -> Outputs:
        found = function(images=tf.constant(images))
        return {name: value.numpy() for name, value in found.items()}

    return _Held(run, loaded)


class _Held:
    """A function that keeps alive what it runs: TensorFlow frees the variables of a module that
    nothing else holds."""

    def __init__(self, run: Run, held: Any):
        self.run, self.held = run, held

    def __call__(self, images: NDArray[Any]) -> Outputs:
        return self.run(images)


def read(path: Path) -> Read:
    """Metadata and weights of a folder, without its graph.

    Raises:
        InputError: It is not a SavedModel of nfspec.
        OSError: A file of it cannot be opened.
    """
    import tensorflow as tf

    network = network_of(_metadata(path), str(path))
    try:
        stored = tf.train.load_checkpoint(str(path / "variables" / "variables"))
        keys = stored.get_variable_to_shape_map()
    except Exception as error:  # TensorFlow raises many
        reason = reason_of(error)
        raise InputError(f"{path}: its variables cannot be read ({reason})") from None
    params = {}
    for name, parameter in network.folded.parameters.items():
        key = f"weights/{_escaped(name)}/.ATTRIBUTES/VARIABLE_VALUE"
        if tuple(keys.get(key, ("none",))) != parameter.shape:
            raise InputError(f"{path}: no weight {name} of shape {parameter.shape} in it")
        params[name] = np.asarray(stored.get_tensor(key)).astype(np.float32)
    return Read(network, params)


def _escaped(name: str) -> str:
    """A name as TensorFlow's checkpoints have it (trackable_utils.py: `escape_local_name`)."""
    return name.replace(".", "..").replace("/", ".S")


FORMAT = Format(
    name="savedmodel",
    suffix=".savedmodel",
    summary="TensorFlow's SavedModel, a folder",
    packages=("tensorflow",),
    command="pip install tensorflow",
    write=write,
    read=read,
    parts=lambda path: [path],
    runtimes=(Runtime("tensorflow", "TensorFlow", load),),
    marker=str(METADATA),
)
