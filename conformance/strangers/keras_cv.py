"""keras-cv-attention-models 1.4.3: the layers, blocks and networks of its `nfnets`, on TensorFlow.

It runs on Keras 2, which is `tf_keras` beside a TensorFlow of today.

The adapter passes on what the code takes as arguments: sizes, stride, groups, eps of a conv under
the code's own rule, gamma of a conv, the name of the activation, where gamma is (`gamma_in_act`),
padding (`torch_padding`), alpha, beta of a block, and the ratios of SE and of the head. Everything
else is the code's own convention, whatever is asked: the biased variance, eps of the convs of
blocks and networks, gammas from its table, an attention gain of 2, the taps of ECA by its own
formula, the betas of a network, and kept residuals divided by 1 - rate.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any

from nfspec.conformance.subjects import Function, NotOffered
from nfspec.errors import BackendError
from nfspec.plan import (
    ECA,
    Activation,
    Block,
    Dropout,
    Plan,
    Pool,
    SqueezeExcite,
    StochasticDepth,
    WSConv,
)

# TensorFlow reads it as it is imported, which is after this module and before the adapter is made.
os.environ["TF_USE_LEGACY_KERAS"] = "1"

PACKAGE = "keras-cv-attention-models"
ATTENTION_GAIN = 2.0  # nfnets.py, line 149, within a function
ACTIVATIONS = {
    "gelu_tanh": "gelu/approximate",
    "gelu_erf": "gelu",
    "silu": "swish",
    "soft_sign": "softsign",
    "identity": "linear",
    **{kind: kind for kind in ("relu", "elu", "selu", "sigmoid", "softplus", "tanh")},
}
LAYERS = {
    "conv0": "deep_1_conv",
    "conv1": "deep_2_conv",
    "conv1b": "deep_3_conv",
    "conv2": "deep_4_conv",
    "conv_shortcut": "shortcut_conv",
    "se.fc0": "se_1_conv",
    "se.fc1": "se_2_conv",
    "eca": "eca_conv1d",
}


class KerasCVAttention:
    framework = "tensorflow"
    package = PACKAGE

    def __init__(self, mode: str):
        if importlib.util.find_spec("keras_cv_attention_models") is None:
            raise BackendError(f"{PACKAGE} is not installed; run: make strangers")
        if mode not in ("f32", "tf32"):
            raise NotOffered(f"{PACKAGE} is not tested in mode {mode}")
        from keras_cv_attention_models import common_layers
        from keras_cv_attention_models.backend import layers, models
        from keras_cv_attention_models.nfnets import nfnets

        self.nfnets, self.common = nfnets, common_layers
        self.layers, self.models = layers, models

    def _model(self, channels: int, build: Callable[[Any], Any]) -> Any:
        """A model of images of any size, without parameters' values."""
        x = self.layers.Input((None, None, channels))
        return self.models.Model(x, build(x))

    def ws_conv(self, op: WSConv) -> Function:
        if op.eps_rule == "none":
            raise NotOffered(f"{PACKAGE} standardises all kernels")
        if op.dilation > 1:
            raise NotOffered(f"{PACKAGE} has no dilated WS convs")
        how = {"eps": op.eps} if op.eps_rule == "max" else {}
        model = self._model(
            op.in_channels,
            lambda x: self.nfnets.std_conv2d_with_init(
                x,
                op.out_channels,
                op.kernel,
                strides=op.stride,
                padding="valid" if op.padding == "valid" else "same",
                torch_padding=op.padding == "symmetric",
                gamma=op.gamma,
                name="ws_",
                groups=op.groups,
                **how,
            ),
        )
        layer = model.layers[-1].name

        def function(x: Any, kernel: Any, gain: Any, bias: Any) -> Any:
            values = {f"{layer}/kernel": kernel, f"{layer}/gain": gain, f"{layer}/bias": bias}
            return _applied(model, values, x)

        return function

    def activation(self, op: Activation) -> Function:
        kind, table = _activation(op.kind, op.slope), self.nfnets.NON_LINEAR_GAMMA
        gamma = 1.0 if op.gamma == 1.0 else table.get(kind.split("/")[0], 1.0)
        return lambda x: op.beta * self.nfnets.activation_by_name_with_gamma(x, kind, gamma)

    def pool(self, op: Pool) -> Function:
        if op.kind != "avg" or op.window != op.stride or op.counted:
            raise NotOffered(f"{PACKAGE} has no {op.kind} pool of {op.window}x{op.window}")
        layer = self.layers.AvgPool2D(op.stride, strides=op.stride, padding="same")
        return lambda x: layer(x)

    def squeeze_excite(self, op: SqueezeExcite) -> Function:
        def attention(x: Any) -> Any:
            kind, ratio = _activation(op.activation, op.slope), op.hidden / op.channels
            return self.common.se_module(x, ratio, activation=kind, use_bias=True, name="se_")

        model = self._model(op.channels, attention)
        if model.get_layer("se_1_conv").filters != op.hidden:
            raise NotOffered(f"{PACKAGE} rounds hidden channels to multiples of 8, not {op.hidden}")
        names = ("se_1_conv/kernel", "se_1_conv/bias", "se_2_conv/kernel", "se_2_conv/bias")

        def function(x: Any, *values: Any) -> Any:
            return ATTENTION_GAIN * _applied(model, dict(zip(names, values, strict=True)), x)

        return function

    def eca(self, op: ECA) -> Function:
        model = self._model(op.channels, lambda x: self.common.eca_module(x, name="eca_"))
        (taps,) = model.get_layer("eca_conv1d").kernel_size
        if taps != op.kernel:
            raise NotOffered(f"{PACKAGE} has {taps} taps for {op.channels} channels")
        return lambda x, kernel: ATTENTION_GAIN * _applied(model, {"eca_conv1d/kernel": kernel}, x)

    def stochastic_depth(self, op: StochasticDepth, seed: int, replica: int) -> Function:
        return self._drop(lambda x: self.common.drop_block(x, op.rate), 4, seed, replica)

    def dropout(self, op: Dropout, seed: int, replica: int) -> Function:
        return self._drop(self.layers.Dropout(op.rate), 2, seed, replica)

    def _drop(self, layer: Callable[[Any], Any], axes: int, seed: int, replica: int) -> Function:
        import tensorflow as tf

        tf.keras.utils.set_random_seed(2 * seed + replica)
        x = self.layers.Input((None,) * (axes - 1))
        model = self.models.Model(x, layer(x))
        return lambda x, training: model(tf.convert_to_tensor(x), training=training).numpy()

    def _block_arguments(self, plan: Plan, row: Block) -> dict[str, Any]:
        """The arguments that blocks and networks have in common."""
        convs = [op for op in plan.ops if isinstance(op, WSConv)]
        padding = {op.padding for op in convs if op.kernel > 1}
        kinds = {(op.kind, op.slope) for op in plan.ops if isinstance(op, Activation)}
        sides = {row.kernel, row.second_kernel, 1 + 2 * row.dilation}
        if sides != {3} or len(kinds) > 1 or len(padding) > 1:
            raise NotOffered(f"{PACKAGE} has 3x3 convs, one activation and one padding")
        if not any(op.name.endswith(".conv1b") for op in convs):
            raise NotOffered(f"{PACKAGE} has two 3x3 convs in a block")
        return {
            "alpha": row.alpha,
            "channel_ratio": row.mid_channels / row.out_channels,
            "se_ratio": row.attention_size / row.out_channels if row.attention == "se" else 0,
            "group_size": row.mid_channels // row.groups,
            "use_zero_init_gain": any(name.endswith(".skip_gain") for name in plan.parameters),
            "torch_padding": padding == {"symmetric"},
            "attn_type": row.attention,
            "activation": _activation(*kinds.pop()),
        }

    def block(self, plan: Plan) -> Function:
        (row,) = plan.blocks
        how = self._block_arguments(plan, row)
        gamma = self.nfnets.NON_LINEAR_GAMMA.get(how["activation"].split("/")[0], 1.0)
        at_weight = _gamma_at_weight(plan)
        gammas = {
            "conv_gamma": gamma if at_weight else 1.0,
            "act_gamma": 1.0 if at_weight else gamma,
        }
        model = self._model(
            row.in_channels,
            lambda x: self.nfnets.block(
                x, row.out_channels, row.beta, row.stride, **how, **gammas, name=""
            ),
        )
        places = {name: _place(name.removeprefix(f"{row.name}.")) for name in plan.parameters}
        _require_same(plan, places, model)

        def function(x: Any, params: Mapping[str, Any]) -> Any:
            return _applied(model, {places[name]: params[name] for name in places}, x)

        return function

    def forward(self, plan: Plan) -> Function:
        rows, widths = plan.blocks, {row.stage: row.out_channels for row in plan.blocks}
        firsts = [row for row in rows if row.index == 0]
        stem = [op for op in plan.ops if isinstance(op, WSConv) and op.name.startswith("stem.")]
        final = plan.parameters.get("final_conv.bias")
        whole = self.nfnets.NormFreeNet(
            [sum(row.stage == stage for row in rows) for stage in widths],
            stem_width=stem[-1].out_channels,
            out_channels=list(widths.values()),
            num_features_factor=0 if final is None else final.size / rows[-1].out_channels,
            strides=[row.stride for row in firsts],
            input_shape=(None, None, plan.channels),
            num_classes=plan.tap_info["logits"].channels,
            gamma_in_act=not _gamma_at_weight(plan),
            **self._block_arguments(plan, rows[-1]),
            classifier_activation=None,
            pretrained=None,
        )
        outputs = {
            "stem": whole.get_layer("stem_4_conv").output,
            **{row.name: whole.get_layer(f"{_prefix(row)}output").output for row in rows},
            "features": whole.get_layer("avg_pool").input,
            "pool": whole.get_layer("avg_pool").output,
            "logits": whole.output,
        }
        model = self.models.Model(whole.input, outputs)
        places = {name: _network_place(name) for name in plan.parameters}
        _require_same(plan, places, model)

        def function(x: Any, params: Mapping[str, Any]) -> Any:
            return _applied(model, {places[name]: params[name] for name in places}, x)

        return function


def _applied(model: Any, values: Mapping[str, Any], x: Any) -> Any:
    """The output of a model.

    Args:
        model: The model.
        values: "layer/leaf" to the canonical value, which takes the place of the layer's variable.
        x: Images, (N, H, W, C).
    """
    import tensorflow as tf

    for place, value in values.items():
        name, _, leaf = place.partition("/")
        layer = model.get_layer(name)
        match leaf:
            case "kernel":
                layer.kernel = tf.reshape(value, layer.kernel.shape)
            case "gain" if not name.endswith("_conv"):  # a ZeroInitGain
                layer.gain = value
            case "gain":
                layer.gain = value
                # Keras 2 compiles grouped convs once, with the gain of that time.
                compiled = tf.function(layer.convolution_op, jit_compile=True, autograph=False)
                layer._jit_compiled_convolution_op = compiled
            case "bias":
                layer.bias = value
    return model(x)


def _activation(kind: str, slope: float) -> str:
    """The code's name of an activation."""
    if kind == "leaky_relu":
        return f"leaky_relu/{slope}"
    if kind not in ACTIVATIONS:
        raise NotOffered(f"{PACKAGE} has no function {kind}")
    return ACTIVATIONS[kind]


def _gamma_at_weight(plan: Plan) -> bool:
    return any(op.gamma != 1.0 for op in plan.ops if isinstance(op, WSConv))


def _prefix(row: Block) -> str:
    return f"stack{row.stage + 1}_block{row.index + 1}_"


def _place(name: str) -> str:
    """The code's layer and leaf of a parameter within a block, given the canonical name."""
    if name == "skip_gain":
        return "deep_gain/gain"
    layer, _, leaf = name.rpartition(".")
    if layer not in LAYERS:
        raise NotOffered(f"{PACKAGE}'s blocks have no {name}")
    return f"{LAYERS[layer]}/{leaf}"


def _network_place(name: str) -> str:
    """The code's layer and leaf of a network's parameter."""
    first, *rest = name.split(".")
    match first:
        case "stem":  # stem.conv0.kernel
            return f"stem_{int(rest[0].removeprefix('conv')) + 1}_conv/{rest[1]}"
        case "stages":  # stages.0.blocks.0.conv0.kernel
            return f"stack{int(rest[0]) + 1}_block{int(rest[2]) + 1}_{_place('.'.join(rest[3:]))}"
        case "final_conv":
            return f"post_conv/{rest[0]}"
        case _:  # head.fc.kernel
            return f"predictions/{rest[1]}"


def _require_same(plan: Plan, places: Mapping[str, str], model: Any) -> None:
    """Refuse a model that has not the parameters that are asked for.

    Raises:
        NotOffered: Names or sizes differ.
    """
    has = {
        weight.name.partition(":")[0]: weight.shape.num_elements()
        for weight in model.trainable_weights
    }
    asked = {place: plan.parameters[name].size for name, place in places.items()}
    for place in {**asked, **has}:
        if asked.get(place) != has.get(place):
            raise NotOffered(
                f"{place}: {PACKAGE} has {has.get(place, 'no')} elements, and "
                f"{asked.get(place, 'none')} are asked for"
            )
