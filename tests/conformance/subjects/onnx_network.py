"""A network as an ONNX file, whose weights have the canonical names and layouts."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from nfspec import plan as p


class Graph:
    """Nodes of a graph, each of which makes one value."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def add(self, kind, *inputs, **attributes):
        name = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, value, dtype=np.float32):
        array = numpy_helper.from_array(np.asarray(value, dtype))
        return self.add("Constant", value=array)

    def conv(self, op, x):
        kernel, gain, bias = (q.name for q in op.parameters)
        mean = self.add("ReduceMean", kernel, self.constant([0, 1, 2], np.int64))
        centred = self.add("Sub", kernel, mean)
        square = self.add("Mul", centred, centred)
        power = self.add("ReduceSum", square, self.constant([0, 1, 2], np.int64))
        std = self.add("Sqrt", self.add("Max", power, self.constant(op.eps)))
        scale = self.add("Div", gain, std)
        weight = self.add("Transpose", self.add("Mul", centred, scale), perm=[3, 2, 0, 1])
        how = {"strides": [op.stride] * 2, "auto_pad": "SAME_UPPER", "group": op.groups}
        return self.add("Conv", x, weight, bias, kernel_shape=[op.kernel] * 2, **how)

    def silu(self, op, x):
        y = self.add("Mul", x, self.add("Sigmoid", x))
        return self.add("Mul", y, self.constant(op.gamma * op.beta))

    def attention(self, op, x):
        w0, b0, w1, b1 = (q.name for q in op.parameters)
        pooled = self.add("Flatten", self.add("GlobalAveragePool", x))
        hidden = self.add("Relu", self.add("Gemm", pooled, w0, b0))
        gate = self.add("Sigmoid", self.add("Gemm", hidden, w1, b1))
        gate = self.add("Unsqueeze", gate, self.constant([2, 3], np.int64))
        return self.add("Mul", self.add("Mul", x, gate), self.constant(op.gain))

    def operation(self, op, x):
        match op:
            case p.WSConv():
                return self.conv(op, x[0])
            case p.Activation(kind="silu"):
                return self.silu(op, x[0])
            case p.Pool(kind="avg", window=2):
                how = {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}
                return self.add("AveragePool", x[0], **how)
            case p.SqueezeExcite():
                return self.attention(op, x[0])
            case p.Residual():
                (gain,) = (q.name for q in op.parameters)
                scaled = self.add("Mul", self.add("Mul", x[0], gain), self.constant(op.alpha))
                return self.add("Add", scaled, x[1])
            case p.GlobalPool():
                return self.add("Flatten", self.add("GlobalAveragePool", x[0]))
            case p.Dense():
                return self.add("Gemm", x[0], *(q.name for q in op.parameters))
            case p.StochasticDepth() | p.Dropout():
                return x[0]


def onnx_file(plan):
    """The bytes of a network's file, with weights of zeros."""
    graph = Graph()
    values = {"input": graph.add("Transpose", "images", perm=[0, 3, 1, 2])}
    for op in plan.ops:
        values[op.name] = graph.operation(op, [values[name] for name in op.inputs])
    graph.nodes[-1].output[0] = "logits"
    sides = ["n", "height", "width", plan.channels]
    made = helper.make_graph(
        graph.nodes,
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, sides)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.zeros(q.shape, np.float32), q.name)
            for q in plan.parameters.values()
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()
