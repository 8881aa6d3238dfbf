"""Small sources of images whose pixels say which image they are, and examples made from them."""

import numpy as np
from PIL import Image

import nfspec
from nfspec.data.batches import Examples
from nfspec.data.sources import Source

NANO = nfspec.load("nfnet-nano")
# A pixel of 0 to 255 becomes the same float.
PLAIN = NANO.input.model_copy(
    update={"train": 16, "test": 16, "mean": (0.0,) * 3, "std": (1 / 255,) * 3}
)
GREY = PLAIN.model_copy(update={"channels": 1, "mean": (0.0,), "std": (1 / 255,)})
# An image as it is.
BARE = NANO.recipe.model_copy(update={"crop_area": 1.0, "flip": False})
ALL = BARE.model_copy(
    update={
        "crop_area": 0.2,
        "flip": True,
        "mixup_alpha": 0.2,
        "cutmix_alpha": 1.0,
        "randaugment_layers": 2,
        "randaugment_magnitude": 5.0,
    }
)


def numbered(count, classes=3, bad=(), read=None):
    """Plain grey images, each as bright as its number is high; some that cannot be read."""

    def opened(number):
        if read is not None:
            read.append(number)
        if number in bad:
            raise OSError("broken")
        return Image.new("L", (20, 20), number)

    labels = np.arange(count, dtype=np.int64) % classes
    return Source(
        tuple("abcdefghij"[:classes]), labels, tuple(f"image{n}" for n in range(count)), opened
    )


def examples(source, recipe=BARE, how=PLAIN, seed=0, batch=8, count=None, **rest):
    return Examples(source, how, recipe, seed, batch, count or len(source), **rest)


def numbers_of(made, places=None):
    """Numbers of the images of `numbered` that plain examples are."""
    actual = []
    for place in range(len(made)) if places is None else places:
        image = np.unique(np.rint(made[place].image))
        assert len(image) == 1
        actual.append(int(image[0]))
    return actual


def joined(parts):
    """Batches one after another, as bytes that differ if a bit does."""
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images).tobytes(), np.concatenate(labels).tobytes()


def alone(made, start=0):
    """The batches that a loop on one thread makes."""
    actual = [made[place] for place in range(start, len(made))]
    return b"".join(e.image.tobytes() for e in actual), b"".join(e.label.tobytes() for e in actual)
