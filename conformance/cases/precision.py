"""The modes of a framework's arithmetic, and the rounding that each allows.

A result always names its mode. A worker sets the framework's switches for the mode, and reads them
back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Precision:
    """Unit roundoffs: the largest relative error of one rounding to nearest.

    Attributes:
        operand: Unit of the operands of convs and matrix products, as they enter; 0: as they are.
        accumulate: Unit of sums and products within an operation and of statistics of weights.
        store: Unit of results as they leave an operation.
        least: Largest absolute error of a stored result near zero, where numbers are denser than
            the format's; devices differ in whether they flush them.
        policy: Keras's dtype policy of a model in this mode.
    """

    operand: float
    accumulate: float
    store: float
    least: float
    policy: str


MODES = {
    "f32": Precision(0.0, 2.0**-24, 2.0**-24, 2.0**-126, "float32"),
    # 10 bits of fraction enter; tensor cores accumulate with truncation, whence the bit.
    "tf32": Precision(2.0**-11, 2.0**-23, 2.0**-24, 2.0**-126, "float32"),
    "bf16": Precision(2.0**-8, 2.0**-24, 2.0**-8, 2.0**-126, "mixed_bfloat16"),
    "f16": Precision(2.0**-11, 2.0**-24, 2.0**-11, 2.0**-14, "mixed_float16"),
}
FULL = MODES["f32"]
# The largest finite number that a mode stores.
LARGEST = {
    "f32": (2.0 - 2.0**-23) * 2.0**127,
    "tf32": (2.0 - 2.0**-23) * 2.0**127,
    "bf16": (2.0 - 2.0**-7) * 2.0**127,
    "f16": (2.0 - 2.0**-10) * 2.0**15,
}


def narrow(array: NDArray[Any], mode: str) -> NDArray[np.float32]:
    """float32 values rounded to those that a mode stores, as float32."""
    value = np.ascontiguousarray(array, np.float32).reshape(np.shape(array))
    if mode == "f16":
        return value.astype(np.float16).astype(np.float32)
    return truncated(value, 7) if mode == "bf16" else value


def truncated(array: NDArray[Any], bits: int) -> NDArray[np.float32]:
    """float32 rounded to nearest, ties to even, at so many bits of fraction: 10 for TF32, 7 for
    bfloat16."""
    drop = 23 - bits
    raw = np.array(array, np.float32, order="C").view(np.uint32)
    up = raw + np.uint32((1 << (drop - 1)) - 1) + ((raw >> np.uint32(drop)) & np.uint32(1))
    return (up & np.uint32(0xFFFFFFFF << drop & 0xFFFFFFFF)).view(np.float32)
