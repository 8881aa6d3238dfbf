"""Targets whose files have functions of arrays by canonical name: NumPy and JAX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nfspec.conformance.subjects import Function
from nfspec.conformance.subjects.generated import Generated, carriers, named, rebound
from nfspec.plan import ECA, Dense, Plan, Pool, SqueezeExcite, WSConv


class Functions(Generated):
    """A subclass says how its files name things.

    Attributes:
        network: Name of the function of the whole network.
        average: Name of the average pool.
        image_at: Position of the image among the arguments of `block`, after the parameters.
    """

    network = ""
    average = ""
    image_at = 0

    def ws_conv(self, op: WSConv) -> Function:
        conv = self._file(carriers.with_conv(op)).conv
        names, more = ("kernel", "gain", "bias"), carriers.dilated(op)
        return lambda x, *values: conv(named(values, *names), "op", x, op.stride, **more)

    def squeeze_excite(self, op: SqueezeExcite) -> Function:
        attend = self._file(carriers.with_squeeze_excite(op)).squeeze_excite
        names = ("fc0.kernel", "fc0.bias", "fc1.kernel", "fc1.bias")
        return lambda x, *values: attend(named(values, *names), "op", x)

    def eca(self, op: ECA) -> Function:
        attend = self._file(carriers.with_eca(op)).channel_attention
        return lambda x, kernel: attend({"op.kernel": kernel}, "op", x)

    def pool(self, op: Pool) -> Function:
        made = self._file(carriers.with_pool(op))
        function: Function = getattr(made, self.average if op.kind == "avg" else "max_pool")
        return function if op.stride > 1 else lambda x: function(x, op.stride)

    def dense(self, op: Dense) -> Function:
        dense = self._file(carriers.small()).dense
        return lambda x, *values: dense(named(values, "kernel", "bias"), "op", x)

    def block(self, plan: Plan) -> Function:
        """The file's block, called by the file's network with the numbers that it has there."""
        whole, row = carriers.network_of(plan)
        made, at = self._file(whole), self.image_at

        def function(x: Any, params: Mapping[str, Any]) -> Any:
            outputs = []

            def block(_: Any, *arguments: Any, **more: Any) -> Any:
                if row.name in [text for text in arguments if isinstance(text, str)]:
                    given = (*arguments[:at], x, *arguments[at + 1 :])
                    outputs.append(made.block(params, *given, **more))
                return arguments[at]

            def conv(_: Any, name: str, image: Any, *arguments: Any, **more: Any) -> Any:
                return image

            same = {name: lambda image: image for name in ("act", "max_pool")}
            rebound(made, block=block, conv=conv, **same)["features"]({}, x)
            return outputs[0]

        return function

    def forward(self, plan: Plan) -> Function:
        taps, names = self._tapped(plan)

        def function(x: Any, params: Mapping[str, Any]) -> Any:
            taps.clear()
            logits = names[self.network](params, x)
            return {**taps, "logits": logits}

        return function

    def _tapped(self, plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
        """A dict that holds all taps but the logits, once the file's network was evaluated; and
        the file's names, which fill it."""
        made = self._file(plan)
        taps: dict[str, Any] = {}

        def block(params: Any, *arguments: Any, **more: Any) -> Any:
            (name,) = (text for text in arguments if isinstance(text, str))
            taps.setdefault("stem", arguments[self.image_at])
            taps[name] = made.block(params, *arguments, **more)
            return taps[name]

        def act(x: Any) -> Any:
            taps["features"] = made.act(x)  # the last one outside a block
            return taps["features"]

        def dense(params: Any, name: str, x: Any) -> Any:
            taps["pool"] = x
            return made.dense(params, name, x)

        return taps, rebound(made, block=block, act=act, dense=dense)
