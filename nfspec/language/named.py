"""The stems and heads that have a name, and the fields that each name stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TYPE = "type"  # the field that names one; it is used up, as `extends` is


@dataclass(frozen=True)
class NamedStem:
    """A stem of timm's `create_stem`.

    Attributes:
        eighths: Output channels of each conv, in eighths of those of the stem, rounded down.
        kernel: Kernel side of all convs.
        stride: Stride of the only conv, or of each.
        pool: As `stem.pool`.
    """

    eighths: tuple[int, ...]
    kernel: int
    stride: int | tuple[int, ...]
    pool: str = "none"

    @property
    def least(self) -> int:
        """The smallest width that leaves each conv a channel."""
        return -(-8 // min(self.eighths))

    def fields(self) -> dict[str, Any]:
        """The fields that the name stands for, but for the width."""
        stride = list(self.stride) if isinstance(self.stride, tuple) else self.stride
        return {"kernel": self.kernel, "stride": stride, "pool": self.pool}

    def widths(self, width: int) -> list[int]:
        """Output channels of each conv of a stem of `width` output channels."""
        return [width * part // 8 for part in self.eighths]


STEMS = {
    "3x3": NamedStem((8,), 3, 2),
    "3x3_pool": NamedStem((8,), 3, 2, "max"),
    "7x7": NamedStem((8,), 7, 2),
    "7x7_pool": NamedStem((8,), 7, 2, "max"),
    "deep": NamedStem((4, 4, 8), 3, (2, 1, 1)),
    "deep_pool": NamedStem((4, 4, 8), 3, (2, 1, 1), "max"),
    "deep_tiered": NamedStem((3, 4, 8), 3, (2, 1, 1)),
    "deep_tiered_pool": NamedStem((3, 4, 8), 3, (2, 1, 1), "max"),
    "deep_quad": NamedStem((1, 2, 4, 8), 3, (2, 1, 1, 2)),
}

# The heads of DeepMind's families; their dropout is the network's.
HEADS: dict[str, dict[str, Any]] = {
    "nfnet": {"conv": "ratio", "conv_ratio": 2.0, "init_std": 0.01},
    "nf_regnet": {"conv": "ratio", "conv_ratio": 1280 / 440, "init_std": 0.0},
    "nf_resnet": {"conv": "none", "init_std": 0.01},
}

# Table to the names that its `type` knows, and the description of that field.
NAMES: dict[str, tuple[tuple[str, ...], str]] = {
    "stem": (
        tuple(STEMS),
        "Name of a stem, which stands for width, kernel, stride and pool; width may then be a "
        "number, the channels of its last conv.",
    ),
    "head": (
        tuple(HEADS),
        "Name of the head of a family, which stands for conv, conv_ratio and init_std.",
    ),
}
