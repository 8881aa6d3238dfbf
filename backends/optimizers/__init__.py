"""Keras optimizers of the original's training: SGD, and what goes around any optimizer."""

from nfspec.backends.optimizers.agc import AGC
from nfspec.backends.optimizers.ema import EMA
from nfspec.backends.optimizers.sgd import SGD

__all__ = ["AGC", "EMA", "SGD"]
