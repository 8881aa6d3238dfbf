"""Keras optimizers of the original's training: SGD, and what goes around any optimizer.

Importing this package registers them, so that `keras.saving.load_model` finds them.
"""

from nfspec.backends.optimizers.agc import AGC
from nfspec.backends.optimizers.ema import EMA
from nfspec.backends.optimizers.sgd import SGD

__all__ = ["AGC", "EMA", "SGD"]
