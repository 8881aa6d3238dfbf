"""The classifier."""

from __future__ import annotations

from typing import Any

from nfspec.backends.layers.base import ZEROS, NFLayer, Shape, serialisable
from nfspec.plan import Init


@serialisable
class Classifier(NFLayer):
    """A dense layer, (N, I) to (N, classes). Parameters: kernel (I, classes), bias (classes,).

    Args:
        classes: Outputs.
        init_std: Standard deviation of the initial kernel; 0 for zeros.
    """

    def __init__(self, classes: int, *, init_std: float = 0.01, **kwargs: Any):
        super().__init__(**kwargs)
        self.classes = classes
        self.init_std = init_std

    def build(self, input_shape: Shape) -> None:
        shape = (input_shape[-1], self.classes)
        init = Init("normal", self.init_std) if self.init_std else ZEROS
        self.kernel = self.add_parameter("kernel", "head", shape, init)
        self.bias = self.add_parameter("bias", "bias", shape[1:], ZEROS)

    def call(self, x: Any) -> Any:
        return self.kernels.dense(x, self.read("kernel"), self.read("bias"))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.classes)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "classes": self.classes, "init_std": self.init_std}
