"""nfnet-f0 in Keras 3: a Normalizer-Free Network (Brock et al. 2021).

arXiv:2102.06171 table 1; deepmind-research/nfnets/{base,nfnet}.py
Written by nfspec from the spec with sha256 0989e2c25f67416b; needs Keras alone, on any of its
backends, yours to change. Images are (N, H, W, 3), of any size;
published: 192 px in training, 256 px in tests.

    model = NFNet()
    load_safetensors(model, "nfnet-f0.safetensors")
    model.compile(SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, labels)  # SGD clips gradients
"""

import json

import keras
import numpy as np
from keras import KerasTensor as Tensor
from keras import ops

Shape = tuple[int | None, ...]
register = keras.saving.register_keras_serializable("nfnet-f0")


def act(x: Tensor) -> Tensor:
    return 1.7015043497085571 * ops.gelu(x, approximate=True)  # variance 1 for x ~ N(0, 1)


def same(x: Tensor, size: int, stride: int) -> Tensor:
    """Pad as TensorFlow does: an odd pixel goes after. A side may be a symbol of a trace."""
    pads = [(0, 0)]
    for side in ops.shape(x)[1:3]:
        total = size + stride * ((side - 1) // stride) - side
        pads.append((total // 2, total - total // 2))
    return ops.pad(x, [*pads, (0, 0)])


class WSConv(keras.layers.Layer):
    """A conv whose kernel has mean 0 and norm `gain` for each output."""

    def __init__(self, out_chs: int, size: int, stride: int = 1, groups: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.out_chs, self.size, self.stride = out_chs, size, stride
        self.groups = groups

    def build(self, shape: Shape) -> None:
        inputs = shape[-1] // self.groups
        std = (self.size**2 * inputs) ** -0.5
        normal = keras.initializers.RandomNormal(stddev=std)
        kernel = (self.size, self.size, inputs, self.out_chs)
        self.kernel = self.add_weight(kernel, normal, name="kernel", autocast=False)
        self.gain = self.add_weight((self.out_chs,), "ones", name="gain", autocast=False)
        self.bias = self.add_weight((self.out_chs,), "zeros", name="bias")

    def standardised(self) -> Tensor:
        w = self.kernel - ops.mean(self.kernel, (0, 1, 2))
        variance = ops.sum(ops.square(w), (0, 1, 2))  # times fan-in
        return w * (self.gain * ops.rsqrt(ops.maximum(variance, 0.0001)))

    def call(self, x: Tensor) -> Tensor:
        kernel = ops.cast(self.standardised(), x.dtype)
        if self.size > 1:
            x = same(x, self.size, self.stride)
        return ops.conv(x, kernel, self.stride, "valid", "channels_last") + self.bias


def pool(x: Tensor) -> Tensor:
    """Means over 2x2 pixels; at the end of an odd side, over those that are there."""
    pixels = ops.ones_like(x[:1, :, :, :1])
    total, count = (
        ops.average_pool(same(t, 2, 2), 2, 2, "valid", "channels_last") for t in (x, pixels)
    )
    return total * ops.round(1 / count)  # 1, 2 or 4: a quotient might be rounded


class SqueezeExcite(keras.layers.Layer):
    def __init__(self, chs: int, hidden: int, **kwargs):
        super().__init__(**kwargs)
        normals = [keras.initializers.TruncatedNormal(stddev=n**-0.5) for n in (chs, hidden)]
        self.fc0 = keras.layers.Dense(hidden, kernel_initializer=normals[0], name="fc0")
        self.fc1 = keras.layers.Dense(chs, kernel_initializer=normals[1], name="fc1")

    def build(self, shape: Shape) -> None:
        self.fc0.build((None, shape[-1]))
        self.fc1.build((None, self.fc0.units))

    def call(self, x: Tensor) -> Tensor:
        hidden = ops.relu(self.fc0(ops.mean(x, (1, 2))))
        return 2.0 * ops.sigmoid(self.fc1(hidden))[:, None, None] * x


def stochastic_depth(x: Tensor, rate: float, seed: keras.random.SeedGenerator) -> Tensor:
    """Zero whole images with probability `rate`; the others are not rescaled."""
    kept = keras.random.uniform((ops.shape(x)[0], 1, 1, 1), seed=seed) >= rate
    return x * ops.cast(kept, x.dtype)


class Block(keras.layers.Layer):
    """`alpha * skip_gain * branch + shortcut`; beta makes the branch's input of unit variance."""

    def __init__(
        self, in_chs: int, mid_chs: int, out_chs: int, beta: float, stride: int = 1, **kwargs
    ):
        super().__init__(**kwargs)
        self.out_chs = out_chs
        self.beta = beta
        self.stride = stride
        self.drop_rate, self.seed = 0.0, keras.random.SeedGenerator()
        project = stride > 1 or in_chs != out_chs
        self.conv_shortcut = WSConv(out_chs, 1, name="conv_shortcut") if project else None
        self.conv0 = WSConv(mid_chs, 1, name="conv0")
        self.conv1 = WSConv(mid_chs, 3, stride, groups=mid_chs // 128, name="conv1")
        self.conv1b = WSConv(mid_chs, 3, groups=mid_chs // 128, name="conv1b")
        self.conv2 = WSConv(out_chs, 1, name="conv2")
        self.se = SqueezeExcite(out_chs, mid_chs, name="se")

    def build(self, shape: Shape) -> None:
        middle = (*shape[:3], self.conv0.out_chs)
        self.conv0.build(shape)
        for conv in (self.conv1, self.conv1b, self.conv2):
            conv.build(middle)
        if self.conv_shortcut is not None:
            self.conv_shortcut.build(shape)
        self.se.build((*shape[:3], self.out_chs))
        self.skip_gain = self.add_weight((), "zeros", name="skip_gain")

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        out = self.beta * act(x)
        shortcut = x
        if self.conv_shortcut is not None:
            shortcut = self.conv_shortcut(pool(out) if self.stride > 1 else out)
        out = self.conv1b(act(self.conv1(act(self.conv0(out)))))
        out = self.conv2(act(out))
        out = self.se(out)
        if training and self.drop_rate > 0:
            out = stochastic_depth(out, self.drop_rate, self.seed)
        return (0.2 * self.skip_gain) * out + shortcut


@register
class NFNet(keras.Model):
    def __init__(
        self,
        classes: int = 1000,
        channels: int = 3,
        drop_rate: float = 0.2,
        drop_path_rate: float = 0.25,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.arguments = {
            "classes": classes,
            "channels": channels,
            "drop_rate": drop_rate,
            "drop_path_rate": drop_path_rate,
        }
        self.stem = [
            WSConv(16, 3, 2, name="stem-conv0"),
            WSConv(32, 3, name="stem-conv1"),
            WSConv(64, 3, name="stem-conv2"),
            WSConv(128, 3, 2, name="stem-conv3"),
        ]
        self.blocks = [
            Block(128, 128, 256, beta=1.0, name="stages-0-blocks-0"),
            Block(256, 256, 512, beta=0.9805806756909201, stride=2, name="stages-1-blocks-0"),
            Block(512, 256, 512, beta=0.9805806756909201, name="stages-1-blocks-1"),
            Block(512, 768, 1536, beta=0.9622504486493761, stride=2, name="stages-2-blocks-0"),
            Block(1536, 768, 1536, beta=0.9805806756909201, name="stages-2-blocks-1"),
            Block(1536, 768, 1536, beta=0.9622504486493761, name="stages-2-blocks-2"),
            Block(1536, 768, 1536, beta=0.9449111825230679, name="stages-2-blocks-3"),
            Block(1536, 768, 1536, beta=0.9284766908852592, name="stages-2-blocks-4"),
            Block(1536, 768, 1536, beta=0.9128709291752768, name="stages-2-blocks-5"),
            Block(1536, 768, 1536, beta=0.8980265101338745, stride=2, name="stages-3-blocks-0"),
            Block(1536, 768, 1536, beta=0.9805806756909201, name="stages-3-blocks-1"),
            Block(1536, 768, 1536, beta=0.9622504486493761, name="stages-3-blocks-2"),
        ]
        for i, block in enumerate(self.blocks):
            block.drop_rate = drop_path_rate * i / 12
        self.final_conv = WSConv(3072, 1, name="final_conv")
        self.dropout = keras.layers.Dropout(drop_rate)
        normal = keras.initializers.RandomNormal(stddev=0.01)
        self.fc = keras.layers.Dense(classes, kernel_initializer=normal, name="head-fc")
        self.build((None, None, None, channels))

    def build(self, shape: Shape) -> None:
        for layer in (*self.stem, *self.blocks, self.final_conv):
            layer.build(shape)
            shape = (None, None, None, layer.out_chs)
        self.fc.build((None, shape[-1]))

    def features(self, x: Tensor, training: bool = False) -> Tensor:
        """The activations that are pooled, (N, H, W, 3072)."""
        x = self.stem[0](x)
        x = self.stem[1](act(x))
        x = self.stem[2](act(x))
        x = self.stem[3](act(x))
        for block in self.blocks:
            x = block(x, training=training)
        return act(self.final_conv(x))

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        x = ops.mean(self.features(x, training), (1, 2))
        return self.fc(self.dropout(x, training=training))

    def get_config(self) -> dict:
        return {**super().get_config(), **self.arguments}


def canonical(variable: keras.Variable) -> str:
    """The name in nfspec: `stem.conv0.kernel` for `.../stem-conv0/kernel`."""
    return variable.path.partition("/")[2].replace("/", ".").replace("-", ".")


def load_safetensors(model: keras.Model, path: str) -> None:
    """Load a safetensors file with nfspec's names and layouts (HWIO, IO)."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    header.pop("__metadata__", None)
    own = {canonical(variable): variable for variable in model.weights}
    found = {(name, *entry["shape"]) for name, entry in header.items()}
    if wrong := found ^ {(name, *variable.shape) for name, variable in own.items()}:
        raise ValueError(f"{path} has other arrays than the model: {sorted(wrong)[:9]}")
    for name, entry in header.items():
        values = np.frombuffer(data[slice(*entry["data_offsets"])], "<f4")
        own[name].assign(values.reshape(entry["shape"]))


def export(model: keras.Model, path: str) -> None:
    """Write a SavedModel for any number and size of images, whose output is called `logits`."""
    archive = keras.export.ExportArchive()
    archive.track(model)
    shape = (None, None, None, model.arguments["channels"])
    images = keras.InputSpec(dtype="float32", shape=shape, name="images")
    archive.add_endpoint(
        "serve", lambda images: {"logits": model(images, training=False)}, [images]
    )
    archive.write_out(path)


def clip_gradient(
    gradient: Tensor, variable: keras.Variable, clipping: float = 0.01, eps: float = 0.001
) -> Tensor:
    """Adaptive gradient clipping (Brock et al. 2021, section 4.1)."""
    if canonical(variable) == "head.fc.kernel":
        return gradient
    by_output = sum(n > 1 for n in variable.shape) > 1
    axes = tuple(range(len(variable.shape) - 1)) if by_output else None  # by output, or whole
    tensors = (ops.convert_to_tensor(variable), gradient)
    norm, grad = (ops.sqrt(ops.sum(ops.square(t), axes, keepdims=True)) for t in tensors)
    limit = clipping * ops.maximum(norm, eps)
    return gradient * ops.where(grad > limit, limit / ops.maximum(grad, 1e-6), 1.0)


@register
class SGD(keras.optimizers.SGD):
    """Keras's SGD on clipped gradients; another optimizer's subclass takes the same method."""

    def apply(self, grads: list, trainable_variables: list | None = None) -> None:
        variables = trainable_variables or self._trainable_variables
        pairs = zip(grads, variables, strict=True)
        clipped = [None if g is None else clip_gradient(g, v) for g, v in pairs]
        super().apply(clipped, trainable_variables)
