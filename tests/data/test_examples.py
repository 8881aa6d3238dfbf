"""Examples of a training: mixing, crops, flips, and the pixels that come out."""

import math

import numpy as np
import pytest
from PIL import Image

from nfspec.data import batches as module
from nfspec.data.images import fit, normalise
from nfspec.data.sources import Source

from examples import ALL, BARE, GREY, PLAIN, examples, numbered, numbers_of


def off_by(draws):
    """Largest error of a share of draws, but for once in 10^9 times (Hoeffding)."""
    return math.sqrt(math.log(2e9) / (2 * draws))


# mixing


def test_mixing_reads_each_image_once_in_half_an_epoch():
    read = []
    made = examples(numbered(32, read=read), ALL, count=16)
    for place in range(16):
        made[place]
    assert sorted(read) == list(range(32))


@pytest.mark.parametrize("before", [True, False])
def test_mixed_labels_sum_to_one_and_are_of_the_two_images(before):
    read = []
    recipe = ALL.model_copy(update={"mix_before_augment": before})
    made = examples(numbered(64, 8, read=read), recipe, batch=8, count=32)
    for place in range(32):
        label = made[place].label
        first, second = read[-2] % 8, read[-1] % 8
        assert label.dtype == np.float32
        # The larger share is off by 2^-25 at most and the other by 2^-26; where both are of one
        # class, their sum becomes the nearest of 1 and 1 - 2^-24.
        assert label.sum(dtype=np.float64) == pytest.approx(1.0, rel=0, abs=2**-24)
        assert (label >= 0).all()
        assert set(np.flatnonzero(label)) <= {first, second}


def test_the_first_half_of_a_batch_is_mixup_and_the_rest_cutmix(monkeypatch):
    """With the alpha of its own, the first image first, whatever a micro-batch is."""
    calls = []

    def mixing(kind, share):
        def mix(a, b, alpha, rng):
            calls.append((kind, alpha, int(a[0, 0, 0]), int(b[0, 0, 0])))
            return b, share

        return mix

    monkeypatch.setattr(module, "mixup", mixing("mixup", 0.25))
    monkeypatch.setattr(module, "cutmix", mixing("cutmix", 0.75))
    read = []
    recipe = ALL.model_copy(update={"randaugment_layers": 0})
    made = examples(numbered(40, 2, read=read), recipe, batch=5, count=20)
    shares = []
    for place in range(20):
        example = made[place]
        kind, _, first, second = calls[-1]
        assert (first, second) == tuple(read[-2:])
        assert (example.image == second).all()
        if first % 2 != second % 2:
            shares.append((kind, float(example.label[first % 2])))
    assert len(calls) == 20
    halves = [("mixup", recipe.mixup_alpha)] * 2 + [("cutmix", recipe.cutmix_alpha)] * 3
    assert [call[:2] for call in calls] == halves * 4
    assert set(shares) == {("mixup", 0.25), ("cutmix", 0.75)}


@pytest.mark.parametrize(
    ("mixup_alpha", "cutmix_alpha", "expected"),
    [(0.2, 0.0, {"mixup"}), (0.0, 1.0, {"cutmix"}), (0.0, 0.0, set())],
)
def test_one_kind_alone_or_none(monkeypatch, mixup_alpha, cutmix_alpha, expected):
    actual = set()
    for kind in ("mixup", "cutmix"):
        monkeypatch.setattr(
            module, kind, lambda a, b, alpha, rng, kind=kind: (actual.add(kind), (a, 1.0))[1]
        )
    changes = {"mixup_alpha": mixup_alpha, "cutmix_alpha": cutmix_alpha}
    made = examples(numbered(40), ALL.model_copy(update=changes), count=16)
    for place in range(16):
        made[place]
    assert actual == expected


def test_mixing_comes_before_randaugment_or_after_it(monkeypatch):
    """Images that are mixed have values between those of the two."""
    given = []

    def rand_augment(image, layers, magnitude, rng):
        given.append((image.mode, image.size, np.unique(np.asarray(image)).tolist(), layers))
        return image.point(lambda value: 200 + value // 4)

    monkeypatch.setattr(module, "rand_augment", rand_augment)
    mixups = {"cutmix_alpha": 0.0, "mixup_alpha": 5.0}
    for before in (True, False):
        read = []
        given.clear()
        changes = {**mixups, "mix_before_augment": before}
        made = examples(numbered(200, 10, read=read), ALL.model_copy(update=changes))
        for place in range(40):
            example = made[place]
            first, second = read[-2:]
            low, high = sorted((first, second))
            (value,) = np.unique(np.rint(example.image))
            seen = [values for _, _, values, _ in given]
            if before:
                ((mixed,),) = seen[-1:]
                assert low <= mixed <= high
                assert value == 200 + mixed // 4
            else:
                assert seen[-2:] == [[first], [second]]
                assert 200 + low // 4 <= value <= 200 + high // 4
        assert len(given) == (40 if before else 80)
        assert {each[:2] + each[3:] for each in given} == {("RGB", (16, 16), 2)}


def test_randaugment_is_given_grey_images_of_one_channel(monkeypatch):
    modes = []

    def rand_augment(image, layers, magnitude, rng):
        modes.append((image.mode, layers, magnitude))
        return image

    monkeypatch.setattr(module, "rand_augment", rand_augment)
    made = examples(numbered(16), ALL, GREY)
    assert {made[place].image.shape for place in range(8)} == {(16, 16, 1)}
    assert modes == [("L", 2, 5.0)] * 8


def test_without_layers_randaugment_is_not_asked(monkeypatch):
    monkeypatch.setattr(module, "rand_augment", None)
    made = examples(numbered(16), ALL.model_copy(update={"randaugment_layers": 0}))
    assert made[3].image.shape == (16, 16, 3)


# crops and flips


def halves(count):
    """Images that are dark on the left and bright on the right."""
    image = Image.new("L", (20, 20), 0)
    image.paste(255, (10, 0, 20, 20))
    labels = np.zeros(count, np.int64)
    return Source(("x",), labels, tuple(map(str, range(count))), lambda number: image.copy())


@pytest.mark.parametrize("area", [1.0, 0.9])
def test_half_of_the_images_are_mirrored_or_none(area):
    for flip in (True, False):
        recipe = BARE.model_copy(update={"flip": flip, "crop_area": area})
        made = examples(halves(400), recipe)
        mirrored = sum(made[n].image[:, 0].mean() > made[n].image[:, -1].mean() for n in range(400))
        assert mirrored / 400 == pytest.approx(0.5 if flip else 0.0, abs=off_by(400) * flip)


def test_a_crop_of_everything_is_what_evaluation_sees(scans):
    changes = {"margin": 4, "resize": "center", "mean": (0.5, 0.4, 0.3), "train": 24}
    how = PLAIN.model_copy(update=changes)  # it tests at 16
    made = examples(scans, BARE, how, count=8)
    order = module._order(0, 0, len(scans))
    for place in range(8):
        image = scans.image(int(order[place]), 3)
        assert (made[place].image == normalise(fit(image, how, 24), how)).all()


def test_images_are_of_the_size_to_train_with_and_crops_of_the_area_that_is_asked_for(monkeypatch):
    asked = []

    def random_crop_flip(image, size, rng, *, area, flip):
        asked.append((image.mode, image.size, size, area, flip))
        return image.resize((size, size))

    monkeypatch.setattr(module, "random_crop_flip", random_crop_flip)
    how = GREY.model_copy(update={"train": 24, "test": 40})
    made = examples(numbered(8), BARE.model_copy(update={"crop_area": 0.3}), how)
    assert made[0].image.shape == (24, 24, 1)
    assert asked == [("L", (20, 20), 24, (0.3, 1.0), False)]


def test_pixels_are_normalised_channel_by_channel():
    how = PLAIN.model_copy(update={"mean": (0.5, 0.25, 0.0), "std": (0.5, 0.25, 2.0)})
    made = examples(numbered(256), BARE, how)
    (number,) = numbers_of(examples(numbered(256)), [7])
    expected = [(number / 255 - 0.5) / 0.5, (number / 255 - 0.25) / 0.25, number / 255 / 2]
    assert (made[7].image == np.float32(expected)).all()
