"""The target `numpy`: functions of arrays. They have no gradients, so that nothing trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nfspec.conformance.cases.case import Arrays
from nfspec.conformance.subjects import Function, NotOffered
from nfspec.conformance.subjects.generated import Generated, carriers, named, rebound
from nfspec.generation.native import native
from nfspec.plan import ECA, Dense, Plan, Pool, SqueezeExcite, WSConv


class NumpySource(Generated):
    framework = "numpy"
    target = "numpy"

    def ws_conv(self, op: WSConv) -> Function:
        conv = self._file(carriers.with_conv(op)).conv
        return lambda x, *values: conv(named(values, "kernel", "gain", "bias"), "op", x, op.stride)

    def squeeze_excite(self, op: SqueezeExcite) -> Function:
        attend = self._file(carriers.with_squeeze_excite(op)).squeeze_excite
        names = ("fc0.kernel", "fc0.bias", "fc1.kernel", "fc1.bias")
        return lambda x, *values: attend(named(values, *names), "op", x)

    def eca(self, op: ECA) -> Function:
        attend = self._file(carriers.with_eca(op)).channel_attention
        return lambda x, kernel: attend({"op.kernel": kernel}, "op", x)

    def pool(self, op: Pool) -> Function:
        made = self._file(carriers.with_pool(op))
        return made.pool if op.kind == "avg" else made.max_pool

    def dense(self, op: Dense) -> Function:
        dense = self._file(carriers.small()).dense
        return lambda x, *values: dense(named(values, "kernel", "bias"), "op", x)

    def block(self, plan: Plan) -> Function:
        """The file's block, called by the file's network with the numbers that it has there."""
        whole, row = carriers.network_of(plan)
        made = self._file(whole)

        def function(x: Any, params: Mapping[str, Any]) -> Any:
            outputs = []

            def block(_: Any, name: str, image: Any, *numbers: Any, **more: Any) -> Any:
                if name == row.name:
                    outputs.append(made.block(params, name, x, *numbers, **more))
                return image

            def nothing(_: Any, name: str, image: Any, *numbers: Any, **more: Any) -> Any:
                return image

            others = {"block": block, "conv": nothing}
            same = {name: lambda image: image for name in ("act", "max_pool")}
            rebound(made, **others, **same)["features"]({}, x)
            return outputs[0]

        return function

    def forward(self, plan: Plan) -> Function:
        made = self._file(plan)
        taps: dict[str, Any] = {}

        def block(params: Any, name: str, x: Any, *numbers: Any, **more: Any) -> Any:
            taps.setdefault("stem", x)
            taps[name] = made.block(params, name, x, *numbers, **more)
            return taps[name]

        def dense(params: Any, name: str, x: Any) -> Any:
            taps["pool"] = x
            return made.dense(params, name, x)

        names = rebound(made, block=block, dense=dense)
        plain = names["features"]

        def features(params: Any, x: Any) -> Any:
            taps["features"] = plain(params, x)
            return taps["features"]

        names["features"] = features

        def function(x: Any, params: Mapping[str, Any]) -> Any:
            taps.clear()
            logits = names["forward"](params, x)
            return {**taps, "logits": logits}

        return function

    def through(self, plan: Plan, params: Arrays | None) -> Arrays:
        if params is None:
            raise NotOffered("a file in NumPy draws no weights")
        (held,) = native(plan, "numpy", params=params).args
        return held
