"""nfnets-pytorch 0.1.3: its convs, AGC, optimizer, bottleneck and ResNets.

The package has two convs. `NFNetsPyTorch` is with WSConv2d, to which its `replace_conv` changes a
network; `NFNetsPyTorchScaledStd` is with ScaledStdConv2d, of which its own ResNets are made.

The adapter passes on what the code takes as arguments: sizes, stride, groups, eps under the code's
own rule, gamma of a ScaledStdConv2d, slope of leaky_relu, alpha and beta of a block, beta of a
network if it is the same for all blocks, lambda and eps of clipping, and the optimizer's settings.
Everything else is the code's own convention, whatever is asked: the variance and fan-in, symmetric
padding, gammas from its table, GELU by erf, the units of clipping.

Its blocks have no biases. They are given convs with biases by the argument `base_conv`.
"""

from __future__ import annotations

import collections
import collections.abc
import importlib.util
import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

from nfspec.conformance.cases.case import Arrays, Clip
from nfspec.conformance.cases.reduction import RATE_STEPS
from nfspec.conformance.subjects import Function, NotOffered
from nfspec.conformance.subjects.torch_layout import applied, ours, require_same, tapped, theirs
from nfspec.errors import BackendError
from nfspec.plan import Activation, Block, Plan, Pool, WSConv
from nfspec.plan.clipping import clip_rules
from nfspec.reference import training

PACKAGE = "nfnets-pytorch"
ACTIVATIONS = {
    "gelu_tanh": "gelu",
    "gelu_erf": "gelu",
    **{
        kind: kind
        for kind in (
            "celu", "elu", "leaky_relu", "log_sigmoid", "relu", "relu6", "selu", "sigmoid", "silu",
            "softplus", "tanh",
        )
    },
}  # fmt: skip
CONVS = {"conv0": "conv1", "conv1": "conv2", "conv2": "conv3", "conv_shortcut": "downsample.0"}
LEAVES = {"kernel": "weight", "gain": "gain", "bias": "bias"}


class NFNetsPyTorch:
    framework = "torch"
    package = PACKAGE
    conv: ClassVar[str] = "WSConv2d"

    def __init__(self, mode: str):
        if importlib.util.find_spec("nfnets") is None:
            raise BackendError(f"{PACKAGE} is not installed; run: make strangers")
        if mode not in ("f32", "tf32"):
            raise NotOffered(f"{PACKAGE} is not tested in mode {mode}")
        # 0.1.3 imports Iterable from where Python 3.10 no longer has it.
        collections.Iterable = collections.abc.Iterable  # type: ignore[attr-defined]
        import nfnets
        from nfnets.models import resnet

        self.nfnets, self.resnet = nfnets, resnet

    def _conv(self, op: WSConv, padding: int) -> tuple[Any, dict[str, Any]]:
        """A conv, and the arguments that its call takes."""
        layer = self.nfnets.WSConv2d(
            op.in_channels, op.out_channels, op.kernel, op.stride, padding, dilation=op.dilation,
            groups=op.groups,
        )  # fmt: skip
        return layer, {"eps": op.eps} if op.eps_rule == "max" else {}

    def _base_conv(self) -> Any:
        """The class of convs that networks are made of."""
        return self.nfnets.WSConv2d

    def ws_conv(self, op: WSConv) -> Function:
        if op.eps_rule == "none":
            raise NotOffered(f"{PACKAGE} standardises all kernels")
        padding = 0 if op.padding == "valid" else (op.stride + op.extent - 2) // 2
        layer, how = self._conv(op, padding)

        def function(x: Any, kernel: Any, gain: Any, bias: Any) -> Any:
            return applied(layer, {"weight": kernel, "gain": gain, "bias": bias}, x, **how)

        return function

    def activation(self, op: Activation) -> Function:
        kind = ACTIVATIONS.get(op.kind)
        if kind is None:
            raise NotOffered(f"{PACKAGE} has no function {op.kind}")
        if op.gamma == 1.0:
            raise NotOffered(f"{PACKAGE} has no activation without a gamma")
        how = {"negative_slope": op.slope} if kind == "leaky_relu" else {}
        return lambda x: self.resnet.activation_fn[kind](x, **how) * op.beta

    def pool(self, op: Pool) -> Function:
        from torch import nn

        if (op.kind, op.window, op.stride) != ("max", 3, 2):
            raise NotOffered(f"{PACKAGE} has no {op.kind} pool of {op.window}x{op.window}")
        layer = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)  # models/resnet.py, line 211
        return lambda x: applied(layer, {}, x)

    def agc(self, clip: Clip) -> Function:
        from torch.optim import SGD

        def function(gradient: Any, parameter: Any) -> Any:
            held = theirs(parameter, self._shape(clip)).clone()
            held.grad = theirs(gradient, self._shape(clip)).clone()
            inner = SGD([held], lr=0.0)
            self.nfnets.AGC([held], inner, clipping=clip.clipping, eps=clip.eps).step()
            return ours(held.grad).reshape(clip.shape)

        return function

    def _shape(self, clip: Clip) -> tuple[int, ...]:
        """The code's shape of a parameter."""
        if len(clip.shape) == 4:
            return (*clip.shape[:1:-1], *clip.shape[:2])
        return clip.shape[::-1]

    def step(
        self, plan: Plan, params: Arrays, momentum: Arrays, gradients: Arrays, done: int
    ) -> dict[str, Any]:
        """SGD_AGC, with a group of its own for each parameter."""
        import torch

        recipe, rules = plan.recipe, clip_rules(plan)
        assert recipe is not None
        held = {
            name: theirs(torch.tensor(value), self._parameter_shape(name, value.shape)).clone()
            for name, value in params.items()
        }
        groups = [
            {
                "params": [held[name]],
                "weight_decay": recipe.decay_of(plan.parameters[name].role),
                # Everything is clipped; with an infinite lambda nothing changes.
                "clipping": float("inf") if rules[name].clipping is None else rules[name].clipping,
                "eps": rules[name].eps,
            }
            for name in held
        ]
        rate = training.learning_rate(
            done, recipe.learning_rate, RATE_STEPS, 0.0, recipe.final_learning_rate
        )
        how = {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
        optimizer = self.nfnets.SGD_AGC(groups, lr=rate, **how)
        for name, value in held.items():
            value.grad = theirs(torch.tensor(gradients[name]), value.shape).clone()
            buffer = theirs(torch.tensor(momentum[name]), value.shape).clone()
            optimizer.state[value]["momentum_buffer"] = buffer
        optimizer.step()
        after = {f"parameter/{name}": value for name, value in held.items()}
        after |= {
            f"momentum/{name}": optimizer.state[value]["momentum_buffer"]
            for name, value in held.items()
        }
        return {
            key: ours(value).reshape(params[key.partition("/")[2]].shape).numpy()
            for key, value in after.items()
        }

    def _parameter_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The code's shape of a parameter, given its canonical name and shape."""
        if len(shape) == 4:
            return (*shape[:1:-1], *shape[:2])
        return shape[::-1]

    def _with_biases(self, *sizes: Any, bias: bool, **how: Any) -> Any:
        """A conv with a bias in place of one without."""
        return self._base_conv()(*sizes, **how)

    def block(self, plan: Plan) -> Function:
        (row,) = plan.blocks
        if row.dilation > 1:
            raise NotOffered(f"{PACKAGE} has no dilated blocks")
        activation = _activation(plan)
        planes = row.out_channels // self.resnet.Bottleneck.expansion
        shortcut = row.stride != 1 or row.in_channels != row.out_channels
        module = self.resnet.Bottleneck(
            row.in_channels,
            planes,
            row.stride,
            self.resnet.nn.Sequential(
                self.resnet.conv1x1(
                    row.in_channels, row.out_channels, row.stride, base_conv=self._with_biases
                )
            )
            if shortcut
            else None,
            row.groups,
            64 * row.mid_channels // (planes * row.groups),
            alpha=row.alpha,
            beta=row.beta,
            activation=activation,
            base_conv=self._with_biases,
        )
        places = {name: _place(name.removeprefix(f"{row.name}.")) for name in plan.parameters}
        shapes = {name: q.shape for name, q in plan.parameters.items()}
        require_same(f"{PACKAGE}'s Bottleneck", places, shapes, module)

        def function(x: Any, params: Mapping[str, Any]) -> Any:
            return applied(module, {places[name]: params[name] for name in places}, x)

        return function

    def forward(self, plan: Plan) -> Function:
        depths = [sum(1 for _ in rows) for _, rows in itertools.groupby(plan.blocks, _stage)]
        if len(depths) != 4:
            raise NotOffered(f"{PACKAGE}'s ResNets have 4 stages, not {len(depths)}")
        betas = {row.beta for row in plan.blocks}
        model = self.resnet.NFResNet(
            self.resnet.Bottleneck,
            depths,
            num_classes=plan.tap_info["logits"].channels,
            alpha=plan.blocks[0].alpha,
            **({"beta": betas.pop()} if len(betas) == 1 else {}),
            activation=_activation(plan),
            base_conv=self._with_biases,
        )
        modules = {
            row.name: model.get_submodule(f"layer{row.stage + 1}.{row.index}")
            for row in plan.blocks
        }
        places = {name: _network_place(name) for name in plan.parameters}
        shapes = {name: q.shape for name, q in plan.parameters.items()}
        require_same(f"{PACKAGE}'s NFResNet", places, shapes, model)
        taps = tapped({"stem": model.maxpool, **modules})

        def function(x: Any, params: Mapping[str, Any]) -> Any:
            taps.clear()
            logits = applied(model, {places[name]: params[name] for name in places}, x)
            return {**taps, "logits": logits}

        return function


class NFNetsPyTorchScaledStd(NFNetsPyTorch):
    conv = "ScaledStdConv2d"

    def _conv(self, op: WSConv, padding: int) -> tuple[Any, dict[str, Any]]:
        how = {"eps": op.eps} if op.eps_rule == "add_to_std" else {}
        layer = self.nfnets.ScaledStdConv2d(
            op.in_channels, op.out_channels, op.kernel, op.stride, padding, dilation=op.dilation,
            groups=op.groups, gamma=op.gamma, **how,
        )  # fmt: skip
        return layer, {}

    def _base_conv(self) -> Any:
        return self.nfnets.ScaledStdConv2d

    def _shape(self, clip: Clip) -> tuple[int, ...]:
        """Gains are (O, 1, 1, 1)."""
        return (*clip.shape, 1, 1, 1) if clip.role == "gain" else super()._shape(clip)

    def _parameter_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (
            (*shape, 1, 1, 1) if name.endswith(".gain") else super()._parameter_shape(name, shape)
        )


def _stage(row: Block) -> int:
    return row.stage


def _activation(plan: Plan) -> str:
    (kind,) = {op.kind for op in plan.ops if isinstance(op, Activation)}
    if kind not in ACTIVATIONS:
        raise NotOffered(f"{PACKAGE} has no function {kind}")
    return ACTIVATIONS[kind]


def _place(name: str) -> str:
    """The code's name of a parameter within a block, given the canonical one."""
    layer, _, leaf = name.rpartition(".")
    if layer not in CONVS:
        raise NotOffered(f"{PACKAGE}'s Bottleneck has no {name}")
    return f"{CONVS[layer]}.{LEAVES[leaf]}"


def _network_place(name: str) -> str:
    """The code's name of a network's parameter."""
    first, *rest = name.split(".")
    if first == "stages":
        return f"layer{int(rest[0]) + 1}.{rest[2]}.{_place('.'.join(rest[3:]))}"
    layers = {"stem.conv0": "conv1", "head.fc": "fc"}
    layer, _, leaf = name.rpartition(".")
    if layer not in layers:
        raise NotOffered(f"{PACKAGE}'s NFResNet has no {name}")
    return f"{layers[layer]}.{LEAVES[leaf]}"
