"""Convolution with scaled weight standardisation (Brock et al. 2021, arXiv:2101.08692, eq. 6)."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from nfspec.backends.layers.base import ZEROS, Shape, serialisable
from nfspec.backends.layers.conv import Convolution
from nfspec.plan import Init


@serialisable
class WSConv2D(Convolution):
    """A conv whose kernel has mean 0 and norm `gamma · gain` over each output channel's fan-in.

    Parameters: kernel (k, k, I/groups, O), gain (O,) if there is one, bias (O,). All statistics are
    in float32 whatever the compute dtype, unless `ws_dtype` is `compute`.

    Args:
        filters, kernel_size, strides, dilation, groups, padding, data_format: As of any
            `Convolution`.
        eps: Guards the division.
        eps_rule: `max`: 1/sqrt(max(N·var, eps)); `add`: 1/sqrt(N·(var + eps)); `add_to_std`:
            1/(sqrt(N)·(sqrt(var) + eps)); N is the fan-in. `none`: the kernel is not standardised.
        ddof: 0 for the biased variance, 1 for the unbiased.
        gamma: Multiplies the kernel.
        init_scale: Variance of the initial kernel times N.
        gain_init: Initial gain; None for a conv without a gain, which is then 1.
        ws_dtype: `float32` or `compute`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        *,
        eps: float = 1e-4,
        eps_rule: str = "max",
        ddof: int = 0,
        gamma: float = 1.0,
        init_scale: float = 1.0,
        gain_init: float | None = 1.0,
        ws_dtype: str = "float32",
        **kwargs: Any,
    ):
        super().__init__(filters, kernel_size, **kwargs)
        self.eps = eps
        self.eps_rule = eps_rule
        self.ddof = ddof
        self.gamma = gamma
        self.init_scale = init_scale
        self.gain_init = gain_init
        self.ws_dtype = ws_dtype

    def build(self, input_shape: Shape) -> None:
        shape = self.kernel_shape(input_shape)
        # Autocast would hand `call` bfloat16 copies, and the statistics with them.
        autocast = self.ws_dtype == "compute"
        init = Init("normal", (self.init_scale / math.prod(shape[:3])) ** 0.5)
        self.kernel = self.add_parameter("kernel", "kernel", shape, init, autocast=autocast)
        if self.gain_init is not None:
            gain = Init("constant", self.gain_init)
            self.gain = self.add_parameter("gain", "gain", shape[3:], gain, autocast=autocast)
        self.bias = self.add_parameter("bias", "bias", shape[3:], ZEROS, autocast=False)

    def standardised_kernel(self) -> Any:
        """The kernel that convolves, (k, k, I/groups, O)."""
        kernel = self.read("kernel")
        return self.kernels.standardise(
            kernel,
            ops.ones(self.filters, kernel.dtype) if self.gain_init is None else self.read("gain"),
            eps=self.eps,
            eps_rule=self.eps_rule,
            ddof=self.ddof,
            gamma=self.gamma,
        )

    def call(self, x: Any) -> Any:
        return self._conv(x, self.standardised_kernel(), self.read("bias"))

    def _conv(self, x: Any, kernel: Any, bias: Any) -> Any:
        how = (self.strides, self.padding, self.data_format, self.dilation)
        return self.kernels.convolve(x, kernel, bias, *how)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "eps": self.eps,
            "eps_rule": self.eps_rule,
            "ddof": self.ddof,
            "gamma": self.gamma,
            "init_scale": self.init_scale,
            "gain_init": self.gain_init,
            "ws_dtype": self.ws_dtype,
        }
