"""An exported file as a function of images, in one of its runtimes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec.backends.exporters.format import Format, Outputs, Run, Runtime
from nfspec.backends.exporters.settings import Network, Settings, as_given, as_nhwc
from nfspec.errors import BackendError, InputError, suggest
from nfspec.language.graph import Input

Images = NDArray[Any]


def runtime_of(form: Format, name: str | None) -> Runtime:
    """A runtime of a format by its package's name; its own if None.

    Raises:
        InputError: The format has no such runtime.
        BackendError: The runtime is not installed.
    """
    known = {each.package: each for each in form.runtimes}
    if name is None:
        return form.runtimes[0]
    if name not in known:
        raise InputError(
            f"runtime: expected one of {', '.join(known)} for {form.name}; found {name!r}"
            f"{suggest(name, known)}"
        )
    if not known[name].installed:
        raise BackendError(f"{name} is not installed; run: pip install {name}")
    return known[name]


def running(runtime: Runtime, path: Path, settings: Settings) -> Run:
    """A function of images, (N, H, W, C), that returns outputs by name, images NHWC. The file is
    loaded at the first call."""
    load = cache(runtime.load)

    def run(images: Images) -> Outputs:
        found = load(path)(as_given(images, settings))
        return {name: as_nhwc(value, settings) for name, value in found.items()}

    return run


def as_pixels(images: Images, how: Input) -> Images:
    """Images as they were before they were normalised, uint8.

    Raises:
        ValueError: They were no pixels of 0 to 255.
    """
    pixels = np.rint((images * np.asarray(how.std) + np.asarray(how.mean)) * 255.0)
    if pixels.min() < 0 or pixels.max() > 255:
        raise ValueError("beyond 0 to 255")
    return pixels.astype(np.uint8)


def exported_output(
    runtime: Runtime, path: Path, network: Network, output: str
) -> Callable[[Images], Images]:
    """A function of normalised images, (N, H, W, C), whatever the file takes: one of its outputs.

    Args:
        runtime: What runs the file.
        path: The file.
        network: What its metadata describe.
        output: The name of an output that it has.

    Raises:
        InputError: From the function: the file takes pixels, and the images have none.
    """
    run, how = running(runtime, path, network.settings), network.input

    def found(images: Images) -> Images:
        if network.settings.preprocess:
            try:
                images = as_pixels(images, how)
            except ValueError:
                raise InputError(
                    f"{path}: takes pixels of 0 to 255, and DeepMind's filter makes others; leave "
                    "out --original"
                ) from None
        return np.asarray(run(images)[output])

    return found
