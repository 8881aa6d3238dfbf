"""What is tested: an implementation behind a small adapter.

A subject is a class that is called with a mode (`f32`, `tf32`, `bf16`, `f16`), and has

- `framework`: `jax`, `torch` or `tensorflow`, a class attribute;
- `package`, if it likes: the distribution whose version reports name, such as `timm`;
- any of the methods below. Each takes a description and returns a function of the framework's own
  tensors, which the kit compiles and differentiates as that framework's users would. Images are
  NHWC, kernels HWIO, dense kernels IO, whatever the implementation has within. A method raises
  `NotOffered` for a description that the implementation has no counterpart of.

| method | description | the function's arguments |
|---|---|---|
| `ws_conv` | `nfspec.plan.WSConv` | x, kernel, gain, bias |
| `activation` | `nfspec.plan.Activation` | x |
| `pool`, `global_pool` | `nfspec.plan.Pool`, `GlobalPool` | x |
| `squeeze_excite` | `nfspec.plan.SqueezeExcite` | x, fc0.kernel, fc0.bias, fc1.kernel, fc1.bias |
| `eca` | `nfspec.plan.ECA` | x, kernel |
| `residual` | `nfspec.plan.Residual` | branch, shortcut, and skip_gain if it is learned |
| `dense` | `nfspec.plan.Dense` | x, kernel, bias |
| `agc` | `nfspec.conformance.cases.case.Clip` | gradient, parameter; returns the clipped gradient |
| `block` | a plan of one block, which reads `input` | x, {canonical name: parameter} |
| `forward` | a plan | x, {canonical name: parameter}; returns {tap: value}, of any taps |

More are, or return, functions of NumPy arrays, as they step through states of their own:

| method | arguments | returns |
|---|---|---|
| `train` | plan, parameters, x, one-hot labels, steps | losses (steps,), first/NAME, last/NAME |
| `step` | plan, parameters, momentum, gradients, steps done | parameter/NAME, momentum/NAME |
| `through` | plan, parameters or None | the parameters that a model then has |
| `stochastic_depth` | `nfspec.plan.StochasticDepth`, seed, replica | a function of x, training |
| `dropout` | `nfspec.plan.Dropout`, seed, replica | a function of x, training |
| `ways` | plan, parameters, seed | {way: a function of x that returns {tap: value}} |
| `folded` | plan, parameters | a function of x, the logits; {way: a function of parameters} |

Layers that drop are made for a seed and the number of a replica, such as a device; x is a batch,
`training` a bool, and each call in training draws anew. The ways of `ways` are `training`, one
evaluation of a network as a training step has it, and `mode`, one after what puts a network in
training mode, such as PyTorch's `train()`, where there is that. `folded` returns a network folded
for inference, and functions that give it other folded parameters, by the names in
`nfspec.conformance.properties.folding.WAYS`; all but `assign` may be left out.

Subjects are found by the names below, by entry point of the group `nfspec.subjects`, or as
`module:object`.

An adapter imports `cases`, and the implementation that it adapts when it is made.
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from nfspec.errors import InputError, NfspecError, suggest

SHIPPED = {
    "jax": "nfspec.conformance.subjects.nfspec:JAX",
    "torch": "nfspec.conformance.subjects.nfspec:Torch",
    "tensorflow": "nfspec.conformance.subjects.nfspec:TensorFlow",
    "jax-plain": "nfspec.conformance.subjects.nfspec:PlainJAX",
    "torch-plain": "nfspec.conformance.subjects.nfspec:PlainTorch",
    "tensorflow-plain": "nfspec.conformance.subjects.nfspec:PlainTensorFlow",
    "timm": "nfspec.conformance.subjects.timm:Timm",
    "optax": "nfspec.conformance.subjects.optax:Optax",
}
GROUP = "nfspec.subjects"


class NotOffered(NfspecError):
    """The subject has nothing that answers a description."""


def place(name: str) -> str:
    """Where a subject is, as `module:object`.

    Raises:
        InputError: No such name.
    """
    if ":" in name:
        return name
    if name in SHIPPED:
        return SHIPPED[name]
    found = {point.name: point.value for point in entry_points(group=GROUP)}
    if name in found:
        return found[name]
    known = [*SHIPPED, *found]
    raise InputError(
        f'no subject "{name}"; expected one of {", ".join(known)}, or module:object'
        f"{suggest(name, known)}"
    )


def load(name: str) -> Any:
    """The class of a subject. Imports its module, and so perhaps a framework.

    Raises:
        InputError: No such name, module or object, or no subject.
    """
    where = place(name)
    if ":" in name:
        sys.path.append(str(Path.cwd()))  # last, so that nothing there stands in for a framework
    module, _, attribute = where.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"subject {name}: {where} cannot be loaded: {error}") from None
    if getattr(found, "framework", None) not in ("jax", "torch", "tensorflow"):
        raise InputError(
            f"subject {name}: {where} has no attribute `framework` of jax, torch or tensorflow"
        )
    return found
