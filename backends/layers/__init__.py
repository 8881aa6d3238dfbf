"""Keras layers of Normalizer-Free Networks, one kind a file, usable on their own."""

from nfspec.backends.layers.activation import ScaledActivation
from nfspec.backends.layers.attention import EfficientChannelAttention, SqueezeExcite
from nfspec.backends.layers.classifier import Classifier
from nfspec.backends.layers.conv import Conv2D
from nfspec.backends.layers.drop import Dropout, StochasticDepth
from nfspec.backends.layers.pooling import SpatialMean, SpatialPool
from nfspec.backends.layers.residual import Residual
from nfspec.backends.layers.ws_conv import WSConv2D

__all__ = [
    "Classifier",
    "Conv2D",
    "Dropout",
    "EfficientChannelAttention",
    "Residual",
    "ScaledActivation",
    "SpatialMean",
    "SpatialPool",
    "SqueezeExcite",
    "StochasticDepth",
    "WSConv2D",
]
