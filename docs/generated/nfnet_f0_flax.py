"""nfnet-f0 in Flax NNX: a Normalizer-Free Network (Brock et al. 2021).

arXiv:2102.06171 table 1; deepmind-research/nfnets/{base,nfnet}.py
Written by nfspec from the spec with sha256 0989e2c25f67416b; needs Flax alone, yours to change.
Images are (N, H, W, 3) of the dtype to compute in; published: 192 px in training, 256 in tests.

    model = NFNet(rngs=nnx.Rngs(0))  # to train; model.eval() is for inference
    load_weights(model, "nfnet-f0.safetensors")
    rule = optax.chain(optax.stateless(clip_gradients), optax.sgd(0.1))
    optimizer = nnx.Optimizer(model, rule, wrt=nnx.Param)
"""

import json
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax


def act(x: Array) -> Array:
    return 1.7015043497085571 * jax.nn.gelu(x)  # variance 1 for x ~ N(0, 1)


def average_pool(x: Array) -> Array:
    """Means of 2x2 windows; the last of an odd side is cut short."""
    window = ((1, 2, 2, 1), (1, 2, 2, 1), "SAME")
    count = lax.reduce_window(jnp.ones_like(x[:1, :, :, :1]), 0.0, lax.add, *window)
    return lax.reduce_window(x, 0.0, lax.add, *window) / count


class WSConv(nnx.Module):
    """A conv by a kernel of mean 0 and norm `gain` for each output."""

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        *,
        rngs: nnx.Rngs,
    ):
        shape = (kernel, kernel, in_chs // groups, out_chs)
        std = math.prod(shape[:3]) ** -0.5
        self.kernel = nnx.Param(std * rngs.params.normal(shape))
        self.gain = nnx.Param(jnp.ones(out_chs))
        self.bias = nnx.Param(jnp.zeros(out_chs))
        self.stride = stride

    def __call__(self, x: Array) -> Array:
        w = self.kernel[...].astype(jnp.float32)
        w -= w.mean((0, 1, 2))
        variance = jnp.square(w).sum((0, 1, 2))  # times fan-in
        w *= self.gain[...] * lax.rsqrt(jnp.maximum(variance, 0.0001))
        layout, groups = ("NHWC", "HWIO", "NHWC"), x.shape[3] // w.shape[2]
        strides, w = (self.stride, self.stride), w.astype(x.dtype)

        def run(x: Array, w: Array, groups: int = 1) -> Array:
            return lax.conv_general_dilated(x, w, strides, "SAME", None, None, layout, groups)

        def by_groups(x: Array, w: Array) -> Array:
            """Several times as fast on CPUs, for which XLA has no fast grouped convs."""
            return jnp.concatenate([*map(run, jnp.split(x, groups, 3), jnp.split(w, groups, 3))], 3)

        if groups > 1:
            x = lax.platform_dependent(x, w, cpu=by_groups, default=partial(run, groups=groups))
        else:
            x = run(x, w)
        return x + self.bias[...].astype(x.dtype)


class SqueezeExcite(nnx.Module):
    def __init__(self, chs: int, hidden: int, *, rngs: nnx.Rngs):
        self.fc0 = nnx.Linear(
            chs, hidden, kernel_init=nnx.initializers.truncated_normal(chs**-0.5), rngs=rngs
        )
        self.fc1 = nnx.Linear(
            hidden, chs, kernel_init=nnx.initializers.truncated_normal(hidden**-0.5), rngs=rngs
        )

    def __call__(self, x: Array) -> Array:
        hidden = jax.nn.relu(self.fc0(x.mean((1, 2))))
        gate = 2.0 * jax.nn.sigmoid(self.fc1(hidden))
        return gate.astype(x.dtype)[:, None, None] * x


class StochasticDepth(nnx.Module):
    """Zero whole images with probability `rate`; the others are not rescaled."""

    def __init__(self, rate: float, *, rngs: nnx.Rngs):
        self.rate, self.deterministic = rate, False
        self.rngs = rngs.dropout.fork()

    def __call__(self, x: Array) -> Array:
        if self.deterministic or self.rate == 0:
            return x
        kept = self.rngs.bernoulli(1 - self.rate, (x.shape[0], 1, 1, 1))
        return jnp.where(kept, x, 0)

    def set_view(self, deterministic: bool | None = None) -> None:
        """Called by nnx.view; `train` and `eval` set the attribute."""
        if deterministic is not None:
            self.deterministic = deterministic


class Block(nnx.Module):
    """`alpha * skip_gain * branch + shortcut`; beta makes the branch's input of unit variance."""

    def __init__(
        self,
        in_chs: int,
        mid_chs: int,
        out_chs: int,
        stride: int,
        beta: float,
        drop_rate: float,
        *,
        rngs: nnx.Rngs,
    ):
        self.beta = beta
        self.stride = stride
        project = stride > 1 or in_chs != out_chs
        self.conv_shortcut = WSConv(in_chs, out_chs, 1, rngs=rngs) if project else None
        self.conv0 = WSConv(in_chs, mid_chs, 1, rngs=rngs)
        self.conv1 = WSConv(mid_chs, mid_chs, 3, stride, groups=mid_chs // 128, rngs=rngs)
        self.conv1b = WSConv(mid_chs, mid_chs, 3, groups=mid_chs // 128, rngs=rngs)
        self.conv2 = WSConv(mid_chs, out_chs, 1, rngs=rngs)
        self.se = SqueezeExcite(out_chs, mid_chs, rngs=rngs)
        self.drop = StochasticDepth(drop_rate, rngs=rngs)
        self.skip_gain = nnx.Param(jnp.array(0.0))

    def __call__(self, x: Array) -> Array:
        out = self.beta * act(x)
        shortcut = x
        if self.conv_shortcut is not None:
            shortcut = self.conv_shortcut(average_pool(out) if self.stride > 1 else out)
        out = self.conv1b(act(self.conv1(act(self.conv0(out)))))
        out = self.conv2(act(out))
        out = self.se(out)
        return (0.2 * self.skip_gain[...]).astype(x.dtype) * self.drop(out) + shortcut


STAGES = (  # in_chs, mid_chs, out_chs, stride, beta
    ((128, 128, 256, 1, 1.0),),
    (
        (256, 256, 512, 2, 0.9805806756909201),
        (512, 256, 512, 1, 0.9805806756909201),
    ),
    (
        (512, 768, 1536, 2, 0.9622504486493761),
        (1536, 768, 1536, 1, 0.9805806756909201),
        (1536, 768, 1536, 1, 0.9622504486493761),
        (1536, 768, 1536, 1, 0.9449111825230679),
        (1536, 768, 1536, 1, 0.9284766908852592),
        (1536, 768, 1536, 1, 0.9128709291752768),
    ),
    (
        (1536, 768, 1536, 2, 0.8980265101338745),
        (1536, 768, 1536, 1, 0.9805806756909201),
        (1536, 768, 1536, 1, 0.9622504486493761),
    ),
)


class NFNet(nnx.Module):
    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.2,
        drop_path_rate: float = 0.25,
        *,
        rngs: nnx.Rngs,
    ):
        rates = iter([drop_path_rate * i / 12 for i in range(12)])
        self.stem = nnx.Dict(
            conv0=WSConv(in_chans, 16, 3, stride=2, rngs=rngs),
            conv1=WSConv(16, 32, 3, rngs=rngs),
            conv2=WSConv(32, 64, 3, rngs=rngs),
            conv3=WSConv(64, 128, 3, stride=2, rngs=rngs),
        )
        self.stages = nnx.List()
        for stage in STAGES:
            made = [Block(*row, drop_rate=next(rates), rngs=rngs) for row in stage]
            self.stages.append(nnx.Dict(blocks=nnx.List(made)))
        self.final_conv = WSConv(1536, 3072, 1, rngs=rngs)
        self.dropout = nnx.Dropout(drop_rate, rngs=rngs)
        draw = nnx.initializers.normal(0.01)
        self.head = nnx.Dict(fc=nnx.Linear(3072, num_classes, kernel_init=draw, rngs=rngs))

    def features(self, images: Array, remat: bool = False) -> dict[str, Array]:
        """Maps by name, of strides 2, 4, 8, 16, 32; `remat` reruns blocks in the backward pass."""
        x = self.stem.conv0(images)
        x = self.stem.conv1(act(x))
        x = self.stem.conv2(act(x))
        maps = {"stem": act(x)}
        x = self.stem.conv3(maps["stem"])
        run = nnx.remat(Block.__call__) if remat else Block.__call__
        for i, stage in enumerate(self.stages):
            for block in stage.blocks:
                x = run(block, x)
            maps[f"stages.{i}"] = x
        maps["final_conv"] = self.final_conv(maps.pop("stages.3"))
        return maps

    def __call__(self, images: Array, remat: bool = False) -> Array:
        """Logits, (N, classes)."""
        x = act(self.features(images, remat)["final_conv"]).mean((1, 2))
        return self.head.fc(self.dropout(x))


def load_weights(model: nnx.Module, path: str) -> None:
    """Load a safetensors file with nfspec's names and layouts (HWIO, IO)."""
    data = np.fromfile(path, np.uint8)
    start = 8 + int(data[:8].view("<u8")[0])
    header = json.loads(data[8:start].tobytes())
    header.pop("__metadata__", None)
    own = {".".join(map(str, at)): p for at, p in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    found = {(name, *entry["shape"]) for name, entry in header.items()}
    if wrong := found ^ {(name, *parameter.shape) for name, parameter in own.items()}:
        raise ValueError(f"{path} has other arrays than the model: {sorted(wrong)[:9]}")
    for name, parameter in own.items():
        values = data[start:][slice(*header[name]["data_offsets"])].view("<f4")
        parameter[...] = jnp.asarray(values.reshape(parameter.shape))


def clip_gradients(gradients: nnx.State, params: nnx.State, clipping: float = 0.01) -> nnx.State:
    """Adaptive gradient clipping (Brock et al. 2021, section 4.1)."""

    def clipped(path: tuple[Any, ...], g: Array, w: Array) -> Array:
        name = jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")
        if name == "head.fc.kernel":
            return g
        axes = tuple(range(w.ndim - 1)) if w.squeeze().ndim > 1 else None  # by output, or whole
        norm, size = (jnp.sqrt(jnp.square(t).sum(axes, keepdims=True)) for t in (w, g))
        limit = clipping * jnp.maximum(norm, 0.001)
        return jnp.where(size > limit, g * (limit / jnp.maximum(size, 1e-6)), g)

    return jax.tree_util.tree_map_with_path(clipped, gradients, params)
