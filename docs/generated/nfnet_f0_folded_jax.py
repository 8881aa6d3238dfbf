"""nfnet-f0 in plain JAX: a Normalizer-Free Network (Brock et al. 2021), for inference.

arXiv:2102.06171 table 1; deepmind-research/nfnets/{base,nfnet}.py
Written by nfspec from the spec with sha256 0989e2c25f67416b; needs JAX alone, yours to change.
Images are (N, H, W, 3) of the dtype to compute in; published: 192 px in training, 256 in tests.

    params = load_weights("nfnet-f0-folded.safetensors")
    logits = jax.jit(apply)(params, images)
"""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Params = dict[str, Array]  # by name, such as "stages.0.blocks.0.conv1.kernel"
BLOCKS = {  # stride
    "stages.0.blocks.0": 1,
    "stages.1.blocks.0": 2,
    "stages.1.blocks.1": 1,
    "stages.2.blocks.0": 2,
    "stages.2.blocks.1": 1,
    "stages.2.blocks.2": 1,
    "stages.2.blocks.3": 1,
    "stages.2.blocks.4": 1,
    "stages.2.blocks.5": 1,
    "stages.3.blocks.0": 2,
    "stages.3.blocks.1": 1,
    "stages.3.blocks.2": 1,
}


def act(x: Array) -> Array:
    return jax.nn.gelu(x)


def average_pool(x: Array) -> Array:
    """Means of 2x2 windows; the last of an odd side is cut short."""
    window = ((1, 2, 2, 1), (1, 2, 2, 1), "SAME")
    count = lax.reduce_window(jnp.ones_like(x[:1, :, :, :1]), 0.0, lax.add, *window)
    return lax.reduce_window(x, 0.0, lax.add, *window) / count


def conv(p: Params, name: str, x: Array, stride: int = 1) -> Array:
    """A conv by a kernel that has been standardised, and has gamma and beta in it."""
    w = p[f"{name}.kernel"].astype(x.dtype)
    layout, groups = ("NHWC", "HWIO", "NHWC"), x.shape[3] // w.shape[2]
    strides = (stride, stride)

    def run(x: Array, w: Array, groups: int = 1) -> Array:
        return lax.conv_general_dilated(x, w, strides, "SAME", None, None, layout, groups)

    def by_groups(x: Array, w: Array) -> Array:
        """Several times as fast on CPUs, for which XLA has no fast grouped convs."""
        return jnp.concatenate([*map(run, jnp.split(x, groups, 3), jnp.split(w, groups, 3))], 3)

    if groups > 1:
        x = lax.platform_dependent(x, w, cpu=by_groups, default=partial(run, groups=groups))
    else:
        x = run(x, w)
    return x + p[f"{name}.bias"].astype(x.dtype)


def dense(p: Params, name: str, x: Array) -> Array:
    return x @ p[f"{name}.kernel"].astype(x.dtype) + p[f"{name}.bias"].astype(x.dtype)


def squeeze_excite(p: Params, name: str, x: Array) -> Array:
    hidden = jax.nn.relu(dense(p, f"{name}.fc0", x.mean((1, 2))))
    return 2.0 * jax.nn.sigmoid(dense(p, f"{name}.fc1", hidden))[:, None, None]


def block(p: Params, x: Array, name: str, stride: int) -> Array:
    """`branch + shortcut`; the kernels have alpha and beta in them."""
    out = act(x)
    shortcut = x
    if f"{name}.conv_shortcut.kernel" in p:
        shortcut = conv(p, f"{name}.conv_shortcut", average_pool(out) if stride > 1 else out)
    out = act(conv(p, f"{name}.conv0", out))
    out = act(conv(p, f"{name}.conv1", out, stride))
    out = act(conv(p, f"{name}.conv1b", out))
    out = conv(p, f"{name}.conv2", out)
    out = p[f"{name}.skip_gain"].astype(x.dtype) * squeeze_excite(p, f"{name}.se", out) * out
    return out + shortcut


def features(params: Params, images: Array) -> dict[str, Array]:
    """Maps by name, of strides 2, 4, 8, 16, 32."""
    x = conv(params, "stem.conv0", images, stride=2)
    x = conv(params, "stem.conv1", act(x))
    x = conv(params, "stem.conv2", act(x))
    maps = {"stem": 1.7015043497085571 * act(x)}  # a factor that the kernels have
    x = conv(params, "stem.conv3", act(x), stride=2)
    for name, stride in BLOCKS.items():
        x = block(params, x, name, stride)
        maps[name.partition(".blocks")[0]] = x
    maps["final_conv"] = conv(params, "final_conv", maps.pop("stages.3"))
    return maps


def apply(params: Params, images: Array) -> Array:
    """Logits, (N, classes)."""
    x = 1.7015043497085571 * act(features(params, images)["final_conv"]).mean((1, 2))
    return dense(params, "head.fc", x)


def load_weights(path: str) -> Params:
    """Read a safetensors file with nfspec's names and layouts (HWIO, IO)."""
    data = np.fromfile(path, np.uint8)
    start = 8 + int(data[:8].view("<u8")[0])
    header = json.loads(data[8:start].tobytes())
    header.pop("__metadata__", None)
    parts = {name: data[start:][slice(*e["data_offsets"])] for name, e in header.items()}
    return {n: jnp.asarray(v.view("<f4").reshape(header[n]["shape"])) for n, v in parts.items()}
