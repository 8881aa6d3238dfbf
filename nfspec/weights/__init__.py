"""Weights of a plan: nfspec's own files, and the names and layouts of DeepMind and timm.

`params` is everywhere a dict of canonical name to float32 NumPy array, in the order of
`plan.parameters`: conv kernels HWIO, dense kernels IO, gains and biases (O,), skip gains ().
Every function takes a file from a stranger as data: it returns all of the weights, or raises one
`WeightError` that lists all that is wrong.

It imports `plan` and the root; `fit` asks `reference` for the scale of weight standardisation.
"""

from __future__ import annotations

from nfspec.weights.checking import NoClassifier, check
from nfspec.weights.deepmind import from_deepmind, to_deepmind
from nfspec.weights.fitting import Fitted, FitWarning, fit
from nfspec.weights.store import DigestWarning, load, save
from nfspec.weights.timm import from_timm, to_timm, to_timm_file

__all__ = [
    "DigestWarning",
    "FitWarning",
    "Fitted",
    "NoClassifier",
    "check",
    "fit",
    "from_deepmind",
    "from_timm",
    "load",
    "save",
    "to_deepmind",
    "to_timm",
    "to_timm_file",
]
