"""timm's layers, models and gradient clipping (timm 1.0.31), as its users have them.

The adapter passes on those fields of a description that timm takes as arguments: sizes, stride,
dilation, padding, gamma of a conv, eps under timm's own rule, and lambda and eps of clipping.
Everything else is timm's own convention, whatever is asked: the variance plus eps, GELU by erf,
gammas from its table, an attention gain of 2, a symmetric padding of max pools, units of clipping
by its own rule.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
from collections.abc import Mapping
from typing import Any

from nfspec.conformance.cases.case import Clip
from nfspec.conformance.subjects import Function, NotOffered
from nfspec.conformance.subjects.torch_layout import applied, tapped, theirs
from nfspec.errors import BackendError
from nfspec.plan import ECA, Activation, Plan, Pool, SqueezeExcite, WSConv
from nfspec.plan.standardisation import one_for_all
from nfspec.weights.timm import names, timm_shapes

EPS = 1e-5  # of its models' convs; the layers' default is 1e-6
ACTIVATIONS = {
    "gelu_tanh": "gelu",  # its models know one GELU
    "gelu_erf": "gelu",
    **{
        kind: kind
        for kind in (
            "identity", "celu", "elu", "leaky_relu", "relu", "relu6", "selu", "sigmoid", "silu",
            "tanh",
        )
    },
}  # fmt: skip
FAMILIES = {
    "timm/": "",
    "nfnet-f": "dm_nfnet_f",
    "nf-regnet-b": "nf_regnet_b",
    "nf-resnet-": "nf_resnet",
    "nf-seresnet-": "nf_seresnet",
}


def imported() -> Any:
    """The module timm.

    Raises:
        BackendError: It is not installed, or torchvision, which it imports, is not.
    """
    if importlib.util.find_spec("timm") is None:
        raise BackendError("timm is not installed; run: pip install timm")
    try:
        return importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:  # no torchvision, or one built for another torch
        raise BackendError(
            f"timm cannot be imported: {error}; it needs a torchvision that was built for the "
            "installed torch; run: pip install torchvision"
        ) from None


class Timm:
    framework = "torch"
    package = "timm"

    def __init__(self, mode: str):
        self.timm = imported()
        if mode not in ("f32", "tf32"):
            raise NotOffered(f"timm's layers are not tested in mode {mode}")

    def ws_conv(self, op: WSConv) -> Function:
        from timm.layers import ScaledStdConv2d, ScaledStdConv2dSame

        if op.eps_rule == "none":
            raise NotOffered("timm standardises the kernels of all convs")

        kind, padding = {
            "same": (ScaledStdConv2dSame, "SAME"),
            "symmetric": (ScaledStdConv2d, None),
            "valid": (ScaledStdConv2d, 0),
        }[op.padding]
        layer = kind(
            op.in_channels,
            op.out_channels,
            op.kernel,
            stride=op.stride,
            padding=padding,
            dilation=op.dilation,
            groups=op.groups,
            gamma=op.gamma,
            eps=op.eps if op.eps_rule == "add" else EPS,
            device="meta",
        )

        def function(x: Any, kernel: Any, gain: Any, bias: Any) -> Any:
            values = {"weight": kernel, "gain": gain, "bias": bias}
            return applied(layer, values, x)

        return function

    def activation(self, op: Activation) -> Function:
        from timm.layers import get_act_layer
        from timm.models import nfnet

        kind = ACTIVATIONS.get(op.kind)
        if kind is None:
            raise NotOffered(f"timm has no function {op.kind}")
        if op.gamma == 1.0:  # in the convs instead
            function = get_act_layer(kind)()
        elif kind == "identity":
            raise NotOffered("timm has no identity with a gamma")
        else:
            function = nfnet.GammaAct(kind, gamma=nfnet._nonlin_gamma[kind])
        return lambda x: function(x) * op.beta

    def pool(self, op: Pool) -> Function:
        from timm.layers import AvgPool2dSame
        from torch import nn

        layer: Any
        if (op.kind, op.window, op.stride, op.counted) == ("avg", 2, 1, True):
            layer = AvgPool2dSame(2, 1, ceil_mode=True, count_include_pad=False)
        elif (op.kind, op.window, op.counted) == ("avg", 2, False) and op.stride > 1:
            layer = nn.AvgPool2d(2, op.stride, ceil_mode=True, count_include_pad=False)
        elif (op.kind, op.window, op.stride) == ("max", 3, 2):
            layer = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            raise NotOffered(f"timm's models have no {op.kind} pool of {op.window}x{op.window}")
        return lambda x: applied(layer, {}, x)

    def squeeze_excite(self, op: SqueezeExcite) -> Function:
        from timm.layers import SEModule
        from timm.models.nfnet import NfCfg

        layer = SEModule(op.channels, rd_channels=op.hidden, device="meta")

        def function(x: Any, *values: Any) -> Any:
            given = dict(zip(("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"), values))  # noqa: B905
            return NfCfg.attn_gain * applied(layer, given, x)

        return function

    def eca(self, op: ECA) -> Function:
        from timm.layers import EcaModule
        from timm.models.nfnet import NfCfg

        if op.kernel % 2 == 0:
            raise NotOffered(f"timm's ECA has an odd number of taps, not {op.kernel}")
        layer = EcaModule(kernel_size=op.kernel, device="meta")
        return lambda x, kernel: NfCfg.attn_gain * applied(layer, {"conv.weight": kernel}, x)

    def agc(self, clip: Clip) -> Function:
        from timm.utils.agc import adaptive_clip_grad

        def function(gradient: Any, parameter: Any) -> Any:
            shape = _shape(clip)
            held = theirs(parameter, shape).clone()
            held.grad = theirs(gradient, shape).clone()
            adaptive_clip_grad(held, clip_factor=clip.clipping, eps=clip.eps)
            return _ours(held.grad, clip.shape)

        return function

    def _model(self, plan: Plan) -> Any:
        """timm's model of a plan's name, without values.

        Raises:
            NotOffered: timm has no such model, or one with other parameters.
        """
        if reason := one_for_all(plan):
            raise NotOffered(f"{plan.name} {reason}, and timm has one for all")
        prefix = next((p for p in FAMILIES if plan.name.startswith(p)), "")
        name = FAMILIES.get(prefix, "") + plan.name.removeprefix(prefix)
        if not self.timm.is_model(name):
            raise NotOffered(f"timm has no model for {plan.name}")
        how = {"output_stride": _output_stride(plan), "device": "meta"}
        model = self.timm.create_model(name, **how).eval()
        shapes = {k: tuple(v.shape) for k, v in model.named_parameters()}
        # A plan of one block has parameters of a model that has more.
        wanted = {k: tuple(v) for k, v in timm_shapes(plan).items()}
        prefixes = tuple(f"stages.{row.stage}.{row.index}." for row in plan.blocks)
        whole = "logits" in plan.taps
        theirs = {k: v for k, v in shapes.items() if whole or k.startswith(prefixes)}
        for key in {**wanted, **theirs}:
            if wanted.get(key) != theirs.get(key):
                has, asked = theirs.get(key, "none"), wanted.get(key, "none")
                raise NotOffered(f"{key}: timm's {name} has {has}, and {plan.name} {asked}")
        for op in plan.ops:
            if isinstance(op, WSConv):
                layer = model.get_submodule(
                    names(plan)[f"{op.name}.kernel"].removesuffix(".weight")
                )
                has, asked = (layer.stride[0], layer.dilation[0]), (op.stride, op.dilation)
                if has != asked:
                    raise NotOffered(
                        f"{op.name}: timm's {name} has stride and dilation {has}, and "
                        f"{plan.name} {asked}"
                    )
        return model

    def block(self, plan: Plan) -> Function:
        (row,) = plan.blocks
        module = self._model(plan).stages[row.stage][row.index]
        prefix = f"stages.{row.stage}.{row.index}."
        places = {name: key.removeprefix(prefix) for name, key in names(plan).items()}

        def function(x: Any, params: Mapping[str, Any]) -> Any:
            return applied(module, {places[name]: params[name] for name in places}, x)

        return function

    def forward(self, plan: Plan) -> Function:
        model, places = self._model(plan), names(plan)
        modules = {"stem": model.stem, "features": model.final_act, "pool": model.head.global_pool}
        modules |= {row.name: model.stages[row.stage][row.index] for row in plan.blocks}
        taps = tapped(modules)

        def function(x: Any, params: Mapping[str, Any]) -> Any:
            taps.clear()
            logits = applied(model, {places[name]: params[name] for name in places}, x)
            return {**taps, "logits": logits}

        return function


def _output_stride(plan: Plan) -> int:
    """The stride of the network that a plan is of, which may be of one block alone: timm's
    argument, and 32 where no conv is dilated."""
    spec = json.loads(plan.canonical)
    stem, stages = spec["stem"], spec["stages"]["stride"]
    of_stem = stem["stride"] if isinstance(stem["stride"], list) else [stem["stride"]]
    convs = of_stem * (len(stem["width"]) // len(of_stem))
    return math.prod([*convs, *stages, 2 if stem["pool"] == "max" else 1])


def _ours(value: Any, shape: tuple[int, ...]) -> Any:
    """The inverse, given the canonical shape."""
    return value.permute(2, 3, 1, 0) if len(shape) == 4 else value.reshape(shape[::-1]).t()


def _shape(clip: Clip) -> tuple[int, ...]:
    """timm's shape of a parameter."""
    if clip.role == "gain":
        return (*clip.shape, 1, 1, 1)
    if clip.role == "kernel" and len(clip.shape) == 1:
        return (1, 1, *clip.shape)  # ECA's taps
    return clip.shape[::-1]
