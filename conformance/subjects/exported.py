"""Files of `nfspec export` in their runtimes: blocks and networks, each written and run anew.

The functions take NumPy's arrays. A file is folded, so that it has no gradients.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nfspec.conformance.cases.case import Arrays
from nfspec.conformance.subjects import Function, NotOffered
from nfspec.plan import Plan


class Exported:
    """Common to all formats; a subclass names its format, which is run by its own runtime.

    Attributes:
        format: Name of the format.
        package: The runtime's distribution.
    """

    framework = "numpy"
    format = ""
    package = ""

    def __init__(self, mode: str):
        from nfspec.backends.exporters.formats import format_of

        if mode != "f32":
            raise NotOffered(f"an exported file is tested in mode f32, not in {mode}")
        self._format = format_of(self.format)
        self._format.require()

    def block(self, plan: Plan) -> Function:
        (tap,) = plan.taps
        run = self.forward(plan)
        return lambda x, params: run(x, params)[tap]

    def forward(self, plan: Plan) -> Function:
        from nfspec.backends.exporters.settings import Network, Settings

        settings = Settings(outputs=tuple(plan.taps))

        def function(x: Any, params: Mapping[str, Any]) -> Arrays:
            with tempfile.TemporaryDirectory(prefix="nfspec-") as folder:
                path = Path(folder) / f"network{self._format.suffix}"
                self._format.write(path, Network(plan, dict(params), settings))
                return dict(self._format.runtimes[0].load(path)(x))

        return function


class OnnxRuntime(Exported):
    format = "onnx"
    package = "onnxruntime"


class OpenVino(Exported):
    format = "openvino"
    package = "openvino"


class LiteRT(Exported):
    format = "litert"
    package = "ai-edge-litert"


class SavedModel(Exported):
    format = "savedmodel"
    package = "tensorflow"


class StableHLO(Exported):
    format = "stablehlo"
    package = "jax"
