"""timm's work: its network of the same name, with its own AGC and PyTorch's SGD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from nfspec.benchmarks import inputs
from nfspec.benchmarks.device import narrowed, placed
from nfspec.benchmarks.works import RATE, Setup, Work
from nfspec.conformance.subjects.timm import imported
from nfspec.errors import InputError

timm = imported()


def name_of(setup: Setup) -> str:
    """timm's name of a variant."""
    variant = setup.variant
    if setup.changes:
        raise InputError("timm has this network without changes alone")
    known = {"nfnet-": "dm_nfnet_", "nf-regnet-": "nf_regnet_", "timm/": ""}
    for ours, theirs in known.items():
        name = theirs + variant.removeprefix(ours)
        if variant.startswith(ours) and timm.is_model(name):
            return name
    raise InputError(f"timm has no {variant}")


def _model(setup: Setup) -> Any:
    return placed(timm.create_model(name_of(setup)))


def _images(setup: Setup) -> Any:
    return placed(torch.from_numpy(inputs.images_nchw(setup)))


def forward(
    setup: Setup, channels_last: bool = False, bf16: bool = False, compiled: bool = False
) -> Work:
    """Eager, unless it is to be compiled, which takes a C++ compiler."""
    model, x = _model(setup).eval(), _images(setup)
    if channels_last:
        model, x = (v.to(memory_format=torch.channels_last) for v in (model, x))
    if bf16 or setup.narrow:
        model, x = model.to(torch.bfloat16), x.to(torch.bfloat16)
    if compiled:
        model = torch.compile(model, dynamic=False)
    return torch.inference_mode()(lambda: model(x))


def _optimizer(model: Any) -> Any:
    return torch.optim.SGD(model.parameters(), RATE, momentum=0.9, nesterov=True)


def _clip(model: Any) -> None:
    from timm.utils.agc import adaptive_clip_grad

    adaptive_clip_grad(model.parameters(), 0.01)


def step(setup: Setup, channels_last: bool = False, compiled: bool = False) -> Work:
    """timm's defaults: neither dropout nor stochastic depth."""
    model, x = _model(setup).train(), _images(setup)
    if channels_last:
        model, x = (v.to(memory_format=torch.channels_last) for v in (model, x))
    optimizer = _optimizer(model)
    classes = inputs.classes_of(inputs.plan_of(setup))
    y = placed(torch.from_numpy(inputs.labels(setup, classes)))
    network = torch.compile(model, dynamic=False) if compiled else model

    def run() -> None:
        optimizer.zero_grad()
        with narrowed(setup.narrow):
            loss = torch.nn.functional.cross_entropy(network(x), y)
        loss.backward()
        _clip(model)
        optimizer.step()

    return run


def _with_gradients(setup: Setup) -> Any:
    model = _model(setup)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return model


def agc(setup: Setup) -> Work:
    model = _with_gradients(setup)
    return lambda: _clip(model)


def optimizer(setup: Setup) -> Work:
    model = _with_gradients(setup)
    stepper = _optimizer(model)

    def run() -> None:
        _clip(model)
        stepper.step()

    return run


MAKERS: dict[str, Callable[..., Work]] = {
    "forward": forward,
    "step": step,
    "agc": agc,
    "optimizer": optimizer,
}
