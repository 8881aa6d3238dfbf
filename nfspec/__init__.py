"""Normalizer-Free Networks, written down once and the same in every framework.

    spec = nfspec.load("nfnet-f0")
    plan = nfspec.resolve(spec)
    params = nfspec.init(plan, seed=0)
    model = nfspec.compile(spec, backend="jax", params=params)

Importing nfspec costs next to nothing: a name is imported when it is first used (PEP 562), and only
what makes or reads Keras objects imports a framework.
"""

from __future__ import annotations

import importlib

# Not typing's: `python -m nfspec` runs this before __main__ takes the present folder off the path.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nfspec import reference, weights
    from nfspec.compilation import (
        agc,
        compile,
        fold,
        load_model,
        names_of,
        params_of,
        sam,
        unfold,
    )
    from nfspec.conformance.exporting import Proof, ProofError, export, verify
    from nfspec.conformance.quantising import Quantised, quantise
    from nfspec.data.preprocessing import preprocess
    from nfspec.design import signal
    from nfspec.design.dilating import output_stride
    from nfspec.design.explorer.page import explore
    from nfspec.design.scaling import Scaled, scale
    from nfspec.errors import (
        BackendError,
        InputError,
        NfspecError,
        Problem,
        SpecError,
        WeightError,
    )
    from nfspec.generation.native import native, native_params
    from nfspec.generation.source import generate
    from nfspec.language.loader import dialects, load, variants
    from nfspec.language.spec import Spec
    from nfspec.plan import Parameter, Plan
    from nfspec.plan.counting import Count, count
    from nfspec.plan.initialise import init
    from nfspec.plan.resolver import resolve
    from nfspec.training.groups import Group, groups
    from nfspec.training.predicting import Embeddings, Guess, Prediction, embed, predict
    from nfspec.training.runs import Run, recipe
    from nfspec.weights.pretrained import Pretrained, pretrained

__version__ = "0.1.0"

_HOMES = {
    "compilation": [
        "agc",
        "compile",
        "fold",
        "load_model",
        "names_of",
        "params_of",
        "sam",
        "unfold",
    ],
    "conformance.exporting": ["Proof", "ProofError", "export", "verify"],
    "conformance.quantising": ["Quantised", "quantise"],
    "data.preprocessing": ["preprocess"],
    "design.dilating": ["output_stride"],
    "design.explorer.page": ["explore"],
    "design.scaling": ["Scaled", "scale"],
    "plan.counting": ["Count", "count"],
    "errors": [
        "BackendError",
        "InputError",
        "NfspecError",
        "Problem",
        "SpecError",
        "WeightError",
    ],
    "generation.native": ["native", "native_params"],
    "generation.source": ["generate"],
    "plan.initialise": ["init"],
    "language.loader": ["dialects", "load", "variants"],
    "plan": ["Parameter", "Plan"],
    "plan.resolver": ["resolve"],
    "training.groups": ["Group", "groups"],
    "training.predicting": ["Embeddings", "Guess", "Prediction", "embed", "predict"],
    "training.runs": ["Run", "recipe"],
    "language.spec": ["Spec"],
    "weights.pretrained": ["Pretrained", "pretrained"],
}
_MODULES = {"reference": "reference", "signal": "design.signal", "weights": "weights"}
# Reached without an import of their own, as the documents write them: `nfspec.backends.jax.agc`.
_PACKAGES = ("backends", "conformance", "training")

__all__ = [
    "__version__",
    *_MODULES,
    *(name for names in _HOMES.values() for name in names),
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"nfspec.{_MODULES[name]}")
    if name in _PACKAGES:
        return importlib.import_module(f"nfspec.{name}")
    for module, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f"nfspec.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'nfspec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
