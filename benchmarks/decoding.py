"""Reading images for training: JPEGs of 500 x 375 px by a network's recipe, as ImageNet's are."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np
from PIL import Image

from nfspec.benchmarks import inputs
from nfspec.benchmarks.works import READ, Setup, Work
from nfspec.data.batches import Batch, Example, Examples, Share, in_threads
from nfspec.data.images import opened_image
from nfspec.data.readers import in_processes
from nfspec.data.sources import Source
from nfspec.language.loader import load
from nfspec.language.overrides import given
from nfspec.training.recipes import default_for

FILES = 64
SIDES = (500, 375)  # px, of ImageNet's images on average
QUALITY = 95  # about 105 kB a file, as ImageNet's are on average
MOST = 2**31  # images in all calls together


@dataclass(frozen=True)
class Photos:
    """Opens parts of scikit-learn's two photographs, image files in memory, as two classes."""

    files: tuple[bytes, ...]

    @classmethod
    def cut(cls) -> Photos:
        from sklearn.datasets import load_sample_images

        rng = np.random.default_rng(0)
        photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
        files = []
        for n in range(FILES):
            photo, file = photos[n % 2], io.BytesIO()
            left, top = (int(rng.integers(0, side // 10)) for side in photo.size)
            box = (left, top, left + 9 * photo.width // 10, top + 9 * photo.height // 10)
            photo.resize(SIDES, Image.Resampling.BICUBIC, box).save(file, "JPEG", quality=QUALITY)
            files.append(file.getvalue())
        return cls(tuple(files))

    def __call__(self, number: int) -> AbstractContextManager[Image.Image]:
        return opened_image(self.files[number])


def _share(setup: Setup) -> Share:
    spec = inputs.spec_of(setup)
    side = given("--size", {("input", "train"): setup.size})
    spec = load(setup.variant, [*default_for(spec), *inputs.changes_of(setup), side])
    assert spec.recipe is not None
    names = tuple(str(n) for n in range(FILES))
    source = Source(("china", "flower"), np.arange(FILES) % 2, names, Photos.cut())
    examples = Examples(source, spec.input, spec.recipe, 0, setup.batch, MOST)
    return Share(examples, setup.batch, 0)


def alone(setup: Setup, then: Callable[[Example], None] = lambda example: None) -> Work:
    """Batches in this thread, without reading ahead; `then` is called with each image."""
    share, place = _share(setup), count()

    def work() -> None:
        for _ in range(READ * setup.batch):
            then(share[next(place)])

    return work


def several(setup: Setup, read: Callable[[Share, int], Iterator[Batch]]) -> Work:
    """Batches that so many workers read ahead as there are cores."""
    batches = read(_share(setup), setup.cores or os.cpu_count() or 1)

    def work() -> None:
        for _ in range(READ):
            next(batches)

    return work


MAKERS: Mapping[str, Any] = {
    "alone": alone,
    "threads": partial(several, read=in_threads),
    "processes": partial(several, read=in_processes),
}
