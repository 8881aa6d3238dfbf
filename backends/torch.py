"""Adaptive gradient clipping as a hook of any torch.optim optimizer, for loops in PyTorch.

    clipping = agc(plan, optimizer, model)
    loss.backward()
    optimizer.step()
    clipping.clip_fraction["stem.conv0.kernel"]

Source: Brock et al. 2021 (arXiv:2102.06171 §4.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from nfspec.compilation import select
from nfspec.errors import InputError
from nfspec.plan import Plan
from nfspec.plan.clipping import ClipRule, TreatAs, rules_for


class Clipping:
    """The handle that `agc` returns: it removes the hook, and tells what the last step clipped."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        known: dict[Any, tuple[str, ClipRule]],
        plain: bool,
    ):
        self._plain = plain
        self._known = known  # parameter to canonical name and rule
        self._fractions: dict[str, Any] = {}
        self._require_known(optimizer)
        self._hook = optimizer.register_step_pre_hook(self._before_step)

    @property
    def clip_fraction(self) -> dict[str, float]:
        """Canonical name to the fraction of its units that the last step clipped, of each parameter
        that AGC may clip and that had a gradient."""
        return {name: float(fraction) for name, fraction in self._fractions.items()}

    def remove(self) -> None:
        """Let the optimizer step without clipping again."""
        self._hook.remove()

    def _require_known(self, optimizer: torch.optim.Optimizer) -> list[Any]:
        """The parameters that the optimizer may change. All must be known.

        Frozen parameters and counters are left out: they have no gradient, so no optimizer
        changes them.
        """
        given = [p for group in optimizer.param_groups for p in group["params"]]
        parameters = [p for p in given if _moves(p)]
        strangers = [tuple(p.shape) for p in parameters if p not in self._known]
        if strangers:
            raise InputError(
                f"agc: the optimizer has parameters that the plan does not have, of shapes "
                f"{', '.join(map(str, strangers[:20]))}; call agc with a module that has them all, "
                "and name in treat_as, for each, a parameter that is clipped by the same rule"
            )
        return parameters

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> Any:
        if "grad_scaler" in kwargs:
            raise InputError(
                f"agc: {type(optimizer).__name__} unscales gradients inside its step, where AGC "
                "cannot clip them; use an optimizer of torch.optim, or no torch.amp.GradScaler"
            )
        if kwargs.get("closure") is not None:
            return args, {**kwargs, "closure": self._after(kwargs["closure"], optimizer)}
        if len(args) > 1 and args[1] is not None:
            return (args[0], self._after(args[1], optimizer), *args[2:]), kwargs
        self._clip(optimizer)
        return None

    def _after(self, closure: Callable[[], Any], optimizer: Any) -> Callable[[], Any]:
        """The closure, which computes gradients within the step, and clipping after it."""

        def closure_and_clip() -> Any:
            loss = closure()
            self._clip(optimizer)
            return loss

        return closure_and_clip

    def _clip(self, optimizer: Any) -> None:
        from nfspec.backends.kernels import kernels

        chosen = [
            (parameter, *self._known[parameter])
            for parameter in self._require_known(optimizer)
            if parameter.grad is not None and self._known[parameter][1].clipping is not None
        ]
        parameters, rules = [p for p, _, _ in chosen], [rule for _, _, rule in chosen]
        # torch.amp.GradScaler hands fused optimizers scaled gradients and their scale:
        # torch/amp/grad_scaler.py, `step`.
        scale = getattr(optimizer, "grad_scale", None)
        with torch.no_grad():
            gradients = [p.grad if scale is None else _unscaled(p.grad, scale) for p in parameters]
            clipped, fractions = kernels(self._plain).clip_all(gradients, parameters, rules)
            if scale is not None:
                clipped = [gradient * scale.to(gradient.device) for gradient in clipped]
            moved = [
                (parameter.grad, gradient)
                for parameter, gradient in zip(parameters, clipped, strict=True)
                if gradient is not parameter.grad
            ]
            if moved:  # one launch on a GPU
                torch._foreach_copy_(*map(list, zip(*moved, strict=True)))
        self._fractions = dict(zip([name for _, name, _ in chosen], fractions, strict=True))


def _unscaled(gradient: Any, scale: Any) -> Any:
    wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    return wide / scale.to(gradient.device)


def agc(
    plan: Plan,
    optimizer: torch.optim.Optimizer,
    model: Any | Mapping[str, torch.nn.Parameter],
    *,
    treat_as: TreatAs | None = None,
    plain: bool = False,
) -> Clipping:
    """Clip gradients before each step of an optimizer, as the plan's `[agc]` says.

    `.grad` is changed in place. Gradients may be accumulated over several backward passes, and
    scaled by a `torch.amp.GradScaler`.

    Args:
        plan: The network.
        optimizer: Any of torch.optim; only its parameters are clipped. It may be given a closure.
            It may hold frozen parameters and counters, too.
        model: A model that `nfspec.compile` returned, or any module with one in it; or a dict
            of canonical name to parameter in the canonical layout. Not all of the plan's need be
            there.
        treat_as: For parameters of other layers that are in the optimizer, their names in `model`
            to the name of the plan's parameter that each is clipped like, or to None:
            `{"decoder.*": None}`. See `nfspec.agc`. Kernels of PyTorch's convs and linear layers
            are clipped by their outputs, as the plan's are.
        plain: Use the plain kernels, as a network compiled with `plain=True` does.

    Returns:
        A handle: `clip_fraction` tells what the last step clipped, `remove()` ends it.

    Raises:
        InputError: The plan does not clip, a parameter is not the plan's, or the optimizer has
            one that is not known.
        BackendError: Keras runs on another framework.
    """
    select("torch")
    held = _held(model)
    if not held or not (isinstance(model, Mapping) or any(n in plan.parameters for n in held)):
        raise InputError(
            f"agc: {type(model).__name__} has no parameters made by nfspec; give a dict of "
            "canonical name to parameter, kernels HWIO and dense kernels IO"
        )
    given = {p for group in optimizer.param_groups for p in group["params"]}
    held = {
        name: (p, order)
        for name, (p, order) in held.items()
        if name in plan.parameters or isinstance(model, Mapping) or (p in given and _moves(p))
    }
    shapes = [[p.shape[axis] for axis in order or range(p.ndim)] for p, order in held.values()]
    rules = rules_for(plan, list(held), shapes, treat_as)
    known = {}
    for (name, (parameter, order)), rule in zip(held.items(), rules, strict=True):
        if order is None and rule.clipping is not None:
            raise InputError(
                f"agc: {name} {tuple(parameter.shape)}: the axis of its outputs is not known; "
                f'leave it unclipped: treat_as={{"{name}": None}}'
            )
        if order is not None and rule.axes is not None:
            rule = replace(rule, axes=tuple(sorted(order[axis] for axis in rule.axes)))
        known[parameter] = (name, rule)
    return Clipping(optimizer, known, plain)


def _moves(parameter: Any) -> bool:
    """True if an optimizer may change a parameter; frozen ones and counters have no gradient."""
    return bool(parameter.requires_grad or parameter.grad is not None)


Held = dict[str, tuple[Any, tuple[int, ...] | None]]  # parameter, and its axes as HWIO or IO


def _held(model: Any) -> Held:
    """The parameters of a network by canonical name, and those of other layers by their own."""
    if isinstance(model, Mapping):
        return {name: (p, tuple(range(p.ndim))) for name, p in model.items()}
    modules = list(model.named_modules()) if isinstance(model, torch.nn.Module) else []
    held: Held = {}
    for _, module in modules:
        for variable in getattr(module, "variables", ()):  # of Keras
            name = getattr(variable, "canonical", variable.path)
            held[name] = (variable.value, tuple(range(variable.value.ndim)))
    seen = {parameter for parameter, _ in held.values()}
    for path, module in modules:
        for local, parameter in module.named_parameters(recurse=False):
            if parameter not in seen:
                name = f"{path}.{local}" if path else local
                held[name] = (parameter, _order(module, parameter.ndim))
    return held


def _order(module: torch.nn.Module, rank: int) -> tuple[int, ...] | None:
    """The axes of a PyTorch layer's kernel in the order HWIO or IO; None for an unknown layer."""
    if rank < 2:
        return tuple(range(rank))
    if isinstance(module, _ConvTransposeNd):
        return (*range(2, rank), 0, 1)
    if isinstance(module, torch.nn.Linear | _ConvNd):
        return (*range(2, rank), 1, 0)
    return None
