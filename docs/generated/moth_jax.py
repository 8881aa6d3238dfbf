"""moth in plain JAX: a Normalizer-Free Network (Brock et al. 2021).

Written by nfspec from the spec with sha256 51de3ef17cd462de; needs JAX alone, yours to change.
Images are (N, H, W, 3) of the dtype to compute in; published: 192 px in training, 256 in tests.

    params = load_weights("moth.safetensors")  # or init(jax.random.key(0))
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
BLOCKS = {  # in_chs, mid_chs, out_chs, groups, se, eca, stride, alpha, beta
    "stages.0.blocks.0": (128, 28, 63, 4, 0, 3, 1, 0.2, 1.0),
    "stages.1.blocks.0": (63, 63, 135, 7, 67, 0, 2, 0.25, 0.9805806756909201),
    "stages.1.blocks.1": (135, 63, 135, 7, 67, 0, 1, 0.25, 0.9701425001453319),
    "stages.2.blocks.0": (135, 126, 255, 6, 127, 0, 2, 0.3, 0.9428090415820635),
    "stages.2.blocks.1": (255, 126, 255, 6, 127, 0, 1, 0.3, 0.9578262852211513),
    "stages.2.blocks.2": (255, 126, 255, 6, 127, 0, 1, 0.3, 0.9205746178983233),
    "stages.2.blocks.3": (255, 126, 255, 6, 127, 0, 1, 0.3, 0.8873565094161137),
    "stages.3.blocks.0": (255, 189, 387, 7, 0, 0, 2, 0.2, 0.8574929257125441),
    "stages.3.blocks.1": (387, 189, 387, 7, 0, 0, 1, 0.2, 0.9805806756909201),
}


def act(x: Array) -> Array:
    return 1.7881293296813965 * jax.nn.silu(x)  # variance 1 for x ~ N(0, 1)


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


def channel_attention(p: Params, name: str, x: Array) -> Array:
    """Efficient channel attention (Wang et al. 2020): a conv over the channels' means."""
    means, kernel = x.mean((1, 2))[:, None], p[f"{name}.kernel"].astype(x.dtype)
    gate = jax.nn.sigmoid(lax.conv(means, kernel[None, None], (1,), "SAME"))
    return 2.0 * gate[:, None] * x


def block(
    p: Params,
    x: Array,
    key: Array | None,
    rate: float,
    name: str,
    se: int,
    eca: int,
    stride: int,
    alpha: float,
    beta: float,
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
    if se:
        out = squeeze_excite(p, f"{name}.se", out)
    if eca:
        out = channel_attention(p, f"{name}.eca", out)
    if key is not None:  # whole images are zeroed, and the others not scaled
        kept = jax.random.bernoulli(key, 1 - rate, (x.shape[0], 1, 1, 1))
        out = jnp.where(kept, out, 0)
    return (alpha * p[f"{name}.skip_gain"]).astype(x.dtype) * out + shortcut


def features(
    params: Params, images: Array, key: Array | None = None, remat: bool = False
) -> dict[str, Array]:
    """Maps by name, of strides 2, 4, 8, 16, 32; `remat` reruns blocks in the backward pass."""
    x = conv(params, "stem.conv0", images, stride=2)
    x = conv(params, "stem.conv1", act(x))
    x = conv(params, "stem.conv2", act(x))
    maps = {"stem": act(x)}
    x = conv(params, "stem.conv3", maps["stem"], stride=2)
    run = jax.checkpoint(block, static_argnums=(4, 5, 6, 7, 8, 9)) if remat else block
    for i, (name, (*_, se, eca, stride, alpha, beta)) in enumerate(BLOCKS.items()):
        rate, own = DROP_PATH_RATE * i / 9, None if key is None else jax.random.fold_in(key, i)
        x = run(params, x, own, rate, name, se, eca, stride, alpha, beta)
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
        "final_conv": (1, 1, 387, 774),
        "head.fc": (774, num_classes),
    }
    for name, (in_chs, mid_chs, out_chs, groups, se, eca, *_) in BLOCKS.items():
        shapes[f"{name}.conv0"] = (1, 1, in_chs, mid_chs)
        shapes[f"{name}.conv1"] = shapes[f"{name}.conv1b"] = (3, 3, mid_chs // groups, mid_chs)
        shapes[f"{name}.conv2"] = (1, 1, mid_chs, out_chs)
        if in_chs != out_chs:
            shapes[f"{name}.conv_shortcut"] = (1, 1, in_chs, out_chs)
        if se:
            shapes[f"{name}.se.fc0"], shapes[f"{name}.se.fc1"] = (out_chs, se), (se, out_chs)
        if eca:
            shapes[f"{name}.eca"] = (eca,)
    params: Params = {f"{name}.skip_gain": jnp.zeros(()) for name in BLOCKS}
    for i, (name, shape) in enumerate(shapes.items()):
        own, fan_in = jax.random.fold_in(key, i), np.prod(shape[:-1]).item()
        if len(shape) == 1:
            edge = shape[0] ** -0.5
            params[f"{name}.kernel"] = jax.random.uniform(own, shape, minval=-edge, maxval=edge)
            continue
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
