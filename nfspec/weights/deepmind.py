"""DeepMind's names for weights, and the pickles that their weights come in.

Source: deepmind-research/nfnets/{nfnet,nf_regnet,nf_resnet,base,utils}.py and Haiku's naming of
modules. A file is {module: {name: array}}; kernels are HWIO and IO there too.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nfspec.errors import WeightError
from nfspec.plan import (
    ECA,
    Activation,
    Conv,
    Dense,
    Dropout,
    GlobalPool,
    Operation,
    Plan,
    Pool,
    Residual,
    SqueezeExcite,
    StochasticDepth,
    WSConv,
    unknown_operation,
)
from nfspec.plan.standardisation import one_for_all
from nfspec.weights.arrays import converted, owned
from nfspec.weights.checking import Ends, Float32, check, ends_of, text_names
from nfspec.weights.files import writing
from nfspec.weights.unpickle import read_pickle
from nfspec.wording import printable

# Family: root module, name of a stem conv, name of a block.
FAMILIES = {
    "nfnet": ("NFNet", "stem_conv{}", "nf_block"),
    "nf_regnet": ("NF_RegNet", "initial_conv", "nf_block"),
    "nf_resnet": ("NF_ResNet", "initial_conv", "nf_res_block"),
}
CONVS = ("conv0", "conv1", "conv1b", "conv2", "conv_shortcut")
LINEAR = {"kernel": "w", "bias": "b"}
OTHER = {"kernel": "w", "gain": "gain", "bias": "bias", "skip_gain": "skip_gain"}


def _stem(plan: Plan) -> list[str]:
    return [op.name for op in plan.ops if op.name.startswith("stem.conv")]


def _lacks(op: Operation) -> str | None:
    """The reason why the original code has no such operation; None if it has it."""
    match op:
        case ECA():
            return "has ECA"
        case Conv():
            return "is folded"
        case Residual():
            return None if op.skip_gain else "has no skip gains"
        case (
            WSConv() | Activation() | Pool() | SqueezeExcite() | StochasticDepth() | GlobalPool()
            | Dropout() | Dense()
        ):  # fmt: skip
            return None
        case _:
            raise unknown_operation(op, "nfspec.weights.deepmind")


def _refuse(plan: Plan) -> None:
    """Refuse a network for which the original code has no names.

    Raises:
        WeightError: It is such a network.
    """
    reasons = [reason for op in plan.ops if (reason := _lacks(op)) is not None]
    if reason := one_for_all(plan):
        reasons.append(reason)
    if plan.family != "nfnet" and len(_stem(plan)) > 1:
        reasons.append(
            f"has {len(_stem(plan))} stem convs, where {FAMILIES[plan.family][0]} has one"
        )
    if reasons:
        message = f"{plan.name} {' and '.join(dict.fromkeys(reasons))}"
        raise WeightError(f"{message}; DeepMind's code cannot express that")


def names(plan: Plan) -> dict[str, tuple[str, str]]:
    """Canonical name to (Haiku module, name).

    Raises:
        WeightError: The original code has no names for such a network.
    """
    _refuse(plan)
    root, stem, block = FAMILIES[plan.family]
    modules = {"final_conv": f"{root}/~/final_conv", "head.fc": f"{root}/~/linear"}
    for i, name in enumerate(_stem(plan)):
        modules[name] = f"{root}/~/{stem.format(i)}"
    for n, row in enumerate(plan.blocks):
        module = f"{root}/~/{block}_{n}" if n else f"{root}/~/{block}"
        modules[row.name] = module
        modules |= {f"{row.name}.{conv}": f"{module}/~/{conv}" for conv in CONVS}
        modules[f"{row.name}.se.fc0"] = f"{module}/~/squeeze_excite/~/linear"
        modules[f"{row.name}.se.fc1"] = f"{module}/~/squeeze_excite/~/linear_1"
    places = {}
    for name in plan.parameters:
        layer, _, leaf = name.rpartition(".")
        linear = layer.rpartition(".")[2].startswith("fc")
        places[name] = (modules[layer], (LINEAR if linear else OTHER)[leaf])
    return places


def _flat(tree: Any, source: str) -> dict[str, Any]:
    """{module: {name: value}} as {"module/name": value}."""
    where = f"{source}: " if source else ""
    if not isinstance(tree, Mapping):
        message = f"expected {{module: {{name: array}}}}, found {type(tree).__name__}"
        raise WeightError(f"{where}{message}")
    values: dict[str, Any] = {}
    for module, arrays in text_names(tree, source).items():
        if not isinstance(arrays, Mapping):
            message = f"{printable(module[:100])}: expected {{name: array}}"
            raise WeightError(f"{where}{message}, found {type(arrays).__name__}")
        values |= {f"{module}/{name}": value for name, value in text_names(arrays, source).items()}
    return values


def from_deepmind(
    source: str | Path | Mapping[str, Mapping[str, Any]], plan: Plan, *, own_shapes: bool = False
) -> dict[str, Float32]:
    """Weights of the original implementation as canonical ones.

    Args:
        source: A file of DeepMind's (a pickle, although its name ends in .npz), from which only
            arrays are read, or {module: {name: array}} of NumPy or jax arrays.
        plan: The network.
        own_shapes: Take any number of classes and of input channels, and no classifier, as the
            source has it. `fit` makes such weights fit the plan.

    Returns:
        Canonical name to float32 array, in the plan's order, sharing no memory with `source`.

    Raises:
        NoClassifier: Only the classifier is missing.
        WeightError: The file holds something else, the tensors are not this network's, float32
            cannot hold a value, or the original has no names for such a network.
    """
    keys = {name: "/".join(place) for name, place in names(plan).items()}
    path = Path(source) if isinstance(source, str | Path) else None
    label = printable(str(path)) if path else ""
    values = _flat(read_pickle(path) if path else source, label)
    expected = {keys[name]: parameter.shape for name, parameter in plan.parameters.items()}
    ours = ends_of(plan)
    theirs = {keys[name]: axis for name, axis in ours.axes.items()}
    ends = Ends(tuple(keys[name] for name in ours.classifier), theirs)
    arrays = converted(values, expected, plan.name, label, ends, own_shapes=own_shapes)
    return {name: owned(arrays[key]) for name, key in keys.items() if key in arrays}


def to_deepmind(path: str | Path, plan: Plan, params: Mapping[str, Float32]) -> None:
    """Save weights as the original implementation's loader reads them: a pickle of NumPy arrays.

    Args:
        path: File to write; an older file there is kept until the new one is whole.
        plan: The network.
        params: Canonical name to float32 array.

    Raises:
        WeightError: The weights are not the plan's, the original has no names for such a network,
            or the file cannot be written.
    """
    places = names(plan)
    tree: dict[str, dict[str, Float32]] = {}
    for name, array in check(plan, params).items():
        module, leaf = places[name]
        tree.setdefault(module, {})[leaf] = np.asarray(array, order="C")
    with writing(Path(path)) as file:
        pickle.dump(tree, file, protocol=4)
