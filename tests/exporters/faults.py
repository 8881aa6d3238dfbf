"""Mistakes of exporters, each a function of the network that is written in place of the right one.

They are changes of the plan, the weights or the settings, so that every format can make them.
"""

from dataclasses import replace

import numpy as np

import nfspec
from nfspec import plan as p
from nfspec.backends.exporters.settings import Network

from specs import SQUARE_CLASSIFIER


def _plan(network, kind, change):
    ops = tuple(change(op) if isinstance(op, kind) else op for op in network.plan.ops)
    return Network(replace(network.plan, ops=ops), network.params, network.settings)


def _params(network, change):
    params = {name: change(name, value) for name, value in network.params.items()}
    return Network(network.plan, params, network.settings)


def changed(**changes):
    """A small network."""
    return nfspec.resolve(nfspec.load("nfnet-f0", SQUARE_CLASSIFIER | changes))


def padding_at_both_ends(network):
    """Half a kernel at both ends, as PyTorch's convs have it."""
    plan = changed(**{"conv.padding": "symmetric"})
    return Network(plan, network.params, network.settings)


def alpha_of_another_network(network):
    plan = changed(**{"stages.alpha": 0.25})
    return Network(plan, network.params, network.settings)


def kernels_in_another_order(network):
    """Height and width exchanged."""
    return _params(network, lambda name, v: v.swapaxes(0, 1).copy() if v.ndim == 4 else v)


def erf_in_place_of_tanh(network):
    return _plan(network, p.Activation, lambda op: replace(op, kind="gelu_erf"))


def gains_that_are_missing(network):
    return _params(network, lambda name, v: np.ones_like(v) if name.endswith(".gain") else v)


def beta_before_the_activation(network):
    return _plan(network, p.Activation, lambda op: replace(op, beta_at="before"))


def transposed_classifier(network):
    return _params(network, lambda name, v: v.T.copy() if name == "head.fc.kernel" else v)


def attention_without_its_gain(network):
    return _plan(network, p.SqueezeExcite, lambda op: replace(op, gain=1.0))


def weights_in_float16(network):
    return _params(network, lambda name, v: v.astype(np.float16).astype(np.float32))


def biases_that_are_missing(network):
    return _params(network, lambda name, v: np.zeros_like(v) if name.endswith(".bias") else v)


FAULTS = (
    padding_at_both_ends,
    alpha_of_another_network,
    kernels_in_another_order,
    erf_in_place_of_tanh,
    gains_that_are_missing,
    beta_before_the_activation,
    transposed_classifier,
    attention_without_its_gain,
    weights_in_float16,
    biases_that_are_missing,
)
