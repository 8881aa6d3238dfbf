"""nfnet-f0 in plain NumPy: a Normalizer-Free Network (Brock et al. 2021).

arXiv:2102.06171 table 1; deepmind-research/nfnets/{base,nfnet}.py
Written by nfspec from the spec with sha256 0989e2c25f67416b; needs NumPy alone, yours to change.
Images are (N, H, W, 3), kernels (height, width, inputs, outputs), all float32 or all float64.
For reading and teaching: nothing is dropped, and there are no gradients.

    params = load_weights("nfnet-f0.safetensors")
    logits = forward(params, images)
"""

import json

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Params = dict[str, np.ndarray]  # by canonical name, such as `stem.conv0.kernel`


def sigmoid(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))  # which cannot overflow
    return np.where(x < 0, small, 1) / (1 + small)


def act(x: np.ndarray) -> np.ndarray:
    """The activation, with variance 1 for x ~ N(0, 1)."""
    return 1.7015043497085571 * (
        0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))
    )


def same(x: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """Pad as TensorFlow does: an odd pixel goes after."""
    pads = [(0, 0)]
    for side in x.shape[1:3]:
        total = kernel + stride * ((side - 1) // stride) - side
        pads.append((total // 2, total - total // 2))
    return np.pad(x, [*pads, (0, 0)])


def standardised(kernel: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """The kernel with mean 0 and norm `gain` for each output."""
    kernel = kernel - kernel.mean((0, 1, 2))
    variance = np.square(kernel).sum((0, 1, 2))  # times fan-in
    return kernel * (gain / np.sqrt(np.maximum(variance, 0.0001)))


def conv(params: Params, name: str, x: np.ndarray, stride: int = 1) -> np.ndarray:
    """A conv with a standardised kernel: windows times kernel, group by group."""
    kernel = standardised(params[f"{name}.kernel"], params[f"{name}.gain"])
    size, _, inputs, outputs = kernel.shape
    groups = x.shape[3] // inputs
    if size > 1:
        x = same(x, size, stride)
    windows = sliding_window_view(x, (size, size), (1, 2))[:, ::stride, ::stride]
    images, height, width = windows.shape[:3]
    windows = windows.reshape(-1, groups, inputs * size * size).swapaxes(0, 1)
    kernel = kernel.transpose(2, 0, 1, 3).reshape(-1, groups, outputs // groups).swapaxes(0, 1)
    out = (windows @ kernel).swapaxes(0, 1).reshape(images, height, width, outputs)
    return out + params[f"{name}.bias"]


def pool(x: np.ndarray) -> np.ndarray:
    """Means over 2x2 pixels; the edge of an odd side is repeated, and so counts by itself."""
    x = np.pad(x, [(0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)], "edge")
    images, height, width, chs = x.shape
    return x.reshape(images, height // 2, 2, width // 2, 2, chs).mean((2, 4))


def dense(params: Params, name: str, x: np.ndarray) -> np.ndarray:
    return x @ params[f"{name}.kernel"] + params[f"{name}.bias"]


def squeeze_excite(params: Params, name: str, x: np.ndarray) -> np.ndarray:
    hidden = dense(params, f"{name}.fc0", x.mean((1, 2)))
    hidden = np.maximum(hidden, 0)
    gate = sigmoid(dense(params, f"{name}.fc1", hidden))
    return 2.0 * gate[:, None, None] * x


def block(params: Params, name: str, x: np.ndarray, beta: float, stride: int = 1) -> np.ndarray:
    """`alpha * skip_gain * branch + shortcut`; beta makes the branch's input of unit variance."""
    out = beta * act(x)
    shortcut = x
    if f"{name}.conv_shortcut.kernel" in params:
        shortcut = conv(params, f"{name}.conv_shortcut", pool(out) if stride > 1 else out)
    out = act(conv(params, f"{name}.conv0", out))
    out = act(conv(params, f"{name}.conv1", out, stride))
    out = conv(params, f"{name}.conv1b", out)
    out = conv(params, f"{name}.conv2", act(out))
    out = squeeze_excite(params, f"{name}.se", out)
    return (0.2 * params[f"{name}.skip_gain"]) * out + shortcut


def features(params: Params, images: np.ndarray) -> np.ndarray:
    """The activations that are pooled, (N, H, W, 3072), of images (N, H, W, 3)."""
    x = conv(params, "stem.conv0", images, 2)
    x = conv(params, "stem.conv1", act(x))
    x = conv(params, "stem.conv2", act(x))
    x = conv(params, "stem.conv3", act(x), 2)
    x = block(params, "stages.0.blocks.0", x, beta=1.0)
    x = block(params, "stages.1.blocks.0", x, beta=0.9805806756909201, stride=2)
    x = block(params, "stages.1.blocks.1", x, beta=0.9805806756909201)
    x = block(params, "stages.2.blocks.0", x, beta=0.9622504486493761, stride=2)
    x = block(params, "stages.2.blocks.1", x, beta=0.9805806756909201)
    x = block(params, "stages.2.blocks.2", x, beta=0.9622504486493761)
    x = block(params, "stages.2.blocks.3", x, beta=0.9449111825230679)
    x = block(params, "stages.2.blocks.4", x, beta=0.9284766908852592)
    x = block(params, "stages.2.blocks.5", x, beta=0.9128709291752768)
    x = block(params, "stages.3.blocks.0", x, beta=0.8980265101338745, stride=2)
    x = block(params, "stages.3.blocks.1", x, beta=0.9805806756909201)
    x = block(params, "stages.3.blocks.2", x, beta=0.9622504486493761)
    x = conv(params, "final_conv", x)
    return act(x)


def forward(params: Params, images: np.ndarray) -> np.ndarray:
    """The logits, (N, 1000)."""
    return dense(params, "head.fc", features(params, images).mean((1, 2)))


def load_weights(path: str, dtype: type = np.float32) -> Params:
    """Read a safetensors file with nfspec's names and layouts (HWIO, IO)."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    header.pop("__metadata__", None)
    params = {}
    for name, entry in header.items():
        values = np.frombuffer(data[slice(*entry["data_offsets"])], "<f4")
        params[name] = values.reshape(entry["shape"]).astype(dtype)
    return params
