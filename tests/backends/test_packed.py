"""Convs of folded networks on PyTorch, whose kernels are kept a second time for oneDNN."""

import os

import numpy as np
import pytest
from keras import ops

if os.environ.get("KERAS_BACKEND") != "torch":
    pytest.skip("of PyTorch", allow_module_level=True)

from nfspec.backends.kernels import torch as kernels
from nfspec.backends.layers import Conv2D
from nfspec.plan import activations
from nfspec.reference import operations

from .small import drawn
from .test_kernels import U


def built(kind="identity", groups=1, **how):
    layer = Conv2D(8, 3, kind=kind, groups=groups, name="conv", **how)
    layer.build((None, 6, 6, 4))
    layer.kernel.assign(drawn(3, 3, 4 // groups, 8, seed=1))
    layer.bias.assign(drawn(8, seed=2))
    return layer


class TestPackedWeights:
    """Without gradients a conv's kernel is kept a second time, as oneDNN wants it."""

    @pytest.fixture(autouse=True)
    def images(self):
        import torch

        self.torch, self.x = torch, torch.tensor(drawn(1, 6, 6, 4))

    def assert_current(self, layer, x=None):
        x = self.x if x is None else x
        kernel = ops.convert_to_numpy(layer.kernel).astype(float)
        bias = ops.convert_to_numpy(layer.bias)
        how = (layer.strides, layer.groups, "same")
        exact = operations.conv(x.numpy().astype(float), kernel, *how) + bias
        exact = activations.apply(layer.kind, exact)
        for context in (self.torch.no_grad(), self.torch.inference_mode()):
            with context:
                error = np.linalg.norm(layer(x).numpy() - exact)
            assert error <= 16 * 6 * U * np.linalg.norm(exact)
        error = np.linalg.norm(layer(x).detach().numpy() - exact)
        assert error <= 16 * 6 * U * np.linalg.norm(exact)

    @pytest.mark.parametrize("groups", [1, 2])
    @pytest.mark.parametrize("strides", [1, 2])
    @pytest.mark.parametrize("kind", ["identity", "gelu_erf", "gelu_tanh", "relu", "silu", "tanh"])
    def test_same_with_gradients_and_without(self, kind, strides, groups):
        self.assert_current(built(kind, groups, strides=strides))

    def test_kept_until_the_parameter_changes(self):
        layer = built()
        with self.torch.no_grad():
            layer(self.x)
            pack = kernels._packs[layer.kernel.value][1]
            layer(self.x + 1.0)
            assert kernels._packs[layer.kernel.value][1] is pack
            layer.kernel.assign(drawn(3, 3, 4, 8, seed=5))
            layer(self.x)
            assert kernels._packs[layer.kernel.value][1] is not pack

    @pytest.mark.parametrize("way", ["assign", "in place", "state_dict", "step", "inference"])
    def test_changed_parameters_are_seen(self, way):
        layer, other = built(), drawn(3, 3, 4, 8, seed=5)
        self.assert_current(layer)
        kernel, torch = layer.kernel.value, self.torch
        if way == "assign":
            layer.kernel.assign(other)
        elif way == "in place":
            with torch.no_grad():
                kernel.mul_(2.0)
        elif way == "state_dict":
            state = {
                name: torch.tensor(value.numpy()) for name, value in layer.state_dict().items()
            }
            layer.load_state_dict({k: 2.0 * v for k, v in state.items()})
        elif way == "step":
            layer(self.x).sum().backward()
            torch.optim.SGD([kernel], lr=0.1).step()
        else:
            with torch.inference_mode():
                kernel.mul_(2.0)
        self.assert_current(layer)

    def test_a_tensor_that_lies_where_the_packed_one_lay_is_seen(self):
        """Data changed twice: the second may lie where the one lay that the first replaced."""
        for channels in range(8, 48):
            layer, x = Conv2D(16, 3), self.torch.ones(1, 6, 6, channels)
            layer.build(x.shape)
            kernel = layer.kernel.value
            with self.torch.no_grad():
                before = layer(x)
                for _ in range(2):
                    kernel.data = 2.0 * kernel.data
                # The bias is 0, and a power of two changes no rounding.
                assert self.torch.equal(layer(x), 4.0 * before)

    def test_other_images(self):
        layer = built()
        for x in (self.x, self.x[:, :5], self.x.repeat(2, 1, 1, 1), self.x):
            self.assert_current(layer, x)

    def test_two_layers_do_not_share(self):
        one, two = built(), built()
        two.kernel.assign(drawn(3, 3, 4, 8, seed=6))
        for layer in (one, two, one):
            self.assert_current(layer)
