"""Adaptive gradient clipping as a hook of any torch.optim optimizer, for loops in PyTorch.

    clipping = agc(plan, optimizer, model)
    loss.backward()
    optimizer.step()
    clipping.clip_fraction["stem.conv0.kernel"]

Source: Brock et al. 2021 (arXiv:2102.06171 §4.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from nfspec.clipping import ClipRule, rules_for
from nfspec.compilation import select
from nfspec.errors import InputError
from nfspec.plan import Plan


class Clipping:
    """What `agc` returns: the hook, and what it did."""

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
        """The parameters that the optimizer may change, each known. What is frozen, or a counter,
        has no gradient, and no optimizer changes it."""
        given = [p for group in optimizer.param_groups for p in group["params"]]
        parameters = [p for p in given if p.requires_grad or p.grad is not None]
        strangers = [tuple(p.shape) for p in parameters if p not in self._known]
        if strangers:
            raise InputError(
                f"agc: the optimizer has parameters that the plan does not know, of shapes "
                f"{', '.join(map(str, strangers[:20]))}; give them an optimizer of their own, or "
                "name them: agc(plan, optimizer, {canonical name: parameter})"
            )
        return parameters

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> Any:
        if "grad_scaler" in kwargs:
            raise InputError(
                f"agc: {type(optimizer).__name__} unscales gradients where they cannot be clipped "
                "after it; use an optimizer of torch.optim, or no torch.amp.GradScaler"
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

        found = [
            (parameter, *self._known[parameter])
            for parameter in self._require_known(optimizer)
            if parameter.grad is not None and self._known[parameter][1].clipping is not None
        ]
        parameters, rules = [p for p, _, _ in found], [rule for _, _, rule in found]
        # torch.amp.GradScaler hands fused optimizers scaled gradients and their scale:
        # torch/amp/grad_scaler.py, `step`.
        scale = getattr(optimizer, "grad_scale", None)
        with torch.no_grad():
            gradients = [p.grad if scale is None else _unscaled(p.grad, scale) for p in parameters]
            clipped, fractions = kernels(self._plain).clip_all(gradients, parameters, rules)
            for parameter, gradient in zip(parameters, clipped, strict=True):
                if scale is not None:
                    gradient = gradient * scale.to(gradient.device)
                if gradient is not parameter.grad:
                    parameter.grad.copy_(gradient)
        self._fractions = dict(zip([name for _, name, _ in found], fractions, strict=True))


def _unscaled(gradient: Any, scale: Any) -> Any:
    wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    return wide / scale.to(gradient.device)


def agc(
    plan: Plan,
    optimizer: torch.optim.Optimizer,
    model: Any | Mapping[str, torch.nn.Parameter],
    *,
    plain: bool = False,
) -> Clipping:
    """Clip gradients before each step of an optimizer, as the plan's `[agc]` says.

    `.grad` is changed in place. Gradients may be accumulated over several backward passes, and
    scaled by a `torch.amp.GradScaler`.

    Args:
        plan: The network.
        optimizer: Any of torch.optim; only its parameters are clipped. It may be given a closure.
            Parameters of other layers may be in it as long as they are frozen.
        model: What `nfspec.compile` returned for PyTorch; or a dict of canonical name to parameter
            in the canonical layout. Not all of the plan's need be there.
        plain: Use the plain kernels, as a network compiled with `plain=True` does.

    Returns:
        A handle: `clip_fraction` tells what the last step clipped, `remove()` ends it.

    Raises:
        InputError: The plan does not clip, a parameter is not the plan's, or the optimizer has
            one that is not known.
        BackendError: Keras runs on another framework.
    """
    select("torch")
    if isinstance(model, Mapping):
        named = dict(model)
    else:
        variables = getattr(model, "variables", ())
        named = {v.canonical: v.value for v in variables if hasattr(v, "canonical")}
    if not named:
        raise InputError(
            f"agc: {type(model).__name__} has no parameters made by nfspec; give a dict of "
            "canonical name to parameter, kernels HWIO and dense kernels IO"
        )
    rules = rules_for(plan, list(named), [tuple(p.shape) for p in named.values()])
    pairs = zip(named.items(), rules, strict=True)
    return Clipping(optimizer, {p: (name, rule) for (name, p), rule in pairs}, plain)
