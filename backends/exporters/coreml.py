"""Core ML: the folded plan node by node as an ML program, a folder of Apple's.

Core ML runs on Apple's systems alone. The file is proved elsewhere by `mil.py`, which reads the
program as Apple's documentation of its operators says. That documentation has two different rules
for the padding `same` of a strided conv (coremltools 9, ops/defs/iOS15/conv.py), so that padding is
always in numbers here, and sides are fixed where it depends on them.
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
from nfspec.backends.exporters import mil
from nfspec.backends.exporters.format import Facts, Format, Outputs, Read, Run, Runtime
from nfspec.backends.exporters.layout import places
from nfspec.backends.exporters.nchw import Around, Sliding, walk
from nfspec.backends.exporters.quiet import quiet
from nfspec.backends.exporters.settings import IMAGES, Network, network_of
from nfspec.errors import InputError
from nfspec.plan.activations import SELU_ALPHA, SELU_SCALE
from nfspec.plan.counting import shapes

MARKER = "Manifest.json"
TENSORFLOW = "tensorflow"
MOST = (8, 1024)  # images, and px of a side, where they are free: Core ML wants a bound

Node = Any

# Activation to a function of the builder, a value and the slope of leaky_relu.
ACTIVATIONS: Mapping[str, Callable[[Any, Node, float], Node]] = {
    "identity": lambda mb, x, slope: x,
    "celu": lambda mb, x, slope: mb.elu(x=x, alpha=_like(x, 1.0)),
    "elu": lambda mb, x, slope: mb.elu(x=x, alpha=_like(x, 1.0)),
    "gelu_erf": lambda mb, x, slope: mb.gelu(x=x, mode="EXACT"),
    "gelu_tanh": lambda mb, x, slope: mb.gelu(x=x, mode="TANH_APPROXIMATION"),
    "leaky_relu": lambda mb, x, slope: mb.leaky_relu(x=x, alpha=_like(x, slope)),
    "log_sigmoid": lambda mb, x, slope: _negative(mb, mb.softplus(x=_negative(mb, x))),
    "relu": lambda mb, x, slope: mb.relu(x=x),
    "relu6": lambda mb, x, slope: mb.relu6(x=x),
    "selu": lambda mb, x, slope: mb.mul(
        x=mb.elu(x=x, alpha=_like(x, SELU_ALPHA)), y=_like(x, SELU_SCALE)
    ),
    "sigmoid": lambda mb, x, slope: mb.sigmoid(x=x),
    "silu": lambda mb, x, slope: mb.silu(x=x),
    "soft_sign": lambda mb, x, slope: mb.softsign(x=x),
    "softplus": lambda mb, x, slope: mb.softplus(x=x),
    "tanh": lambda mb, x, slope: mb.tanh(x=x),
}


def _like(x: Node, value: float) -> Any:
    """A number of the dtype of a value."""
    from coremltools.converters.mil.mil import types

    return types.nptype_from_builtin(x.dtype)(value)


def _negative(mb: Any, x: Node) -> Node:
    return mb.mul(x=x, y=_like(x, -1.0))


@dataclass
class CoreML:
    """Core ML's operators, through its builder, for `nchw.walk`."""

    mb: Any

    def convolve(
        self, x: Node, kernel: Node, bias: Node | None, how: Sliding, around: Around
    ) -> Node:
        given = {} if bias is None else {"bias": bias}
        steps = {"strides": [how.stride] * 2, "dilations": [how.dilation] * 2}
        return self.mb.conv(
            x=x, weight=kernel, groups=how.groups, **steps, **_padding(around), **given
        )

    def pool(self, x: Node, op: p.Pool, around: Around) -> Node:
        how = {"kernel_sizes": [op.window] * 2, "strides": [op.stride] * 2, **_padding(around)}
        if op.kind == "max":
            return self.mb.max_pool(x=x, **how)
        return self.mb.avg_pool(x=x, exclude_padding_from_average=not op.counted, **how)

    def activate(self, kind: str, x: Node, slope: float) -> Node:
        return ACTIVATIONS[kind](self.mb, x, slope)

    def scale(self, x: Node, factor: float) -> Node:
        return self.mb.mul(x=x, y=_like(x, factor))

    def multiply(self, x: Node, y: Node) -> Node:
        return self.mb.mul(x=x, y=y)

    def add(self, x: Node, y: Node) -> Node:
        return self.mb.add(x=x, y=y)

    def mean(self, x: Node, keep: bool) -> Node:
        return self.mb.reduce_mean(x=x, axes=[2, 3], keep_dims=keep)

    def turn(self, x: Node) -> Node:
        return self.mb.transpose(x=x, perm=[0, 2, 1, 3])

    def dense(self, x: Node, kernel: Node, bias: Node) -> Node:
        return self.mb.linear(x=x, weight=kernel, bias=bias)


def _padding(around: Around) -> dict[str, Any]:
    if around is None:
        raise InputError(
            "size: padding depends on the sides of images in this network, and Core ML documents "
            "two rules for that; give one size, such as --size 256"
        )
    before, after = around
    return {"pad_type": "custom", "pad": [before[0], after[0], before[1], after[1]]}


def _coremltools() -> Any:
    """The package, without what its import prints about modules that macOS alone has.

    It imports TensorFlow where that is installed, and does without where it is not. TensorFlow
    imports Keras, which could then run on no other framework in this process.
    """
    if "coremltools" in sys.modules or TENSORFLOW in sys.modules:
        with quiet("coremltools"):
            return importlib.import_module("coremltools")
    sys.modules[TENSORFLOW] = None  # type: ignore[assignment]
    try:
        with quiet("coremltools"):
            return importlib.import_module("coremltools")
    finally:
        del sys.modules[TENSORFLOW]


def _key(name: str) -> str:
    """A canonical name, or that of an output, as Core ML has it, whose names have no dots."""
    return name.replace(".", "_")


def _program(network: Network) -> Any:
    """The network as a MIL program of one function, `main`."""
    ct = _coremltools()
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Program, get_new_symbol, types

    plan, settings = network.folded, network.settings
    half = settings.dtype == "f16"
    known = {} if settings.size is None else shapes(plan, *settings.size)
    batch = settings.batch or get_new_symbol()
    sides = settings.size or (get_new_symbol(), get_new_symbol())
    shape = (batch, *_ordered(settings.layout, plan.channels, sides))
    given = {IMAGES: mb.placeholder(shape=shape, dtype=types.fp32)}
    with Function(given, opset_version=ct.target.iOS16) as function:
        x = function.inputs[IMAGES]
        if settings.preprocess:
            x = _normalised(network, mb, x)
        if half:
            x = mb.cast(x=x, dtype="fp16")
        if settings.layout == "nhwc":
            x = mb.transpose(x=x, perm=[0, 3, 1, 2])
        values = walk(plan, CoreML(mb), _weights(network, mb), known, x)
        outputs = []
        for name in settings.outputs:
            value = values[plan.taps[name]]
            if network.plan.tap_info[name].stride is not None and settings.layout == "nhwc":
                value = mb.transpose(x=value, perm=[0, 2, 3, 1])
            value = mb.cast(x=value, dtype="fp32") if half else mb.identity(x=value)
            outputs.append(value)
            value.name = f"output_{len(outputs) - 1}"
        function.set_outputs(outputs)
    program = Program()
    program.add_function("main", function)
    return program


def _ordered(layout: str, channels: int, sides: tuple[Any, Any]) -> tuple[Any, ...]:
    return (*sides, channels) if layout == "nhwc" else (channels, *sides)


def _normalised(network: Network, mb: Any, x: Node) -> Node:
    how = network.input
    mean, std = (np.asarray(each, np.float32).reshape(1, -1, 1, 1) for each in (how.mean, how.std))
    x = mb.sub(x=x, y=np.float32(255.0) * mean)
    return mb.mul(x=x, y=(1.0 / (255.0 * std)).astype(np.float32))


def _weights(network: Network, mb: Any) -> dict[str, Node]:
    """Canonical name to constant, in the form of `places`; the classifier's kernel as OI."""
    found, dense = places(network.folded), _classifiers(network.folded)
    kind = np.float16 if network.settings.dtype == "f16" else np.float32
    made = {}
    for name, value in network.weights():
        stored = found[name].stored(value).astype(kind)
        made[name] = mb.const(val=stored.T.copy() if name in dense else stored, name=_key(name))
    return made


def _classifiers(plan: p.Plan) -> set[str]:
    return {op.parameters[0].name for op in plan.ops if isinstance(op, p.Dense)}


def write(path: Path, network: Network) -> Facts:
    """Write a network as a folder.

    Raises:
        InputError: A choice is not offered by this format.
        OSError: It cannot be written.
    """
    settings, channels = network.settings, network.plan.channels
    if settings.dtype == "bf16":
        raise InputError("dtype: a file for Core ML is f32 or f16; found bf16")
    if settings.preprocess and (settings.batch, settings.layout) != (1, "nchw"):
        raise InputError(
            "preprocess: a file for Core ML then takes an image, which is one and has no layout; "
            "add --batch 1 --layout nchw"
        )
    if settings.preprocess and channels not in (1, 3):
        raise InputError(f"preprocess: an image of Core ML has 1 or 3 channels; found {channels}")
    ct = _coremltools()
    batch = settings.batch or ct.RangeDim(1, MOST[0])
    sides = settings.size or (ct.RangeDim(1, MOST[1]), ct.RangeDim(1, MOST[1]))
    shape = ct.Shape((batch, *_ordered(settings.layout, channels, sides)))
    if settings.preprocess:
        colours = ct.colorlayout.RGB if channels == 3 else ct.colorlayout.GRAYSCALE
        given = ct.ImageType(name=IMAGES, shape=shape, color_layout=colours)
    else:
        given = ct.TensorType(name=IMAGES, shape=shape)
    program = _program(network)
    with quiet("coremltools"):  # it has bars of progress
        model = ct.convert(
            program,
            source="milinternal",
            convert_to="mlprogram",
            inputs=[given],
            minimum_deployment_target=ct.target.iOS16,
            # Its own passes merge weights, and `read` wants them as they are; Core ML compiles
            # the program on the device all the same.
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        )
    spec = model.get_spec()
    for index, name in enumerate(settings.outputs):
        ct.utils.rename_feature(spec, f"output_{index}", _key(name), rename_inputs=False)
    spec.description.metadata.userDefined.update(network.metadata())
    made = ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)
    made.save(str(path))
    program = mil.main(spec, path)
    kinds = Counter(op.type for op in program.operations if op.type != "const")
    return Facts(kinds, f"coremltools {ct.__version__}")


def load(path: Path) -> Run:
    """The folder's program in NumPy, in float64.

    Raises:
        InputError: It is none, or it has operators that nfspec does not write.
        OSError: It cannot be read.
    """
    _coremltools()
    about = dict(mil.spec_of(path).description.metadata.userDefined)
    names = {_key(name): name for name in network_of(about, str(path)).settings.outputs}
    program = mil.Program.read(path)

    def run(images: NDArray[Any]) -> Outputs:
        return {names.get(name, name): value for name, value in program(images).items()}

    return run


def read(path: Path) -> Read:
    """Metadata and weights of a folder.

    Raises:
        InputError: It is not one of nfspec.
        OSError: It cannot be read.
    """
    _coremltools()
    spec = mil.spec_of(path)
    network = network_of(dict(spec.description.metadata.userDefined), str(path))
    constants = mil.constants(mil.main(spec, path), path)
    dense, params = _classifiers(network.folded), {}
    for name, place in places(network.folded).items():
        value: NDArray[Any] | None = constants.get(_key(name))
        if value is None or value.size != np.prod(place.shape):
            raise InputError(f"{path}: no weight {name} of shape {place.shape} in it")
        value = np.asarray(value, np.float32)
        value = value.reshape(place.shape[::-1]).T if name in dense else value.reshape(place.shape)
        params[name] = place.restored(value, network.folded.parameters[name].shape)
    return Read(network, params)


FORMAT = Format(
    name="coreml",
    suffix=".mlpackage",
    summary="Core ML's ML program, a folder",
    packages=("coremltools",),
    command="pip install coremltools",
    write=write,
    read=read,
    parts=lambda path: [path],
    runtimes=(Runtime("coremltools", "NumPy, by the documentation of coremltools", load),),
    marker=MARKER,
    note="Core ML itself, which only Apple's systems have, was not run.",
)
