"""mule-torch 0.2.0: the layers and blocks of SF-NFNet-F0, an audio network with two pathways.

Its images are log-mel spectrograms, (N, frequencies, frames, channels). The language has square
kernels and strides alone, while SF-NFNet-F0 has blocks of 1x3 and 3x1 convs that downsample along
the frequencies alone, and convs from the fast pathway to the slow one. So the classes of the
package are given square kernels, which they take as an argument; blocks that downsample are not
offered; and `forward` is the fast pathway without downsampling, from the stem to the last block.
The specs mule_fast.toml and mule_fast_betas.toml say that network.

The adapter passes on what the code takes as arguments: sizes, stride, groups, eps under the code's
own rule, alpha, and beta of a block. Everything else is the code's own convention, whatever is
asked: the biased variance, TensorFlow's padding, GELU by erf, gammas of GELU and ReLU, an attention
gain of 2, and the betas of a network.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from nfspec.conformance.subjects import Function, NotOffered
from nfspec.conformance.subjects.torch_layout import applied, require_same, tapped
from nfspec.errors import BackendError
from nfspec.plan import Activation, Block, Plan, Pool, SqueezeExcite, WSConv

ACTIVATIONS = {"gelu_tanh": "gelu", "gelu_erf": "gelu", "relu": "relu"}
LAYERS = {
    "conv0": "convs.0",
    "conv1": "convs.1",
    "conv1b": "convs.2",
    "conv2": "convs.3",
    "conv_shortcut": "skip_conv",
    "se.fc0": "se.fc1",
    "se.fc1": "se.fc2",
}
LEAVES = {"kernel": "weight", "gain": "gain", "bias": "bias"}
DEPTHS = (1, 2, 6, 3)


class MuleTorch:
    framework = "torch"
    package = "mule-torch"

    def __init__(self, mode: str):
        if importlib.util.find_spec("mule_torch") is None:
            raise BackendError("mule-torch is not installed; run: make strangers")
        if mode not in ("f32", "tf32"):
            raise NotOffered(f"mule-torch is not tested in mode {mode}")
        from mule_torch import blocks, config, layers

        self.layers, self.blocks, self.config = layers, blocks, config

    def ws_conv(self, op: WSConv) -> Function:
        if op.eps_rule == "none":
            raise NotOffered("mule-torch standardises all kernels")
        if op.dilation > 1:
            raise NotOffered("mule-torch has no dilated WS convs")
        sides = ((op.kernel, op.kernel), (op.stride, op.stride))
        how = {"eps": op.eps} if op.eps_rule == "max" else {}
        layer = self.layers.WSConv2d(op.in_channels, op.out_channels, *sides, op.groups, **how)

        def function(x: Any, kernel: Any, gain: Any, bias: Any) -> Any:
            return applied(layer, {"weight": kernel, "gain": gain, "bias": bias}, x)

        return function

    def activation(self, op: Activation) -> Function:
        layer = self.layers.ScaledActivation(_kind(op.kind))
        return lambda x: layer(x) * op.beta

    def pool(self, op: Pool) -> Function:
        if op.kind != "avg" or op.counted:
            raise NotOffered(f"mule-torch has no {op.kind} pool")
        sides = ((op.window, op.window), (op.stride, op.stride))
        layer = self.blocks.TfSameAvgPool2d(*sides)
        return lambda x: applied(layer, {}, x)

    def squeeze_excite(self, op: SqueezeExcite) -> Function:
        if op.hidden != op.channels // 2:
            raise NotOffered(f"mule-torch has {op.channels // 2} hidden channels, not {op.hidden}")
        layer = self.layers.SqueezeExcite(op.channels)
        names = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
        return lambda x, *values: applied(layer, dict(zip(names, values, strict=True)), x)

    def _block(self, row: Block, kind: str, beta: float) -> Any:
        if row.dilation > 1:
            raise NotOffered("mule-torch has no dilated WS convs")
        if row.stride != 1:
            raise NotOffered("mule-torch downsamples along the frequencies alone")
        if row.out_channels != 2 * row.mid_channels:
            raise NotOffered("mule-torch's bottlenecks have half of the channels")
        k, second = row.kernel, row.second_kernel
        return self.blocks.NFNetBlock(
            row.in_channels,
            row.out_channels,
            kernels=((1, 1), (k, k), (second, second), (1, 1)),
            freq_downsample=1,
            group_size=row.mid_channels // row.groups,
            alpha=row.alpha,
            beta=beta,
            scaled_activation=kind,
        )

    def block(self, plan: Plan) -> Function:
        (row,) = plan.blocks
        module = self._block(row, _activation(plan), row.beta)
        places = {name: _place(name.removeprefix(f"{row.name}.")) for name in plan.parameters}
        shapes = {name: q.shape for name, q in plan.parameters.items()}
        require_same("mule-torch's NFNetBlock", places, shapes, module)

        def function(x: Any, params: Mapping[str, Any]) -> Any:
            return applied(module, {places[name]: params[name] for name in places}, x)

        return function

    def forward(self, plan: Plan) -> Function:
        """The stem and the blocks; the head of SF-NFNet-F0 has no classifier."""
        from torch import nn

        kind = _activation(plan)
        stem = [op for op in plan.ops if isinstance(op, WSConv) and op.name.startswith("stem.")]
        modules = {
            "stem": self.blocks.Stem(
                tuple(op.out_channels for op in stem),
                tuple((op.kernel, op.kernel) for op in stem),
                tuple((op.stride, op.stride) for op in stem),
                kind,
                plan.channels,
            )
        }
        if (depths := tuple(_depths(plan))) != DEPTHS:
            raise NotOffered(f"mule-torch's betas are for {DEPTHS} blocks, not {depths}")
        betas = self.config.block_betas(plan.blocks[0].alpha)
        for row in plan.blocks:
            modules[row.name] = self._block(row, kind, betas[row.stage][row.index])
        # Dots are for submodules.
        network = nn.Sequential()
        for name, module in modules.items():
            network.add_module(name.replace(".", "_"), module)
        # What comes after the last block is not offered, and no part of the module.
        ops = [op for op in plan.ops if plan.section(op) != "head"]
        shapes = {q.name: q.shape for op in ops for q in op.parameters}
        places = {name: _network_place(name) for name in shapes}
        require_same("mule-torch's fast pathway", places, shapes, network)
        taps = tapped(modules)

        def function(x: Any, params: Mapping[str, Any]) -> Any:
            taps.clear()
            applied(network, {places[name]: params[name] for name in places}, x)
            return dict(taps)

        return function


def _kind(kind: str) -> str:
    if kind not in ACTIVATIONS:
        raise NotOffered(f"mule-torch has no scaled {kind}")
    return ACTIVATIONS[kind]


def _activation(plan: Plan) -> str:
    (kind,) = {op.kind for op in plan.ops if isinstance(op, Activation)}
    return _kind(kind)


def _depths(plan: Plan) -> list[int]:
    stages = [row.stage for row in plan.blocks]
    return [stages.count(stage) for stage in dict.fromkeys(stages)]


def _place(name: str) -> str:
    """The code's name of a parameter within a block, given the canonical one."""
    if name == "skip_gain":
        return name
    layer, _, leaf = name.rpartition(".")
    if layer not in LAYERS:
        raise NotOffered(f"mule-torch's NFNetBlock has no {name}")
    return f"{LAYERS[layer]}.{LEAVES[leaf]}"


def _network_place(name: str) -> str:
    """The name of a parameter of the stem or of a block in the network that `forward` makes."""
    layer, *rest = name.split(".")
    if layer == "stem":  # stem.conv0.kernel
        return f"stem.convs.{rest[0].removeprefix('conv')}.{LEAVES[rest[1]]}"
    return f"{layer}_{rest[0]}_{rest[1]}_{rest[2]}.{_place('.'.join(rest[3:]))}"
