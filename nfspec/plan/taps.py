"""The named outputs of a network: their channels and strides."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tap:
    """The shape of a tap's output, for images of any size.

    Attributes:
        channels: Channels of the output; the number of classes, for logits.
        stride: Pixels of the image for one of the output, timm's reduction; None if the output has
            no height and width. `nfspec.plan.counting.shapes` has the shapes for any padding.
    """

    channels: int
    stride: int | None


@dataclass(frozen=True)
class Feature:
    """A map of the feature pyramid.

    Attributes:
        name: Name of its tap.
        stride: Pixels of the image for one of the map.
        channels: Channels of the map.
    """

    name: str
    stride: int
    channels: int
