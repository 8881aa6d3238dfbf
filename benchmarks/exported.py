"""Exported files in their runtimes: nfspec's ONNX in onnxruntime and OpenVINO, and timm's ONNX."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nfspec.backends.exporters import onnx, openvino
from nfspec.backends.exporters.settings import Network, Settings
from nfspec.benchmarks import inputs
from nfspec.benchmarks.works import Setup, Work


def _written(setup: Setup, folder: str) -> Path:
    """nfspec's file of the network, with free sizes, as `nfspec export` writes it."""
    plan = inputs.plan_of(setup)
    path = Path(folder, "network.onnx")
    onnx.write(path, Network(plan, inputs.params_of(plan), Settings().checked(plan)))
    return path


def _in_onnxruntime(path: Path, images: Any, cores: int | None) -> Work:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores or 0  # 0: as many as there are
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda: session.run(None, {given.name: images})


def in_onnxruntime(setup: Setup) -> Work:
    with tempfile.TemporaryDirectory() as folder:
        return _in_onnxruntime(_written(setup, folder), inputs.images(setup), setup.cores)


def in_openvino(setup: Setup) -> Work:
    """In float32: OpenVINO's own choice is bfloat16 on a CPU that has it."""
    ov = openvino.imported()
    how: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if setup.cores is not None:
        how["INFERENCE_NUM_THREADS"] = setup.cores
    with tempfile.TemporaryDirectory() as folder:
        compiled = ov.Core().compile_model(_written(setup, folder), "CPU", how)
    images = inputs.images(setup)
    return lambda: compiled(images)


def of_timm(setup: Setup) -> Work:
    """timm's network, exported by PyTorch at the size of the images, in onnxruntime."""
    import torch

    from nfspec.benchmarks.timm import name_of, timm

    model = timm.create_model(name_of(setup)).eval()
    images = inputs.images_nchw(setup)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "timm.onnx")
        torch.onnx.export(model, (torch.from_numpy(images),), path, dynamo=True, verbose=False)
        return _in_onnxruntime(path, images, setup.cores)


MAKERS: Mapping[str, Any] = {
    "onnxruntime": in_onnxruntime,
    "openvino": in_openvino,
    "timm": of_timm,
}
