"""Normalizer-Free Networks, written down once and the same in every framework.

    spec = nfspec.load("nfnet-f0")
    plan = nfspec.resolve(spec)
    params = nfspec.init(plan, seed=0)
    model = nfspec.compile(spec, backend="jax", params=params)

Importing nfspec imports no framework; `compile` does.
"""

from nfspec import reference, signal, weights
from nfspec.compilation import compile, params_of
from nfspec.counting import Count, count
from nfspec.errors import (
    BackendError,
    InputError,
    NfspecError,
    Problem,
    SpecError,
    WeightError,
)
from nfspec.initialise import init
from nfspec.loader import dialects, load, variants
from nfspec.plan import Parameter, Plan
from nfspec.resolver import resolve
from nfspec.spec import Spec

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "Count",
    "InputError",
    "NfspecError",
    "Parameter",
    "Plan",
    "Problem",
    "Spec",
    "SpecError",
    "WeightError",
    "compile",
    "count",
    "dialects",
    "init",
    "load",
    "params_of",
    "reference",
    "resolve",
    "signal",
    "variants",
    "weights",
]
