"""A network as an object of its framework: the generated source, imported, weights in it."""

from __future__ import annotations

import hashlib
import linecache
import sys
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from nfspec.arguments import whole
from nfspec.errors import InputError, WeightError
from nfspec.generation.source import generate, plan_of
from nfspec.generation.targets import target_of
from nfspec.generation.view import CLASSES
from nfspec.language.spec import Spec
from nfspec.plan import INPUT, Conv, Dense, Operation, Plan, WSConv
from nfspec.plan.initialise import Params
from nfspec.rewrites.folding import Folded
from nfspec.weights.arrays import as_float32
from nfspec.weights.checking import Float32
from nfspec.weights.fitting import FitWarning, fit
from nfspec.weights.store import save


def module(spec: Spec | Plan | Folded, to: str) -> ModuleType:
    """The generated file as a module, which is imported once.

    Args:
        spec: What `nfspec.load`, `nfspec.resolve` or `nfspec.fold` returned.
        to: Name of the target, as `nfspec.generate` takes it.

    Raises:
        InputError: As `nfspec.generate` raises it.
        SpecError: No network can be made of the spec.
        BackendError: A package that is needed is not installed.
    """
    plan = plan_of(spec)
    source = generate(plan, to=to)
    target_of(to).require()
    slug = "".join(letter if letter.isalnum() else "_" for letter in plan.name)
    name = f"nfspec_{to}_{slug}_{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        made = ModuleType(name)
        # Tracebacks and `inspect.getsource` find the text under the file's name.
        file = f"<{name}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        sys.modules[name] = made  # copies and pickles of its objects look here
        exec(compile(source, file, "exec"), made.__dict__)
    return sys.modules[name]


def native(
    spec: Spec | Plan | Folded,
    to: str,
    *,
    params: Mapping[str, Float32] | None = None,
    classes: int | None = None,
    channels: int | None = None,
    **options: Any,
) -> Any:
    """A network as an object of its framework: what the generated file offers, and nothing else.

    Args:
        spec: What `nfspec.load`, `nfspec.resolve` or `nfspec.fold` returned; a folded network is
            for inference alone.
        to: Name of the target, as `nfspec.generate` takes it.
        params: Canonical name to float32 array. If not given, those that `nfspec.fold` returned, or
            else drawn by the framework.
        classes, channels: Another number of classes or input channels than the spec's. `params` are
            changed as `nfspec.weights.fit` does, and a FitWarning says each change. Input channels
            are changed before a network is folded.
        options: More arguments of the class in the file, such as `drop_rate`.

    Returns:
        For `torch`: an nn.Module, in training mode as PyTorch makes one. For `flax`: an nnx.Module,
        in training mode, too. For `jax`: the file as a module, with its functions `init`, `apply`,
        `features` and `clip_gradients`, and the parameters, a dict by canonical name; options are
        those of `init`. For `keras`: a keras.Model. For `mlx`: an mlx.nn.Module, in training mode.
        For `numpy`: a function of images, which needs `params`.

    Raises:
        InputError: As `nfspec.generate` raises it; or the class has no such argument.
        SpecError: No network can be made of the spec.
        WeightError: `params` are not the plan's.
        BackendError: A package that is needed is not installed.
    """
    plan = plan_of(spec)
    if isinstance(spec, Folded) and params is None:
        params = spec.params
    if channels is not None and any(isinstance(op, Conv) for op in plan.ops):
        raise InputError(
            "channels: folded weights keep theirs; call nfspec.weights.fit before nfspec.fold"
        )
    made, target = module(plan, to), target_of(to)
    name = CLASSES[plan.family]
    if classes is not None:
        options[target.classes] = whole("classes", classes, 1)
    if channels is not None:
        options[target.channels] = whole("channels", channels, 1)
    if params is None:
        return target.make(made, name, None, options)
    wanted = _with_ends(plan, classes, channels)
    if wanted is not plan:
        fitted = fit(params, wanted)
        params = fitted.params
        for change in fitted.changes:
            warnings.warn(change, FitWarning, stacklevel=2)
    with tempfile.TemporaryDirectory(prefix="nfspec-") as folder:
        path = Path(folder) / "weights.safetensors"
        save(path, wanted, params)
        return target.make(made, name, str(path), options)


def native_params(network: Any, to: str) -> Params:
    """Read the parameters out of a network that `native` returned, or one of a generated file.

    `nfspec.weights.save` writes them as a file that every framework loads, and `native` takes them
    as `params`. They are copies, so that the network may be trained on.

    Args:
        network: The network: an nn.Module or its `state_dict()` for `torch`, an nnx.Module for
            `flax`, a keras.Model for `keras`, an mlx.nn.Module for `mlx`.
        to: Name of the target, as `native` takes it.

    Returns:
        Canonical name to float32 array: conv kernels HWIO, dense kernels IO.

    Raises:
        InputError: No such target, or one whose networks have no parameters of their own: those of
            `jax` are the dict that `native` returns, those of `numpy` what it was given.
        WeightError: A value that float32 cannot hold.
    """
    target = target_of(to)
    if target.params is None:
        raise InputError(f"to: a network of {to} has no parameters of its own; they are a dict")
    params: Params = {}
    for name, value in target.params(network).items():
        array = as_float32(value)
        if isinstance(array, str):
            raise WeightError(f"{name}: {array}")
        params[name] = np.array(array)
    return params


def _with_ends(plan: Plan, classes: int | None, channels: int | None) -> Plan:
    """The plan with another number of classes and input channels, for the shapes of its weights."""
    if classes is None and channels is None:
        return plan
    ops: list[Operation] = []
    for op in plan.ops:
        if isinstance(op, Dense) and classes is not None:
            op = replace(op, out_features=classes)
        if isinstance(op, WSConv) and channels is not None and op.inputs == (INPUT,):
            op = replace(op, in_channels=channels)
        ops.append(op)
    return replace(plan, ops=tuple(ops), channels=plan.channels if channels is None else channels)
