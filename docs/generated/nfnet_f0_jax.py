"""nfnet-f0 in plain JAX: a Normalizer-Free Network (Brock et al. 2021).

arXiv:2102.06171 table 1; deepmind-research/nfnets/{base,nfnet}.py
Written by nfspec from the spec with sha256 0989e2c25f67416b; needs JAX alone, yours to change.
Images are (N, H, W, 3) of the dtype to compute in; published: 192 px in training, 256 in tests.

    params = load_weights("nfnet-f0.safetensors")  # or init(jax.random.key(0))
    logits = jax.jit(apply)(params, images)  # with a key: as in training
    optimizer = optax.chain(optax.stateless(clip_gradients), optax.sgd(0.1))
    tree = flax.traverse_util.unflatten_dict(params, sep=".")  # nested; flatten_dict undoes it
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Params = dict[str, Array]  # by name, such as "stages.0.blocks.0.conv1.gain"
DROP_RATE = 0.2  # of the features
DROP_PATH_RATE = 0.25  # of the last block's branch; it rises from 0
BLOCKS = {  # in_chs, mid_chs, out_chs, stride, beta
    "stages.0.blocks.0": (128, 128, 256, 1, 1.0),
    "stages.1.blocks.0": (256, 256, 512, 2, 0.9805806756909201),
    "stages.1.blocks.1": (512, 256, 512, 1, 0.9805806756909201),
    "stages.2.blocks.0": (512, 768, 1536, 2, 0.9622504486493761),
    "stages.2.blocks.1": (1536, 768, 1536, 1, 0.9805806756909201),
    "stages.2.blocks.2": (1536, 768, 1536, 1, 0.9622504486493761),
    "stages.2.blocks.3": (1536, 768, 1536, 1, 0.9449111825230679),
    "stages.2.blocks.4": (1536, 768, 1536, 1, 0.9284766908852592),
    "stages.2.blocks.5": (1536, 768, 1536, 1, 0.9128709291752768),
    "stages.3.blocks.0": (1536, 768, 1536, 2, 0.8980265101338745),
    "stages.3.blocks.1": (1536, 768, 1536, 1, 0.9805806756909201),
    "stages.3.blocks.2": (1536, 768, 1536, 1, 0.9622504486493761),
}


def act(x: Array) -> Array:
    return 1.7015043497085571 * jax.nn.gelu(x)  # variance 1 for x ~ N(0, 1)


def average_pool(x: Array) -> Array:
    """Means of 2x2 windows; the last of an odd side is cut short."""
    window = ((1, 2, 2, 1), (1, 2, 2, 1), "SAME")
    count = lax.reduce_window(jnp.ones_like(x[:1, :, :, :1]), 0.0, lax.add, *window)
    return lax.reduce_window(x, 0.0, lax.add, *window) / count


def conv(p: Params, name: str, x: Array, stride: int = 1) -> Array:
    """A conv by a kernel of mean 0 and norm `gain` for each output."""
    w = p[f"{name}.kernel"].astype(jnp.float32)
    w -= w.mean((0, 1, 2))
    variance = jnp.square(w).sum((0, 1, 2))  # times fan-in
    w *= p[f"{name}.gain"] * lax.rsqrt(jnp.maximum(variance, 0.0001))
    layout, groups = ("NHWC", "HWIO", "NHWC"), x.shape[3] // w.shape[2]
    strides, w = (stride, stride), w.astype(x.dtype)
    x = lax.conv_general_dilated(x, w, strides, "SAME", None, None, layout, groups)
    return x + p[f"{name}.bias"].astype(x.dtype)


def dense(p: Params, name: str, x: Array) -> Array:
    return x @ p[f"{name}.kernel"].astype(x.dtype) + p[f"{name}.bias"].astype(x.dtype)


def squeeze_excite(p: Params, name: str, x: Array) -> Array:
    hidden = jax.nn.relu(dense(p, f"{name}.fc0", x.mean((1, 2))))
    return 2.0 * jax.nn.sigmoid(dense(p, f"{name}.fc1", hidden))[:, None, None] * x


def block(
    p: Params, x: Array, key: Array | None, rate: float, name: str, stride: int, beta: float
) -> Array:
    """`alpha * skip_gain * branch + shortcut`; beta makes the branch's input of unit variance."""
    out = beta * act(x)
    shortcut = x
    if f"{name}.conv_shortcut.kernel" in p:
        shortcut = conv(p, f"{name}.conv_shortcut", average_pool(out) if stride > 1 else out)
    out = act(conv(p, f"{name}.conv0", out))
    out = act(conv(p, f"{name}.conv1", out, stride))
    out = act(conv(p, f"{name}.conv1b", out))
    out = conv(p, f"{name}.conv2", out)
    out = squeeze_excite(p, f"{name}.se", out)
    if key is not None:  # whole images are zeroed, and the others not scaled
        kept = jax.random.bernoulli(key, 1 - rate, (x.shape[0], 1, 1, 1))
        out = jnp.where(kept, out, 0)
    return (0.2 * p[f"{name}.skip_gain"]).astype(x.dtype) * out + shortcut


def features(
    params: Params, images: Array, key: Array | None = None, remat: bool = False
) -> dict[str, Array]:
    """Maps by name, of strides 2, 4, 8, 16, 32; `remat` reruns blocks in the backward pass."""
    x = conv(params, "stem.conv0", images, stride=2)
    x = conv(params, "stem.conv1", act(x))
    x = conv(params, "stem.conv2", act(x))
    maps = {"stem": act(x)}
    x = conv(params, "stem.conv3", maps["stem"], stride=2)
    run = jax.checkpoint(block, static_argnums=(4, 5, 6)) if remat else block
    for i, (name, (*_, stride, beta)) in enumerate(BLOCKS.items()):
        rate, own = DROP_PATH_RATE * i / 12, None if key is None else jax.random.fold_in(key, i)
        x = run(params, x, own, rate, name, stride, beta)
        maps[name.partition(".blocks")[0]] = x
    maps["final_conv"] = conv(params, "final_conv", maps.pop("stages.3"))
    return maps


def apply(params: Params, images: Array, key: Array | None = None, remat: bool = False) -> Array:
    """Logits, (N, classes); a key turns stochastic depth and dropout on."""
    x = act(features(params, images, key, remat)["final_conv"]).mean((1, 2))
    if key is not None:
        kept = jax.random.bernoulli(jax.random.fold_in(key, len(BLOCKS)), 1 - DROP_RATE, x.shape)
        x = jnp.where(kept, x / (1 - DROP_RATE), 0)
    return dense(params, "head.fc", x)


def init(key: Array, num_classes: int = 1000, in_chans: int = 3) -> Params:
    """Parameters as training starts from them."""
    shapes: dict[str, tuple[int, ...]] = {
        "stem.conv0": (3, 3, in_chans, 16),
        "stem.conv1": (3, 3, 16, 32),
        "stem.conv2": (3, 3, 32, 64),
        "stem.conv3": (3, 3, 64, 128),
        "final_conv": (1, 1, 1536, 3072),
        "head.fc": (3072, num_classes),
    }
    for name, (in_chs, mid_chs, out_chs, stride, *_) in BLOCKS.items():
        shapes[f"{name}.conv0"] = (1, 1, in_chs, mid_chs)
        shapes[f"{name}.conv1"] = shapes[f"{name}.conv1b"] = (3, 3, 128, mid_chs)
        shapes[f"{name}.conv2"] = (1, 1, mid_chs, out_chs)
        if stride > 1 or in_chs != out_chs:
            shapes[f"{name}.conv_shortcut"] = (1, 1, in_chs, out_chs)
        shapes[f"{name}.se.fc0"], shapes[f"{name}.se.fc1"] = (out_chs, mid_chs), (mid_chs, out_chs)
    params: Params = {f"{name}.skip_gain": jnp.zeros(()) for name in BLOCKS}
    for i, (name, shape) in enumerate(shapes.items()):
        own, fan_in = jax.random.fold_in(key, i), np.prod(shape[:-1]).item()
        if name == "head.fc":
            kernel = 0.01 * jax.random.normal(own, shape)
        elif len(shape) == 2:
            kernel = fan_in**-0.5 * jax.random.truncated_normal(own, -2.0, 2.0, shape)
        else:
            kernel = fan_in**-0.5 * jax.random.normal(own, shape)
            params[f"{name}.gain"] = jnp.ones(shape[-1])
        params[f"{name}.kernel"], params[f"{name}.bias"] = kernel, jnp.zeros(shape[-1])
    return params


def load_weights(path: str, **ends: int) -> Params:
    """Read a safetensors file with nfspec's names and layouts (HWIO, IO); `ends` as for `init`."""
    data = np.fromfile(path, np.uint8)
    start = 8 + int(data[:8].view("<u8")[0])
    header = json.loads(data[8:start].tobytes())
    header.pop("__metadata__", None)
    own = jax.eval_shape(lambda key: init(key, **ends), jax.random.key(0)).items()
    if wrong := {(n, *e["shape"]) for n, e in header.items()} ^ {(n, *p.shape) for n, p in own}:
        raise ValueError(f"{path} has other arrays than the network: {sorted(wrong)[:9]}")
    parts = {name: data[start:][slice(*e["data_offsets"])] for name, e in header.items()}
    return {n: jnp.asarray(v.view("<f4").reshape(header[n]["shape"])) for n, v in parts.items()}


def clip_gradients(gradients: Params, params: Params, clipping: float = 0.01) -> Params:
    """Adaptive gradient clipping (Brock et al. 2021, section 4.1)."""
    clipped = {}
    for name, g in gradients.items():
        w = params[name]
        axes = tuple(range(w.ndim - 1)) if w.squeeze().ndim > 1 else None  # by output, or whole
        norm, size = (jnp.sqrt(jnp.square(t).sum(axes, keepdims=True)) for t in (w, g))
        limit = clipping * jnp.maximum(norm, 0.001)
        clipped[name] = jnp.where(size > limit, g * (limit / jnp.maximum(size, 1e-6)), g)
    return clipped | {"head.fc.kernel": gradients["head.fc.kernel"]}
