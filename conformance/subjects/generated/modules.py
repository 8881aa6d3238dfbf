"""Targets whose files have a class for each layer of images (N, H, W, C): Flax, Keras and MLX."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar
from unittest import mock

from nfspec.conformance.subjects import Function, NotOffered
from nfspec.conformance.subjects.generated import Generated, carriers
from nfspec.plan import ECA, Plan, Pool, SqueezeExcite, WSConv

Values = Mapping[str, Any]  # arrays by canonical name within a layer, a block or a network


class Modules(Generated, ABC):
    """A subclass makes layers, and evaluates them with other parameters than their own.

    Attributes:
        conv: Name of the file's class of convs.
        call: Name of the method that evaluates a layer.
    """

    conv: ClassVar[str] = "WSConv"
    call: ClassVar[str] = "__call__"

    @abstractmethod
    def _layer(self, kind: Any, channels: int, *sizes: int, **more: int) -> Any:
        """A layer of the file for so many input channels."""

    @abstractmethod
    def _model(self, plan: Plan) -> Any:
        """The file's network in inference."""

    @abstractmethod
    def _applied(self, layer: Any, values: Values, x: Any) -> Any:
        """The output of a layer, a block or a network with these parameters."""

    @abstractmethod
    def _head_layers(self) -> tuple[Any, Any]:
        """The framework's classes of dense layers and of dropout."""

    def ws_conv(self, op: WSConv) -> Function:
        kind = getattr(self._file(carriers.with_conv(op)), self.conv)
        sizes = (op.out_channels, op.kernel, op.stride)
        more = carriers.dilated(op)
        layer = self._layer(kind, op.in_channels, *sizes, groups=op.groups, **more)
        return self._of(layer, "kernel", "gain", "bias")

    def squeeze_excite(self, op: SqueezeExcite) -> Function:
        kind = self._file(carriers.with_squeeze_excite(op)).SqueezeExcite
        layer = self._layer(kind, op.channels, op.channels, op.hidden)
        return self._of(layer, "fc0.kernel", "fc0.bias", "fc1.kernel", "fc1.bias")

    def eca(self, op: ECA) -> Function:
        kind = self._file(carriers.with_eca(op)).ChannelAttention
        return self._of(self._layer(kind, op.channels, op.kernel), "kernel")

    def _of(self, layer: Any, *names: str) -> Function:
        def function(x: Any, *values: Any) -> Any:
            return self._applied(layer, dict(zip(names, values, strict=True)), x)

        return function

    def pool(self, op: Pool) -> Function:
        if op.kind == "max":
            raise NotOffered("the max pool is a line of the file's stem, which NET-01 tests")
        function: Function = self._file(carriers.with_pool(op)).pool
        return function if op.stride > 1 else lambda x: function(x, op.stride)

    def _block(self, model: Any, stage: int, index: int) -> Any:
        return model.stages[stage].blocks[index]

    def block(self, plan: Plan) -> Function:
        whole, row = carriers.network_of(plan)
        layer = self._block(self._model(whole), row.stage, row.index)
        local = {name: name.removeprefix(f"{row.name}.") for name in plan.parameters}

        def function(x: Any, params: Values) -> Any:
            return self._applied(layer, {local[name]: params[name] for name in local}, x)

        return function

    def forward(self, plan: Plan) -> Function:
        model, made = self._model(plan), self._file(plan)

        def function(x: Any, params: Values) -> Any:
            with self._watched(made, plan) as taps:
                logits = self._applied(model, params, x)
            return {**taps, "logits": logits}

        return function

    @contextmanager
    def _watched(self, made: ModuleType, plan: Plan) -> Iterator[dict[str, Any]]:
        """All taps but the logits of the file's network, which is evaluated within."""
        taps: dict[str, Any] = {}
        rows = iter(plan.blocks)
        dropped: list[Any] = []
        dense, dropout = self._head_layers()
        own = {kind: getattr(kind, self.call) for kind in (made.Block, dense, dropout)}
        activate = made.act

        def block(layer: Any, x: Any, **more: Any) -> Any:
            taps.setdefault("stem", x)
            y = own[made.Block](layer, x, **more)
            taps[next(rows).name] = y
            return y

        def act(x: Any) -> Any:
            taps["features"] = activate(x)  # the last one is the network's
            return taps["features"]

        def drop(layer: Any, x: Any, **more: Any) -> Any:
            taps["pool"] = x
            dropped.append(own[dropout](layer, x, **more))
            return dropped[-1]

        def classify(layer: Any, x: Any, **more: Any) -> Any:
            if not any(x is y for y in dropped):
                taps["pool"] = x  # the last one is the classifier's
            return own[dense](layer, x, **more)

        with (
            mock.patch.object(made.Block, self.call, block),
            mock.patch.object(made, "act", act),
            mock.patch.object(dropout, self.call, drop),
            mock.patch.object(dense, self.call, classify),
        ):
            yield taps
