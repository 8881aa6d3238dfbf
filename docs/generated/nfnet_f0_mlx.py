"""nfnet-f0 in plain MLX: a Normalizer-Free Network (Brock et al. 2021).

arXiv:2102.06171 table 1; deepmind-research/nfnets/{base,nfnet}.py
Written by nfspec from the spec with sha256 0989e2c25f67416b; needs MLX alone, yours to change.
Images are (N, H, W, 3); published: 192 px in training, 256 px in tests.

    model = NFNet()
    load_weights(model, "nfnet-f0.safetensors")
    loss, gradients = nn.value_and_grad(model, loss_fn)(model, images, labels)
    optimizer.update(model, clip_gradients(model, gradients))  # a step of training
"""

import math

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_map_with_path


def act(x: mx.array) -> mx.array:
    return 1.7015043497085571 * nn.gelu_approx(x)  # variance 1 for x ~ N(0, 1)


def same(x: mx.array, kernel: int, stride: int) -> mx.array:
    """Pad as TensorFlow does: an odd pixel goes after."""
    pads = [(0, 0)]
    for side in x.shape[1:3]:
        total = kernel + stride * ((side - 1) // stride) - side
        pads.append((total // 2, total - total // 2))
    return mx.pad(x, [*pads, (0, 0)])


class WSConv2d(nn.Module):
    """A conv whose weight has mean 0 and norm `gain` for each output."""

    def __init__(self, in_chs: int, out_chs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.groups = groups
        shape = (out_chs, kernel, kernel, in_chs // groups)
        self.weight = mx.random.normal(shape, scale=math.prod(shape[1:]) ** -0.5)
        self.gain = mx.ones((out_chs,))
        self.bias = mx.zeros((out_chs,))

    def standardised(self) -> mx.array:
        w = self.weight.astype(mx.float32)
        w = w - w.mean((1, 2, 3), keepdims=True)
        variance = w.square().sum((1, 2, 3), keepdims=True)  # times fan-in
        scale = mx.rsqrt(mx.maximum(variance, 0.0001)) * self.gain[:, None, None, None]
        return (w * scale).astype(self.weight.dtype)

    def __call__(self, x: mx.array) -> mx.array:
        if self.kernel > 1:
            x = same(x, self.kernel, self.stride)
        weight = self.standardised()
        return mx.conv2d(x, weight, self.stride, groups=self.groups) + self.bias


def pool(x: mx.array) -> mx.array:
    """Means over 2x2 pixels; the edge of an odd side is repeated, and so counts by itself."""
    height, width = x.shape[1:3]
    x = mx.pad(x, [(0, 0), (0, height % 2), (0, width % 2), (0, 0)], "edge")
    return mx.unflatten(mx.unflatten(x, 2, (-1, 2)), 1, (-1, 2)).mean((2, 4))


class SqueezeExcite(nn.Module):
    def __init__(self, chs: int, hidden: int):
        super().__init__()
        self.fc0, self.fc1 = nn.Linear(chs, hidden), nn.Linear(hidden, chs)
        for fc in (self.fc0, self.fc1):
            std = fc.weight.shape[1] ** -0.5
            fc.weight = std * mx.random.truncated_normal(-2, 2, fc.weight.shape)
            fc.bias = mx.zeros_like(fc.bias)

    def __call__(self, x: mx.array) -> mx.array:
        hidden = nn.relu(self.fc0(x.mean((1, 2))))
        return 2.0 * mx.sigmoid(self.fc1(hidden))[:, None, None] * x


def stochastic_depth(x: mx.array, rate: float) -> mx.array:
    """Zero whole images with probability `rate`; the others are not rescaled."""
    return x * mx.random.bernoulli(1 - rate, (x.shape[0], 1, 1, 1))


class Block(nn.Module):
    """`alpha * skip_gain * branch + shortcut`; beta makes the branch's input of unit variance."""

    def __init__(self, in_chs: int, mid_chs: int, out_chs: int, beta: float, stride: int = 1):
        super().__init__()
        self.beta = beta
        self.stride = stride
        self.drop_rate = 0.0
        project = stride > 1 or in_chs != out_chs
        self.conv_shortcut = WSConv2d(in_chs, out_chs, 1) if project else None
        self.conv0 = WSConv2d(in_chs, mid_chs, 1)
        self.conv1 = WSConv2d(mid_chs, mid_chs, 3, stride, groups=mid_chs // 128)
        self.conv1b = WSConv2d(mid_chs, mid_chs, 3, groups=mid_chs // 128)
        self.conv2 = WSConv2d(mid_chs, out_chs, 1)
        self.se = SqueezeExcite(out_chs, mid_chs)
        self.skip_gain = mx.array(0.0)

    def __call__(self, x: mx.array) -> mx.array:
        out = self.beta * act(x)
        shortcut = x
        if self.conv_shortcut is not None:
            shortcut = self.conv_shortcut(pool(out) if self.stride > 1 else out)
        out = self.conv1b(act(self.conv1(act(self.conv0(out)))))
        out = self.conv2(act(out))
        out = self.se(out)
        if self.training and self.drop_rate > 0:
            out = stochastic_depth(out, self.drop_rate)
        return (0.2 * self.skip_gain) * out + shortcut


class Stage(nn.Module):
    def __init__(self, *blocks: Block):
        super().__init__()
        self.blocks = list(blocks)

    def __call__(self, x: mx.array) -> mx.array:
        for block in self.blocks:
            x = block(x)
        return x


class NFNet(nn.Module):
    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.2,
        drop_path_rate: float = 0.25,
    ):
        super().__init__()
        self.stem = {
            "conv0": WSConv2d(in_chans, 16, 3, 2),
            "conv1": WSConv2d(16, 32, 3),
            "conv2": WSConv2d(32, 64, 3),
            "conv3": WSConv2d(64, 128, 3, 2),
        }
        self.stages = [
            Stage(Block(128, 128, 256, beta=1.0)),
            Stage(
                Block(256, 256, 512, beta=0.9805806756909201, stride=2),
                Block(512, 256, 512, beta=0.9805806756909201),
            ),
            Stage(
                Block(512, 768, 1536, beta=0.9622504486493761, stride=2),
                Block(1536, 768, 1536, beta=0.9805806756909201),
                Block(1536, 768, 1536, beta=0.9622504486493761),
                Block(1536, 768, 1536, beta=0.9449111825230679),
                Block(1536, 768, 1536, beta=0.9284766908852592),
                Block(1536, 768, 1536, beta=0.9128709291752768),
            ),
            Stage(
                Block(1536, 768, 1536, beta=0.8980265101338745, stride=2),
                Block(1536, 768, 1536, beta=0.9805806756909201),
                Block(1536, 768, 1536, beta=0.9622504486493761),
            ),
        ]
        for i, block in enumerate(block for stage in self.stages for block in stage.blocks):
            block.drop_rate = drop_path_rate * i / 12
        self.final_conv = WSConv2d(1536, 3072, 1)
        self.dropout = nn.Dropout(drop_rate)
        self.head = {"fc": nn.Linear(3072, num_classes)}
        fc = self.head["fc"]
        fc.weight = mx.random.normal(fc.weight.shape, scale=0.01)
        fc.bias = mx.zeros_like(fc.bias)

    def features(self, x: mx.array) -> mx.array:
        """The activations that are pooled, (N, H, W, 3072)."""
        x = self.stem["conv0"](x)
        x = self.stem["conv1"](act(x))
        x = self.stem["conv2"](act(x))
        x = self.stem["conv3"](act(x))
        for stage in self.stages:
            x = stage(x)
        return act(self.final_conv(x))

    def __call__(self, x: mx.array) -> mx.array:
        x = self.features(x).mean((1, 2))
        return self.head["fc"](self.dropout(x))


def load_weights(model: nn.Module, path: str) -> None:
    """Load a safetensors file with nfspec's names and layouts (HWIO, IO)."""
    weights = []
    for name, values in mx.load(path).items():
        if name.endswith(".kernel"):
            name = name.removesuffix("kernel") + "weight"
            values = values.swapaxes(-1, -2) if values.ndim > 1 else values
            values = mx.moveaxis(values, -2, 0) if values.ndim > 2 else values
        weights.append((name, values))
    model.load_weights(weights)


def clip_gradients(
    model: nn.Module, gradients: dict, clipping: float = 0.01, eps: float = 0.001
) -> dict:
    """Adaptive gradient clipping (Brock et al. 2021, section 4.1)."""

    def clip(name: str, g: mx.array, p: mx.array) -> mx.array:
        if name == "head.fc.weight":
            return g
        axes = tuple(range(1, p.ndim)) if p.squeeze().ndim > 1 else None  # by output, or whole
        norm, grad = (mx.sqrt(t.square().sum(axes, keepdims=True)) for t in (p, g))
        limit = clipping * mx.maximum(norm, eps)
        return g * mx.where(grad > limit, limit / mx.maximum(grad, 1e-6), 1.0)

    return tree_map_with_path(clip, gradients, model.trainable_parameters())
