"""The target `torch`: modules of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nfspec.conformance.cases.case import Arrays, Clip
from nfspec.conformance.subjects import Function, NotOffered
from nfspec.conformance.subjects.generated import (
    Generated,
    carriers,
    decays,
    given,
    rate,
    recorded,
    weight,
)
from nfspec.conformance.subjects.torch_layout import applied, images, ours, tapped, theirs
from nfspec.generation.native import native
from nfspec.plan import ECA, Plan, Pool, SqueezeExcite, WSConv
from nfspec.reference.training import recipe_of


def in_torch(value: Any) -> Any:
    """A canonical array or tensor in PyTorch's layout, as a tensor."""
    import torch

    tensor = torch.as_tensor(value)
    return theirs(tensor, tensor.shape[::-1])


class TorchSource(Generated):
    framework = "torch"
    target = "torch"

    def _model(self, plan: Plan) -> Any:
        """The file's network in inference, without values."""
        import torch

        with torch.device("meta"):
            return native(plan, "torch").eval()

    def ws_conv(self, op: WSConv) -> Function:
        import torch

        kind = self._file(carriers.with_conv(op)).WSConv2d
        with torch.device("meta"):
            sizes, more = (
                (op.in_channels, op.out_channels, op.kernel, op.stride),
                carriers.dilated(op),
            )
            layer = kind(*sizes, groups=op.groups, **more)

        def function(x: Any, kernel: Any, gain: Any, bias: Any) -> Any:
            return applied(layer, {"weight": kernel, "gain": gain, "bias": bias}, x)

        return function

    def squeeze_excite(self, op: SqueezeExcite) -> Function:
        import torch

        kind = self._file(carriers.with_squeeze_excite(op)).SqueezeExcite
        with torch.device("meta"):
            layer = kind(op.channels, op.hidden)
        names = ("fc0.weight", "fc0.bias", "fc1.weight", "fc1.bias")
        return lambda x, *values: applied(layer, dict(zip(names, values, strict=True)), x)

    def eca(self, op: ECA) -> Function:
        import torch

        kind = self._file(carriers.with_eca(op)).ChannelAttention
        with torch.device("meta"):
            layer = kind(op.kernel)
        return lambda x, kernel: applied(layer, {"weight": kernel}, x)

    def pool(self, op: Pool) -> Function:
        if op.kind == "max":
            raise NotOffered("the max pool is a line of the file's stem, which NET-01 tests")
        layer = self._model(carriers.with_pool(op)).get_submodule("stages.1.blocks.0.pool")
        return lambda x: applied(layer, {}, x)

    def agc(self, clip: Clip) -> Function:
        from torch import nn

        clip_gradients_ = self._file(carriers.with_clipping(clip)).clip_gradients_
        name = "weight" if clip.role in ("kernel", "head") else clip.role

        def function(gradient: Any, parameter: Any) -> Any:
            held = nn.Parameter(in_torch(parameter).clone(), requires_grad=False)
            held.grad = in_torch(gradient).clone()
            clip_gradients_(nn.ModuleDict({"op": nn.ParameterDict({name: held})}))
            return ours(held.grad)

        return function

    def block(self, plan: Plan) -> Function:
        whole, row = carriers.network_of(plan)
        layer = self._model(whole).get_submodule(row.name)
        places = {name: weight(name).removeprefix(f"{row.name}.") for name in plan.parameters}

        def function(x: Any, params: Mapping[str, Any]) -> Any:
            return applied(layer, {places[name]: params[name] for name in places}, x)

        return function

    def forward(self, plan: Plan) -> Function:
        model = self._model(plan)
        taps = _taps_of(model, plan)

        def function(x: Any, params: Mapping[str, Any]) -> Any:
            taps.clear()
            logits = applied(model, {weight(name): params[name] for name in plan.parameters}, x)
            return {**taps, "logits": logits}

        return function

    def ways(self, plan: Plan, params: Arrays, seed: int) -> dict[str, Function]:
        """In training mode, which PyTorch has one of. The pool is read in inference: the file
        drops features in the same function."""
        import torch

        torch.manual_seed(seed)
        model = native(plan, "torch", params=params).to(_device())
        taps = _taps_of(model, plan)

        def training(x: Any) -> Any:
            taps.clear()
            with torch.no_grad():
                logits = model.train()(_nchw(x))
                features = taps["features"].permute(0, 3, 1, 2)
                taps["pool"] = model.eval().forward_head(features, pre_logits=True)
            return {
                name: value.cpu().numpy() for name, value in (*taps.items(), ("logits", logits))
            }

        return {"training": training}

    def _trainer(self, plan: Plan, params: Arrays) -> tuple[Any, Any]:
        """A network in training mode, and PyTorch's SGD over the file's parameter groups.

        Raises:
            NotOffered: The recipe's decay is not that of the file's groups.
        """
        import torch

        recipe = recipe_of(plan)
        model = native(plan, "torch", params=params).to(_device()).train()
        groups = model.parameter_groups(recipe.weight_decay)
        names = {id(p): name for name, p in model.named_parameters()}
        decay = {names[id(p)]: g["weight_decay"] for g in groups for p in g["params"]}
        if decay != {weight(name): value for name, value in decays(plan).items()}:
            raise NotOffered("the file's parameter groups let kernels decay, and nothing else")
        how = {"momentum": recipe.momentum, "nesterov": recipe.nesterov and recipe.momentum > 0}
        return model, torch.optim.SGD(groups, lr=0.0, **how)

    def _descend(self, plan: Plan, model: Any, optimizer: Any, step: int) -> None:
        """Clip the gradients that are there, and take a step."""
        if plan.agc.enabled:
            self._file(plan).clip_gradients_(model)
        for group in optimizer.param_groups:
            group["lr"] = rate(plan, step)
        optimizer.step()

    def train(self, plan: Plan, params: Arrays, x: Any, labels: Any, steps: int) -> Arrays:
        import torch

        model, optimizer = self._trainer(plan, params)
        smoothing = recipe_of(plan).label_smoothing
        x, labels = _nchw(x), torch.as_tensor(labels, device=_device())
        losses: list[float] = []
        after: dict[str, Any] = {}
        for step in range(steps):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), labels, label_smoothing=smoothing)
            loss.backward()
            losses.append(loss.item())
            self._descend(plan, model, optimizer, step)
            after |= recorded(step, steps, lambda: _arrays(plan, dict(model.named_parameters())))
        return {"losses": np.asarray(losses, np.float32), **after}

    def step(
        self, plan: Plan, params: Arrays, momentum: Arrays, gradients: Arrays, done: int
    ) -> Arrays:
        model, optimizer = self._trainer(plan, params)
        own = dict(model.named_parameters())
        for name in plan.parameters:
            p = own[weight(name)]
            p.grad = in_torch(gradients[name]).to(p.device, copy=True)
            optimizer.state[p]["momentum_buffer"] = in_torch(momentum[name]).to(p.device, copy=True)
        self._descend(plan, model, optimizer, done)
        buffers = {name: optimizer.state[p]["momentum_buffer"] for name, p in own.items()}
        return {
            **{f"parameter/{name}": value for name, value in _arrays(plan, own).items()},
            **{f"momentum/{name}": value for name, value in _arrays(plan, buffers).items()},
        }

    def through(self, plan: Plan, params: Arrays | None) -> Arrays:
        return _arrays(plan, dict(native(plan, "torch", params=given(params)).named_parameters()))


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _nchw(x: Any) -> Any:
    import torch

    return torch.as_tensor(x, device=_device()).permute(0, 3, 1, 2)


def _arrays(plan: Plan, values: Mapping[str, Any]) -> Arrays:
    """PyTorch's parameters, or what is of their shapes, by canonical name and in its layout."""
    return {
        name: np.array(ours(values[weight(name)].detach()).cpu().numpy())
        for name in plan.parameters
    }


def _taps_of(model: Any, plan: Plan) -> dict[str, Any]:
    """A dict that holds all taps but the logits, once the file's network was evaluated."""
    blocks = {row.name: model.get_submodule(row.name) for row in plan.blocks}
    taps = tapped(blocks)

    def keep(name: str) -> Callable[..., None]:
        return lambda module, inputs: taps.__setitem__(name, images(inputs[0]))

    blocks[plan.blocks[0].name].register_forward_pre_hook(keep("stem"))
    model.head["fc"].register_forward_pre_hook(keep("pool"))
    forward_features = model.forward_features

    def kept(x: Any) -> Any:
        features = forward_features(x)
        taps["features"] = images(features)
        return features

    model.forward_features = kept
    return taps
