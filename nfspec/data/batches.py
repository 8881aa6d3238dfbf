"""Batches of training images, each a function of the seed and its place, whatever the framework.

Grain reads ahead and keeps the order; see https://google-grain.readthedocs.io.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from nfspec.data.augment import rand_augment, random_crop_flip
from nfspec.data.images import fit, normalise
from nfspec.data.mixing import cutmix, mix_kind, mixup
from nfspec.data.preprocessing import Preprocessing
from nfspec.data.readers import in_processes
from nfspec.data.sources import Source
from nfspec.errors import InputError
from nfspec.language.graph import Input
from nfspec.language.tables import Recipe
from nfspec.plan.initialise import generator

# More would wait: by F0's recipe an image needs Python's lock for up to a third of its time.
THREADS = 4
WORKERS = max(2, min(16, os.cpu_count() or 1))
T = TypeVar("T")
Pixels = NDArray[np.uint8]
Batch = tuple[NDArray[np.float32], NDArray[np.float32]]  # images (N, S, S, C), labels (N, classes)


@dataclass(frozen=True)
class Example:
    """A training image with its label: (S, S, C) and (classes,), float32."""

    image: NDArray[np.float32]
    label: NDArray[np.float32]


@dataclass(eq=False)
class Examples:
    """The training images of a whole run, by their place in it.

    Each epoch reads the source in an order of its own. An image that cannot be read gives way to
    the one after it in that order. Where images are mixed, each is made of two.

    Attributes:
        source: The images.
        how: `spec.input`.
        recipe: Says what is done to images.
        seed: Seed of everything that is drawn.
        batch: Images in a step, of which half are mixed one way and half the other.
        count: Images in the run.
        on_bad: Called with what is wrong with an image, once for each, from any thread.
    """

    source: Source
    how: Input
    recipe: Recipe
    seed: int
    batch: int
    count: int
    on_bad: Callable[[str], None] = lambda message: None
    bad: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        return self.count

    def __reduce__(self) -> Any:  # for a process, which meets bad images for itself
        return Examples, (self.source, self.how, self.recipe, self.seed, self.batch, self.count)

    def __getitem__(self, place: int) -> Example:
        image, label = self.drawn(place)
        return Example(normalise(image, self.how), label)

    def drawn(self, place: int) -> tuple[Pixels, NDArray[np.float32]]:
        """The pixels and the label of an example, before it is normalised."""
        rng = generator(self.seed, f"image/{place}")
        kind = mix_kind(place % self.batch, self.batch, self.recipe)
        if kind is not None:
            return self._mixed(kind, place, rng)
        image, label = self._read(place, rng)
        return self._augment(image, rng), label

    def _mixed(self, kind: str, place: int, rng: np.random.Generator) -> tuple[Pixels, Any]:
        first, label = self._read(2 * place, rng)
        second, other = self._read(2 * place + 1, rng)
        if not self.recipe.mix_before_augment:
            first, second = self._augment(first, rng), self._augment(second, rng)
        if kind == "mixup":
            image, share = mixup(first, second, self.recipe.mixup_alpha, rng)
        else:
            image, share = cutmix(first, second, self.recipe.cutmix_alpha, rng)
        if self.recipe.mix_before_augment:
            image = self._augment(image, rng)
        return image, np.float32(share) * label + np.float32(1.0 - share) * other

    def _read(self, position: int, rng: np.random.Generator) -> tuple[Pixels, NDArray[np.float32]]:
        """The image at a position of the endless stream of epochs, cropped, and its label."""
        epoch, start = divmod(position, len(self.source))
        order = _order(self.seed, epoch, len(self.source))
        for step in range(len(self.source)):
            number = int(order[(start + step) % len(order)])
            if number in self.bad:
                continue
            try:
                opened = self.source.image(number, self.how.channels)
            except InputError as error:
                self._remember(number, str(error))
                continue
            area = (self.recipe.crop_area, 1.0)
            if self.recipe.crop_area < 1.0:
                cut = random_crop_flip(
                    opened, self.how.train, rng, area=area, flip=self.recipe.flip
                )
            else:
                cut = fit(opened, self.how, self.how.train)
                if self.recipe.flip and rng.random() < 0.5:
                    cut = ImageOps.mirror(cut)
            label = np.zeros(len(self.source.classes), np.float32)
            label[self.source.labels[number]] = 1.0
            return _pixels(cut), label
        raise InputError("none of the training images can be read")

    def _remember(self, number: int, message: str) -> None:
        with self._lock:
            if number not in self.bad:
                self.bad.add(number)
                self.on_bad(message)

    def _augment(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        layers, magnitude = self.recipe.randaugment_layers, self.recipe.randaugment_magnitude
        if layers == 0:
            return image
        picture = Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0])
        return _pixels(rand_augment(picture, layers, magnitude, rng))


def _pixels(image: Image.Image) -> Pixels:
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return generator(seed, f"order/{epoch}").permutation(count)


@dataclass(frozen=True)
class Share:
    """The examples that one of several processes reads: its part of each batch, from a step on.

    Attributes:
        examples: Those of all processes.
        micro: Images that are read together, in all processes.
        start: The place of the first.
        rank, world: Which process of how many.
    """

    examples: Examples
    micro: int
    start: int
    rank: int = 0
    world: int = 1

    @property
    def size(self) -> int:
        return self.micro // self.world

    def __len__(self) -> int:
        return (len(self.examples) - self.start) // self.micro * self.size

    def __getitem__(self, place: int) -> Example:
        return self.examples[self.place(place)]

    def place(self, own: int) -> int:
        """The place among the examples of all processes."""
        step, within = divmod(own, self.size)
        return self.start + step * self.micro + self.rank * self.size + within


def batches(share: Share, workers: int) -> Iterator[Batch]:
    """Read a share of the examples, batch after batch, ahead of the caller.

    Up to `THREADS` workers are threads, since Pillow decodes, resizes and filters without Python's
    lock. More are processes: what an image needs the lock for would keep more threads from helping.
    The batches are the same bits.

    Raises:
        InputError: grain is not installed; or a process that reads images ended.
    """
    if workers > THREADS:
        return in_processes(share, workers)
    return in_threads(share, workers)


def in_threads(share: Share, workers: int) -> Iterator[Batch]:
    try:
        import grain
    except ModuleNotFoundError:
        message = "training reads its images with grain, which is not installed; run: "
        raise InputError(f"{message}pip install grain") from None
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=4 * share.size)
    read = grain.MapDataset.source(share).to_iter_dataset(options)
    yield from read.batch(share.size, drop_remainder=True, batch_fn=_stacked)


def _stacked(examples: Any) -> Batch:
    return np.stack([e.image for e in examples]), np.stack([e.label for e in examples])


def held_out(
    source: Source, preparation: Preprocessing, batch: int, on_bad: Callable[[str], None]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Images as the network takes them, and their numbers in the source; bad ones are left out.

    `WORKERS` threads read up to two batches ahead.

    Args:
        source: The images.
        preparation: Makes the network's input of each.
        batch: Images at a time; the last time it may be fewer.
        on_bad: Called with what is wrong with an image.
    """

    def read(number: int) -> NDArray[np.float32] | InputError:
        try:
            return preparation.of(source.image(number, preparation.how.channels))
        except InputError as error:
            return error

    images, numbers = [], []
    for number, image in enumerate(_ahead(read, len(source), 2 * batch)):
        if isinstance(image, InputError):
            on_bad(str(image))
            continue
        images.append(image)
        numbers.append(number)
        if len(images) == batch:
            yield np.stack(images), np.asarray(numbers)
            images, numbers = [], []
    if images:
        yield np.stack(images), np.asarray(numbers)


def _ahead(function: Callable[[int], T], count: int, most: int) -> Iterator[T]:
    """The values of a function for 0, 1 and so on, computed by threads, up to so many ahead."""
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(WORKERS)
    try:
        for number in range(count):
            waiting.append(pool.submit(function, number))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
