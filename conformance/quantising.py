"""Files in int8: calibrated on images, and measured beside the float32 file on other images.

They are never called equal: quantisation changes a network, and by how much is what is reported.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec.arguments import whole
from nfspec.backends.exporters.format import Format, Run
from nfspec.backends.exporters.formats import FORMATS, format_of
from nfspec.backends.exporters.running import as_pixels, running
from nfspec.backends.exporters.settings import LOGITS, Network, Settings, as_given, named_classes
from nfspec.conformance.compare import Progress
from nfspec.data.batches import held_out
from nfspec.data.photos import photos
from nfspec.data.preprocessing import Preprocessing
from nfspec.data.sources import Source
from nfspec.errors import InputError
from nfspec.files import beside, files_in
from nfspec.language.spec import Spec
from nfspec.plan import Plan
from nfspec.plan.free_memory import require_free_memory
from nfspec.plan.initialise import Params
from nfspec.plan.resolver import resolve
from nfspec.weights import check

INT8 = "int8"
CALIBRATION = 128  # images at most; the makers of the quantisers use 100 to 300
HELD_OUT = 256  # images at most
BATCH = 8  # images at most, where the file takes any number
ROUNDS = 7
Images = NDArray[Any]


@dataclass(frozen=True)
class Quantised:
    """A file in int8 beside the same network in float32, in the same runtime.

    Attributes:
        network: Name of the network.
        format: Name of the file's format.
        path: The file.
        runtime: Name and version of what ran both.
        calibration: Number of images that it was calibrated on.
        held_out: Number of other images, on which the rest is measured.
        layers: Tap of the network to the relative L2 distance of its values, in the order of the
            plan; `logits` is the last.
        agreement: Share of the images whose most probable class is the same; None without a
            classifier.
        bytes: Size of the file.
        float_bytes: Size of the float32 file.
        seconds: Median time of a batch.
        float_seconds: Median time of a batch in the float32 file.
        batch: Images in that batch.
    """

    network: str
    format: str
    path: Path
    runtime: str
    calibration: int
    held_out: int
    layers: dict[str, float]
    agreement: float | None
    bytes: int
    float_bytes: int
    seconds: float
    float_seconds: float
    batch: int


def quantise(
    spec: Spec | Plan,
    to: str,
    path: str | Path,
    params: Params,
    images: Any,
    *,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    layout: str = "nhwc",
    preprocess: bool = False,
    outputs: Sequence[str] = (LOGITS,),
    license: str = "",
    classes: Sequence[str] = (),
    force: bool = False,
    seed: int = 0,
    progress: Progress = lambda message: None,
) -> Quantised:
    """Write a network with weights and arithmetic of int8, and measure what that changes.

    The quantiser is that of the format's makers: onnxruntime's, OpenVINO's NNCF, TensorFlow's
    converter. Images and outputs stay float32. Half of the images, at most 128, calibrate it; on
    others, at most 256, each layer and the answers are compared with those of the float32 file.

    Args:
        spec: What `nfspec.load` or `nfspec.resolve` returned.
        to: Name of the format: `onnx`, `openvino` or `litert`.
        path: The file.
        params: Canonical name to float32 array.
        images: At least two, as of `nfspec.predict`; labels are not needed.
        size, batch, layout, preprocess, outputs, license, classes: As of `nfspec.export`. Images
            are of the spec's test size where the size is free.
        force: Replace a file that exists.
        seed: Random seed of the choice of images.
        progress: A function that is called with a line for each step.

    Raises:
        InputError: An argument has a wrong type or value, an image cannot be read, a file exists,
            or the memory is short.
        WeightError: `params` are not the plan's.
        BackendError: A package that is needed is not installed.
        OSError: The file cannot be written.
    """
    plan, path, form = resolve(spec) if isinstance(spec, Spec) else spec, Path(path), format_of(to)
    if form.quantise is None:
        able = ", ".join(each.name for each in FORMATS.values() if each.quantise)
        raise InputError(f"int8: {to} has no such files here; one of {able} has")
    form.require()
    chosen = Settings(size, batch, layout, "f32", preprocess, tuple(outputs), license)
    settings = replace(chosen.checked(plan), quantised=INT8)
    whole("seed", seed, 0, "")
    form.require_free(path, force)
    require_free_memory(plan, "quantise", 4)
    network = Network(plan, check(plan, params), settings, named_classes(plan, classes))
    pictures = _pictures(network, photos(images), seed)
    with beside(path, force) as folder:
        made = folder / path.name
        progress(f"writing {path}, calibrated on {len(pictures.first)} images ...")
        form.write_int8(made, network, pictures.calibration)
        progress(f"comparing on {len(pictures.second)} other images ...")
        with tempfile.TemporaryDirectory(dir=folder) as others:
            return _measured(form, made, path, pictures, Path(others))


@dataclass(frozen=True)
class _Pictures:
    """Images for calibration, and others, as a network's file takes them."""

    network: Network
    first: Source
    second: Source
    preparation: Preprocessing

    @property
    def batch(self) -> int:
        return self.network.settings.batch or min(BATCH, len(self.first), len(self.second))

    def calibration(self) -> Iterator[Images]:
        """Batches in the file's layout."""
        return (as_given(images, self.network.settings) for images in self._batches(self.first))

    def others(self) -> Iterator[Images]:
        """Batches (N, H, W, C)."""
        return self._batches(self.second)

    def _batches(self, source: Source) -> Iterator[Images]:
        settings = self.network.settings
        for images, _ in held_out(source, self.preparation, self.batch, _refuse):
            if settings.batch in (None, len(images)):
                pixels = settings.preprocess
                yield as_pixels(images, self.network.input) if pixels else images


def _refuse(message: str) -> None:
    raise InputError(message)


def _pictures(network: Network, source: Source, seed: int) -> _Pictures:
    """Images in an order drawn at random: the first half for calibration.

    Raises:
        InputError: They are too few, or the file's are not square.
    """
    settings, how = network.settings, network.input
    height, width = settings.size or (how.test, how.test)
    if height != width:
        raise InputError(f"size: int8 is calibrated on square images; found {height} x {width}")
    least = 2 * (settings.batch or 1)
    if len(source) < least:
        raise InputError(f"int8: expected {least} images or more; found {len(source)}")
    order = np.random.default_rng(seed).permutation(len(source))
    half = len(source) // 2
    parts = order[:half][:CALIBRATION], order[half:][:HELD_OUT]
    first, second = (_part(source, numbers) for numbers in parts)
    return _Pictures(network, first, second, Preprocessing(how, height))


def _part(source: Source, numbers: NDArray[np.int64]) -> Source:
    names = tuple(source.names[n] for n in numbers)
    labels = source.labels[numbers]
    return Source(source.classes, labels, names, lambda n: source.opened(int(numbers[n])))


def _measured(form: Format, made: Path, path: Path, pictures: _Pictures, folder: Path) -> Quantised:
    """Compare a file with the float32 file of the same network, layer by layer.

    The layers are outputs of two files more in `folder`, of all taps, which are calibrated alike.
    """
    network, runtime = pictures.network, form.runtimes[0]
    taps = tuple(network.plan.taps)
    whole = replace(network.settings, quantised="")
    every = replace(network, settings=replace(network.settings, outputs=taps))
    paths = {name: folder / f"{name}{form.suffix}" for name in ("plain", "layers", "float")}
    form.write_int8(paths["layers"], every, pictures.calibration)
    form.written(paths["float"], replace(every, settings=replace(whole, outputs=taps)))
    form.written(paths["plain"], replace(network, settings=whole))
    layers, right = (running(runtime, paths[name], every.settings) for name in ("layers", "float"))
    gaps, norms, same, count = dict.fromkeys(taps, 0.0), dict.fromkeys(taps, 0.0), 0, 0
    for batch in pictures.others():
        near, exact = layers(batch), right(batch)
        for name in taps:
            gaps[name] += float(np.square(near[name] - exact[name], dtype=np.float64).sum())
            norms[name] += float(np.square(exact[name], dtype=np.float64).sum())
        count += len(batch)
        if LOGITS in taps:
            same += int((near[LOGITS].argmax(1) == exact[LOGITS].argmax(1)).sum())
    times = _times([running(runtime, file, whole) for file in (made, paths["plain"])], pictures)
    return Quantised(
        network=network.plan.name,
        format=form.name,
        path=path,
        runtime=runtime.version,
        calibration=len(pictures.first),
        held_out=count,
        layers={name: (gaps[name] / norms[name]) ** 0.5 for name in taps},
        agreement=same / count if LOGITS in taps else None,
        bytes=_bytes(form, made),
        float_bytes=_bytes(form, paths["plain"]),
        seconds=times[0],
        float_seconds=times[1],
        batch=pictures.batch,
    )


def _bytes(form: Format, path: Path) -> int:
    return sum(file.stat().st_size for part in form.parts(path) for file in files_in(part))


def _times(runs: Sequence[Run], pictures: _Pictures) -> list[float]:
    """Median seconds of a batch in each, in turns."""
    first = next(pictures.others())
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, times in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run(first)
            times.append(time.perf_counter() - start)
    return [median(times[1:]) for times in seconds]  # the first has the loading of the file
