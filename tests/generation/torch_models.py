"""Generated modules of PyTorch, and their parameters as nfspec names and lays them out."""

import sys

import torch

import nfspec


def native(plan, params=None, **options):
    return nfspec.native(plan, "torch", params=params, **options)


def file_of(model):
    """The generated file that a model's class is of."""
    return sys.modules[type(model).__module__]


def nchw(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def canonical(model):
    """Parameters, or what is given instead, by canonical name and in the canonical layout."""
    return {name: ours(name, value.detach().numpy()) for name, value in model.named_parameters()}


def ours(name, value):
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def named(values):
    return {
        f"{name.removesuffix('weight')}kernel" if name.endswith("weight") else name: value
        for name, value in values.items()
    }
