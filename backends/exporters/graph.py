"""A folded plan as the nodes of an ONNX graph, without its weights.

Within the graph images are (N, C, H, W), and vectors of channels (N, C, 1, 1), so that nothing is
reshaped. SAME padding is `auto_pad = SAME_UPPER`, which is TensorFlow's rule, for any side; sides
that are known have their padding in numbers. The weights are inputs of the nodes under their
canonical names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from nfspec import plan as p
from nfspec.backends.exporters.layout import padding
from nfspec.backends.exporters.settings import IMAGES, Network
from nfspec.errors import InputError
from nfspec.plan.activations import SELU_ALPHA, SELU_SCALE
from nfspec.plan.counting import Shape, shapes


@dataclass
class Graph:
    """Nodes of a graph, and its constants that are no weights.

    Attributes:
        dtype: NumPy's name of the dtype that it computes in.
    """

    dtype: str
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def add(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, which has the node's name."""
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def constant(self, name: str, value: Any, dtype: str = "") -> str:
        array = np.asarray(value, dtype or self.dtype)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def times(self, name: str, x: str, factor: float) -> str:
        """A value times a number, which is left out where it is 1."""
        if factor == 1.0:
            return x
        return self.add("Mul", name, x, self.constant(f"{name}.factor", factor))

    def rename(self, old: str, new: str) -> None:
        """Give a value another name."""
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]


def _silu(graph: Graph, name: str, x: str) -> str:
    return graph.add("Mul", name, x, graph.add("Sigmoid", f"{name}.sigmoid", x))


def _log_sigmoid(graph: Graph, name: str, x: str) -> str:
    softplus = graph.add("Softplus", f"{name}.softplus", graph.add("Neg", f"{name}.neg", x))
    return graph.add("Neg", name, softplus)


def _relu6(graph: Graph, name: str, x: str) -> str:
    ends = (graph.constant(f"{name}.{end}", value) for end, value in (("low", 0), ("high", 6)))
    return graph.add("Clip", name, x, *ends)


# Activations that are one node: its kind and attributes. `celu` at its alpha of 1 is `elu`.
NODES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "celu": ("Elu", {}),
    "elu": ("Elu", {}),
    "gelu_erf": ("Gelu", {"approximate": "none"}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
    "selu": ("Selu", {"alpha": SELU_ALPHA, "gamma": SELU_SCALE}),
    "sigmoid": ("Sigmoid", {}),
    "soft_sign": ("Softsign", {}),
    "softplus": ("Softplus", {}),
    "tanh": ("Tanh", {}),
}
FUNCTIONS: Mapping[str, Callable[[Graph, str, str], str]] = {
    "log_sigmoid": _log_sigmoid,
    "relu6": _relu6,
    "silu": _silu,
}


def _activation(graph: Graph, kind: str, slope: float, name: str, x: str) -> str:
    if kind == "identity":
        return x
    if kind == "leaky_relu":
        return graph.add("LeakyRelu", name, x, alpha=slope)
    if kind in FUNCTIONS:
        return FUNCTIONS[kind](graph, name, x)
    node, attributes = NODES[kind]
    return graph.add(node, name, x, **attributes)


def _sliding(
    kernel: int, extent: int, op: p.Convolution | p.Pool, sides: Shape | None
) -> dict[str, Any]:
    """The attributes of what slides over an image: taps of a window, its side, and the arguments
    of `padding`."""
    how: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [op.stride] * 2}
    if isinstance(op, p.Convolution) and op.dilation > 1:
        how["dilations"] = [op.dilation] * 2
    around = padding(extent, op, sides)
    if around is None:
        return how | {"auto_pad": "SAME_UPPER"}
    return how | {"pads": [*around[0], *around[1]]}


@dataclass
class Reader:
    """One walk over a folded plan.

    Attributes:
        graph: Filled.
        sides: Operation to the shape of its output, where the sides of images are known.
    """

    graph: Graph
    sides: Mapping[str, Shape]

    def read(self, op: p.Operation, inputs: list[str]) -> str:
        """Add the nodes of an operation; returns the name of its value."""
        graph, x = self.graph, inputs[0]
        match op:
            case p.Conv():
                return self._conv(op, x)
            case p.Activation():
                before = op.beta_at == "before"
                x = graph.times(f"{op.name}.beta", x, op.beta if before else 1.0)
                y = _activation(graph, op.kind, op.slope, f"{op.name}.{op.kind}", x)
                return graph.times(op.name, y, op.gamma * (1.0 if before else op.beta))
            case p.Pool():
                how = _sliding(op.window, op.window, op, self.sides.get(op.inputs[0]))
                if op.kind == "max":
                    return graph.add("MaxPool", op.name, x, **how)
                if op.counted:
                    return self._counted(op, x, how)
                return graph.add("AveragePool", op.name, x, **how)
            case p.SqueezeExcite():
                return self._gated(op, x, self._squeeze_excite(op, x))
            case p.ECA():
                return self._gated(op, x, self._eca(op, x))
            case p.Residual():
                return self._residual(op, inputs)
            case p.GlobalPool():
                pooled = graph.add("GlobalAveragePool", f"{op.name}.mean", x)
                flat = graph.add("Flatten", f"{op.name}.flat", pooled)
                return graph.times(op.name, flat, op.scale)
            case p.Dense():
                return graph.add("Gemm", op.name, x, *(q.name for q in op.parameters))
            case p.WSConv() | p.StochasticDepth() | p.Dropout():
                raise InputError(f"{op.name}: fold the plan first; this has no place in a file")
            case _:
                raise p.unknown_operation(op, "nfspec.export")

    def _counted(self, op: p.Pool, x: str, how: dict[str, Any]) -> str:
        """An average that counts padding, which is more at the end: the same before, and cut off.

        ONNX Runtime before 1.25 divides by too little where padding differs
        (https://github.com/microsoft/onnxruntime/issues/26708).
        """
        before, after = how["pads"][0], how["pads"][2]
        how |= {"pads": [after] * 4, "count_include_pad": 1}
        pooled = self.graph.add("AveragePool", f"{op.name}.wide", x, **how)
        ends = np.iinfo(np.int64).max
        cut = [
            self.graph.constant(f"{op.name}.{name}", value, "int64")
            for name, value in (
                ("from", [after - before] * 2),
                ("to", [ends] * 2),
                ("axes", (2, 3)),
            )
        ]
        return self.graph.add("Slice", op.name, pooled, *cut)

    def _conv(self, op: p.Conv, x: str) -> str:
        names = (q.name for q in op.parameters)
        how = _sliding(op.kernel, op.extent, op, self.sides.get(op.inputs[0]))
        y = self.graph.add("Conv", op.name, x, *names, group=op.groups, **how)
        return _activation(self.graph, op.activation, op.slope, f"{op.name}.act", y)

    def _mean(self, op: p.SqueezeExcite | p.ECA, x: str) -> str:
        return self.graph.add("GlobalAveragePool", f"{op.name}.mean", x)

    def _squeeze_excite(self, op: p.SqueezeExcite, x: str) -> str:
        """The gate; its dense layers are convs of one pixel."""
        graph, (w0, b0, w1, b1) = self.graph, [q.name for q in op.parameters]
        one = {"kernel_shape": [1, 1]}
        y = graph.add("Conv", f"{op.name}.fc0", self._mean(op, x), w0, b0, **one)
        y = _activation(graph, op.activation, op.slope, f"{op.name}.act", y)
        y = graph.times(f"{op.name}.gamma", y, op.gamma)
        return graph.add("Conv", f"{op.name}.fc1", y, w1, b1, **one)

    def _eca(self, op: p.ECA, x: str) -> str:
        """The gate; the channels are the height of an image while the kernel slides over them."""
        graph, half = self.graph, op.kernel // 2
        how = {"kernel_shape": [op.kernel, 1], "pads": [half, 0, half, 0]}
        swap = {"perm": [0, 2, 1, 3]}
        y = graph.add("Transpose", f"{op.name}.column", self._mean(op, x), **swap)
        y = graph.add("Conv", f"{op.name}.conv", y, op.parameters[0].name, **how)
        return graph.add("Transpose", f"{op.name}.row", y, **swap)

    def _gated(self, op: p.SqueezeExcite | p.ECA, x: str, gate: str) -> str:
        gate = self.graph.add("Sigmoid", f"{op.name}.gate", gate)
        gate = self.graph.times(f"{op.name}.gain", gate, op.gain)
        return gate if op.gate_only else self.graph.add("Mul", op.name, x, gate)

    def _residual(self, op: p.Residual, inputs: list[str]) -> str:
        """The sum; what multiplies the branch multiplies its gate, where there is one."""
        graph, (branch, shortcut, *gates) = self.graph, inputs
        factor = gates[0] if gates else branch
        factor = graph.times(f"{op.name}.alpha", factor, op.alpha)
        for q in op.parameters:
            factor = graph.add("Mul", f"{op.name}.skip_gain", factor, q.name)
        if gates:
            factor = graph.add("Mul", f"{op.name}.branch", branch, factor)
        return graph.add("Add", op.name, factor, shortcut)


def graph_of(network: Network) -> tuple[Graph, ValueInfoProto, list[ValueInfoProto]]:
    """The graph of a network, its input and its outputs."""
    plan, settings = network.folded, network.settings
    graph = Graph("float16" if settings.dtype == "f16" else "float32")
    known = {} if settings.size is None else shapes(plan, *settings.size)
    reader = Reader(graph, known)
    values = {p.INPUT: _entry(graph, network)}
    for op in plan.ops:
        values[op.name] = reader.read(op, [values[name] for name in op.inputs])
    for name in settings.outputs:
        _exit(graph, network, name, values)
    kind = TensorProto.UINT8 if settings.preprocess else TensorProto.FLOAT
    image = (plan.channels, *(settings.size or ("height", "width")))
    if settings.dtype == "bf16":
        _widen(graph, plan)
    given = helper.make_tensor_value_info(IMAGES, kind, _dimensions(network, image))
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, _output_shape(network, name, known))
        for name in settings.outputs
    ]
    return graph, given, outputs


def _widen(graph: Graph, plan: p.Plan) -> None:
    """Cast weights, which are stored in bfloat16, to the dtype of the arithmetic."""
    casts = Graph(graph.dtype)
    for name in plan.parameters:
        graph.rename(name, casts.add("Cast", f"{name}.wide", name, to=TensorProto.FLOAT))
    graph.nodes[:0] = casts.nodes


def _entry(graph: Graph, network: Network) -> str:
    """Images as the first conv takes them."""
    settings, x = network.settings, IMAGES
    if settings.preprocess:
        how = network.input
        shape = (-1,) if settings.layout == "nhwc" else (-1, 1, 1)
        mean = 255.0 * np.reshape(how.mean, shape)
        scale = 1.0 / (255.0 * np.reshape(how.std, shape))
        x = graph.add("Cast", "pixels", x, to=TensorProto.FLOAT)
        x = graph.add("Sub", "centred", x, graph.constant("mean", mean, "float32"))
        x = graph.add("Mul", "normalised", x, graph.constant("scale", scale, "float32"))
    if settings.dtype == "f16":
        x = graph.add("Cast", "narrow", x, to=TensorProto.FLOAT16)
    if settings.layout == "nhwc":
        x = graph.add("Transpose", "nchw", x, perm=[0, 3, 1, 2])
    return x


def _exit(graph: Graph, network: Network, name: str, values: dict[str, str]) -> None:
    """Make a value an output under its tap's name."""

    def rename(old: str, new: str) -> None:
        graph.rename(old, new)
        values.update({op: new for op, known in values.items() if known == old})

    rename(name, f"{name}.inner")  # an operation may have the name of a tap
    value = values[network.folded.taps[name]]
    if network.plan.tap_info[name].stride is not None and network.settings.layout == "nhwc":
        value = graph.add("Transpose", f"{name}.nhwc", value, perm=[0, 2, 3, 1])
    if network.settings.dtype == "f16":
        value = graph.add("Cast", f"{name}.wide", value, to=TensorProto.FLOAT)
    rename(value, name)


def _dimensions(network: Network, image: tuple[int | str, ...]) -> list[int | str]:
    """The shape of images, (C, H, W) or (C,), with the batch and in the file's layout."""
    batch = network.settings.batch or "batch"
    if len(image) == 3 and network.settings.layout == "nhwc":
        image = (*image[1:], image[0])
    return [batch, *image]


def _output_shape(network: Network, name: str, known: Mapping[str, Shape]) -> list[int | str]:
    tap = network.plan.tap_info[name]
    if tap.stride is None:
        return _dimensions(network, (tap.channels,))
    sides = known.get(network.folded.taps[name], (f"{name}.height", f"{name}.width"))[:2]
    return _dimensions(network, (tap.channels, *sides))
