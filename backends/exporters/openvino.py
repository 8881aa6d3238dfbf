"""OpenVINO's intermediate representation: the folded plan node by node, run by OpenVINO.

A file is two: `NAME.xml` has the graph, `NAME.bin` the weights. Within the graph images are
(N, C, H, W), and vectors of channels (N, C, 1, 1). The graph is built by OpenVINO's own functions
and not read from ONNX: its reader would compute the shapes of biases in the graph, and what takes
that out again merges weights, which `nfspec verify` reads by name.
"""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec import plan as p
from nfspec.backends.exporters.format import Batches, Facts, Format, Outputs, Read, Run, Runtime
from nfspec.backends.exporters.layout import narrow, places, wide
from nfspec.backends.exporters.nchw import Around, Sliding, walk
from nfspec.backends.exporters.quiet import quiet
from nfspec.backends.exporters.settings import IMAGES, Network, network_of
from nfspec.errors import InputError
from nfspec.files import opened
from nfspec.plan.activations import SELU_ALPHA, SELU_SCALE
from nfspec.plan.counting import shapes
from nfspec.wording import reason_of

ROOM = "nfspec"  # the part of the file's metadata that is ours

Node = Any
TELEMETRY = "openvino_telemetry"


def imported() -> Any:
    """The package `openvino`, without what sends its use to its makers.

    That would start a process as the package is imported, by a fork, which JAX warns of
    (openvino/tools/ovc/__init__.py of 2026.4, which does without where the module is absent).
    """
    if "openvino" in sys.modules or TELEMETRY in sys.modules:
        return importlib.import_module("openvino")
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[TELEMETRY]


# Activation to a function of OpenVINO's operators, a value and the slope of leaky_relu.
ACTIVATIONS: Mapping[str, Callable[[Any, Node, float], Node]] = {
    "identity": lambda ops, x, slope: x,
    "celu": lambda ops, x, slope: ops.elu(x, 1.0),
    "elu": lambda ops, x, slope: ops.elu(x, 1.0),
    "gelu_erf": lambda ops, x, slope: ops.gelu(x, "erf"),
    "gelu_tanh": lambda ops, x, slope: ops.gelu(x, "tanh"),
    "leaky_relu": lambda ops, x, slope: ops.prelu(x, _like(ops, x, [slope])),
    "log_sigmoid": lambda ops, x, slope: ops.negative(ops.softplus(ops.negative(x))),
    "relu": lambda ops, x, slope: ops.relu(x),
    "relu6": lambda ops, x, slope: ops.clamp(x, 0.0, 6.0),
    "selu": lambda ops, x, slope: ops.selu(x, _like(ops, x, SELU_ALPHA), _like(ops, x, SELU_SCALE)),
    "sigmoid": lambda ops, x, slope: ops.sigmoid(x),
    "silu": lambda ops, x, slope: ops.swish(x),
    "soft_sign": lambda ops, x, slope: ops.softsign(x),
    "softplus": lambda ops, x, slope: ops.softplus(x),
    "tanh": lambda ops, x, slope: ops.tanh(x),
}


def _like(ops: Any, x: Node, value: Any) -> Node:
    """A constant of the dtype of a value."""
    return ops.constant(np.asarray(value), x.get_element_type())


@dataclass
class OpenVINO:
    """OpenVINO's operators, one of its opsets, for `nchw.walk`."""

    ops: Any

    def convolve(
        self, x: Node, kernel: Node, bias: Node | None, how: Sliding, around: Around
    ) -> Node:
        before, after = around or ([0, 0], [0, 0])
        convolve = self.ops.convolution if how.groups == 1 else self.ops.group_convolution
        auto, apart = "explicit" if around else "same_upper", [how.dilation] * 2
        y = convolve(x, kernel, [how.stride] * 2, before, after, apart, auto)
        return y if bias is None else self.ops.add(y, bias)

    def pool(self, x: Node, op: p.Pool, around: Around) -> Node:
        before, after = around or ([0, 0], [0, 0])
        auto, sides = "explicit" if around else "same_upper", [op.window] * 2
        strides = [op.stride] * 2
        if op.kind == "max":
            how = {"rounding_type": "floor", "auto_pad": auto}
            pooled = self.ops.max_pool(x, strides, [1, 1], before, after, sides, **how)
            return pooled.output(0)  # the other one is the places of the largest
        apart = not op.counted  # True: padding is not counted
        return self.ops.avg_pool(x, strides, before, after, sides, apart, "floor", auto)

    def activate(self, kind: str, x: Node, slope: float) -> Node:
        return ACTIVATIONS[kind](self.ops, x, slope)

    def scale(self, x: Node, factor: float) -> Node:
        return self.ops.multiply(x, _like(self.ops, x, factor))

    def multiply(self, x: Node, y: Node) -> Node:
        return self.ops.multiply(x, y)

    def add(self, x: Node, y: Node) -> Node:
        return self.ops.add(x, y)

    def mean(self, x: Node, keep: bool) -> Node:
        return self.ops.reduce_mean(x, np.array([2, 3]), keep)

    def turn(self, x: Node) -> Node:
        return self.ops.transpose(x, np.array([0, 2, 1, 3]))

    def dense(self, x: Node, kernel: Node, bias: Node) -> Node:
        return self.ops.add(self.ops.matmul(x, kernel, False, False), bias)


def _shape(name: str, op: p.Operation, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a constant, of which `shape` is the form in `places`."""
    if isinstance(op, p.Convolution) and len(shape) == 4 and op.groups > 1:
        return (op.groups, shape[0] // op.groups, *shape[1:])
    if isinstance(op, p.Convolution | p.SqueezeExcite) and len(shape) == 1:
        return (1, *shape, 1, 1)
    return shape


def _owners(plan: p.Plan) -> dict[str, p.Operation]:
    return {q.name: op for op in plan.ops for q in op.parameters}


def _weights(network: Network, ov: Any, ops: Any) -> dict[str, Node]:
    found, owners, made = places(network.folded), _owners(network.folded), {}
    dtype = network.settings.dtype
    kind = {"f32": ov.Type.f32, "f16": ov.Type.f16, "bf16": ov.Type.bf16}[dtype]
    for name, value in network.weights():
        array = narrow(found[name].stored(value), dtype)
        shape = list(_shape(name, owners[name], array.shape))
        # A copy, since nothing else keeps the array. OpenVINO 2026.0 takes no array without axes.
        flat = array.reshape(-1)
        node = ov.op.Constant(ov.Tensor(flat, shape, kind), shared_memory=False)
        node.set_friendly_name(name)
        made[name] = ops.convert(node, "f32") if dtype == "bf16" else node
    return made


def _entry(network: Network, ov: Any, ops: Any) -> tuple[Node, Node]:
    """The input, and images as the first conv takes them."""
    settings, plan = network.settings, network.plan
    sides = list(settings.size or (-1, -1))
    nhwc = settings.layout == "nhwc"
    shape = [settings.batch or -1, *([*sides, plan.channels] if nhwc else [plan.channels, *sides])]
    given = ops.parameter(
        ov.PartialShape(shape), ov.Type.u8 if settings.preprocess else ov.Type.f32, name=IMAGES
    )
    given.output(0).get_tensor().set_names({IMAGES})
    x = given
    if settings.preprocess:
        how, around = network.input, [1, 1, 1, -1] if nhwc else [1, -1, 1, 1]
        mean = np.reshape(255.0 * np.asarray(how.mean), around)
        scale = np.reshape(1.0 / (255.0 * np.asarray(how.std)), around)
        x = ops.convert(x, "f32")
        x = ops.multiply(ops.subtract(x, _like(ops, x, mean)), _like(ops, x, scale))
    if settings.dtype == "f16":
        x = ops.convert(x, "f16")
    return given, ops.transpose(x, np.array([0, 3, 1, 2])) if nhwc else x


def _exit(network: Network, name: str, value: Node, ops: Any) -> Node:
    if network.plan.tap_info[name].stride is not None and network.settings.layout == "nhwc":
        value = ops.transpose(value, np.array([0, 2, 3, 1]))
    if network.settings.dtype == "f16":
        value = ops.convert(value, "f32")
    result = ops.result(value)
    result.output(0).get_tensor().set_names({name})
    return result


def model_of(network: Network) -> Any:
    """The network as an openvino.Model."""
    ov = imported()
    ops = ov.opset14

    plan, settings = network.folded, network.settings
    known = {} if settings.size is None else shapes(plan, *settings.size)
    given, x = _entry(network, ov, ops)
    values = walk(plan, OpenVINO(ops), _weights(network, ov, ops), known, x)
    results = [_exit(network, name, values[plan.taps[name]], ops) for name in settings.outputs]
    model = ov.Model(results, [given], network.plan.name)
    for key, value in network.metadata().items():
        model.set_rt_info(value, [ROOM, key])
    return model


def write(path: Path, network: Network) -> Facts:
    """Write a network as NAME.xml and NAME.bin.

    Raises:
        OSError: It cannot be written.
    """
    ov = imported()

    model = model_of(network)
    ov.save_model(model, path, compress_to_fp16=False)
    kinds = Counter(node.get_type_name() for node in model.get_ops())
    return Facts({kind: n for kind, n in kinds.items() if kind not in ("Constant", "Result")})


def quantise(path: Path, network: Network, batches: Batches) -> None:
    """Write a network in int8, by NNCF's quantisation after training.

    Raises:
        OSError: It cannot be written.
    """
    ov = imported()
    with quiet("nncf"):
        import nncf

        model = nncf.quantize(
            model_of(network), nncf.Dataset(list(batches())), subset_size=sum(1 for _ in batches())
        )
    ov.save_model(model, path, compress_to_fp16=False)


def load(path: Path) -> Run:
    """A file, OpenVINO's or ONNX, in OpenVINO on the CPU, in float32.

    Raises:
        InputError: OpenVINO cannot load it.
    """
    ov = imported()

    core = ov.Core()
    # Without it, OpenVINO computes in bfloat16 or float16 on a CPU that has them.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    try:
        compiled = core.compile_model(core.read_model(path), "CPU", exact)
    except RuntimeError as error:
        raise InputError(f"{path}: OpenVINO cannot load it: {error}") from None

    def run(images: NDArray[Any]) -> Outputs:
        found = compiled({IMAGES: images})
        # An output has the names of what was merged into it, too.
        return {name: np.array(v) for port, v in found.items() for name in port.get_names()}

    return run


def read(path: Path) -> Read:
    """Metadata and weights of a file.

    Raises:
        InputError: It is not an OpenVINO file of nfspec.
        OSError: It is not a regular file that can be opened.
    """
    ov = imported()

    opened(path).close()
    try:
        model = ov.Core().read_model(path)
    except RuntimeError as error:
        reason = reason_of(error)
        raise InputError(f"{path}: not an OpenVINO file that can be read ({reason})") from None
    said = {
        key: model.get_rt_info([ROOM, key]).astype(str)
        for key in (model.get_rt_info([ROOM]).astype(dict) if model.has_rt_info([ROOM]) else ())
    }
    network = network_of(said, str(path))
    if network.settings.quantised:
        return Read(network, {})
    constants = {
        node.get_friendly_name(): node
        for node in model.get_ops()
        if node.get_type_name() == "Constant"
    }
    folded, params = network.folded, {}
    for name, place in places(folded).items():
        if name not in constants or constants[name].data.size != np.prod(place.shape):
            raise InputError(f"{path}: no weight {name} of shape {place.shape} in it")
        value = constants[name].data
        if constants[name].get_element_type() == ov.Type.bf16:
            value = wide(value.view(np.uint16))
        value = value.astype(np.float32).reshape(place.shape)
        params[name] = place.restored(value, folded.parameters[name].shape)
    return Read(network, params)


def parts(path: Path) -> list[Path]:
    return [path, path.with_suffix(".bin")]


RUNTIME = Runtime("openvino", "OpenVINO", load)
FORMAT = Format(
    name="openvino",
    suffix=".xml",
    summary="OpenVINO, NAME.xml and NAME.bin",
    packages=("openvino",),
    command="pip install openvino",
    write=write,
    read=read,
    parts=parts,
    runtimes=(RUNTIME,),
    quantise=quantise,
)
