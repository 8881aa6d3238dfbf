"""Crops, flips and RandAugment: each operation by hand, and what must hold for any image.

Numbers of draws are such that a right share is refused once in 10^9 runs (Hoeffding's inequality:
a mean of n draws in [0, 1] is off by t with probability 2 exp(-2 n t²)), were they not seeded.
"""

import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image

import nfspec
from nfspec.data import augment
from nfspec.data.augment import OPERATIONS, apply, crop_box, rand_augment, random_crop_flip


def off_by(draws):
    return math.sqrt(math.log(2e9) / (2 * draws))


def picture(pixels):
    return Image.fromarray(np.asarray(pixels, np.uint8))


def noise(height=20, width=30, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return picture(np.random.default_rng(seed).integers(0, 256, shape))


def rng(seed=0):
    return np.random.default_rng(seed)


# Crops


@pytest.mark.parametrize(("width", "height"), [(224, 192), (33, 90), (400, 60)])
def test_crops_lie_in_the_image_and_keep_area_and_aspect(width, height):
    draws, lefts = rng(), Counter()
    for _ in range(500):
        left, top, wide, tall = crop_box(width, height, (0.08, 1.0), draws)
        assert 0 <= left <= width - wide and 0 <= top <= height - tall
        # A tenth must be seen, which is more than 0.08.
        assert 0.1 * width * height <= wide * tall <= width * height
        assert 3 / 4 * tall - 0.5 <= wide <= 4 / 3 * tall + 0.5
        # Smaller crops never touch the right and bottom border, a quirk of the kernel.
        assert (left + wide < width) == (wide < width)
        assert (top + tall < height) == (tall < height)
        lefts[left] += 1
    assert len(lefts) > 15


def test_the_height_of_a_crop_is_uniform():
    """In 1000 x 1000 px, of at least a quarter of them.

    With an aspect a from 500 / sqrt(a) to the least of 1000 / sqrt(a), 1000 and 1000 / a.
    """
    draws = rng(1)
    boxes = [crop_box(1000, 1000, (0.25, 1.0), draws) for _ in range(20_000)]
    heights = np.array([tall for _, _, _, tall in boxes])
    aspects = np.linspace(3 / 4, 4 / 3, 10_001)
    middle = (500 / np.sqrt(aspects) + 1000 / np.maximum(1.0, aspects)) / 2
    # Heights are between 433 and 1000 px, of which 1 px is for rounding.
    assert heights.mean() == pytest.approx(middle.mean(), abs=1 + 567 * off_by(20_000))


@pytest.mark.parametrize(("size", "area"), [((64, 64), (1.0, 1.0)), ((900, 64), (0.08, 1.0))])
def test_without_a_crop_it_is_the_centre_with_the_originals_margin(size, area):
    """64 px high, for 32 px of a result with a margin of 32: the middle 32 px."""
    pixels = np.full((size[1], size[0]), 255)
    middle = (size[0] - 32) // 2
    pixels[16:48, middle : middle + 32] = np.arange(32 * 32).reshape(32, 32) % 251
    actual = random_crop_flip(picture(pixels), 32, rng(), area=area, flip=False)
    assert (np.asarray(actual) == pixels[16:48, middle : middle + 32]).all()


def test_the_centre_is_cut_off_to_whole_pixels():
    """63 px make 63 · 32 / 64 = 31.5."""
    pixels = np.full((63, 63), 255)
    pixels[16:47, 16:47] = 0
    assert not np.asarray(random_crop_flip(picture(pixels), 32, rng(), area=(1.0, 1.0))).any()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(1, 1), (5, 200), (70, 50)])
def test_size_and_mode_of_a_crop(channels, shape):
    image = noise(*shape, channels)
    actual = random_crop_flip(image, 24, rng())
    assert (actual.size, actual.mode) == ((24, 24), image.mode)


def test_half_of_the_crops_are_mirrored_and_none_without_flips():
    image = picture(np.tile(np.arange(0, 250, 5), (50, 1)))  # brighter to the right

    def mirrored(**how):
        crops = (np.asarray(random_crop_flip(image, 8, draws, **how), int) for _ in range(500))
        return np.mean([crop[0, 0] > crop[0, -1] for crop in crops])

    draws = rng()
    assert mirrored() == pytest.approx(0.5, abs=off_by(500))
    assert mirrored(flip=False) == 0.0


def test_a_larger_least_area_keeps_more():
    draws = rng()
    for _ in range(200):
        box = crop_box(100, 100, (0.8, 0.9), draws)
        assert box and 8000 <= box[2] * box[3] <= 9000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size: expected 1 or more; found 0"),
        ({"area": (0.0, 1.0)}, "area: expected 0 < least <= largest <= 1"),
        ({"area": (0.5, 1.1)}, "area: expected 0 < least <= largest <= 1"),
        ({"area": (0.5, 0.4)}, "area: expected 0 < least <= largest <= 1"),
        ({"image": Image.new("P", (8, 8))}, "an image's mode must be RGB or L; found P"),
    ],
)
def test_crops_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(nfspec.InputError) as error:
        random_crop_flip(**{"image": noise(), "size": 8, "rng": rng(), **arguments})
    assert message in str(error.value)


# RandAugment: the table


def test_operations_are_the_originals_in_its_order():
    assert list(OPERATIONS) == [
        "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "Color",
        "Contrast", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY",
        "Cutout", "SolarizeAdd",
    ]  # fmt: skip


LEVELS = {  # autoaugment.py, `level_to_arg` with cutout_const=40 and translate_const=100
    "Rotate": {0: 0, 5: 15, 10: 30, 15: 45},
    "Posterize": {0: 0, 5: 2, 10: 4, 15: 6},
    "Solarize": {0: 0, 5: 128, 10: 256, 15: 384},
    "Color": {0: 0.1, 5: 1.0, 10: 1.9, 15: 2.8},
    "Contrast": {0: 0.1, 5: 1.0, 10: 1.9, 15: 2.8},
    "Brightness": {0: 0.1, 5: 1.0, 10: 1.9, 15: 2.8},
    "Sharpness": {0: 0.1, 5: 1.0, 10: 1.9, 15: 2.8},
    "ShearX": {0: 0, 5: 0.15, 10: 0.3, 15: 0.45},
    "ShearY": {0: 0, 5: 0.15, 10: 0.3, 15: 0.45},
    "TranslateX": {0: 0, 5: 50, 10: 100, 15: 150},
    "TranslateY": {0: 0, 5: 50, 10: 100, 15: 150},
    "Cutout": {0: 0, 5: 20, 10: 40, 15: 60},
    "SolarizeAdd": {0: 0, 5: 55, 10: 110, 15: 165},
}


@pytest.mark.parametrize("name", LEVELS)
def test_arguments_follow_the_magnitude(name, monkeypatch):
    actual = []

    def record(image, argument, _):
        actual.append(argument)
        return image

    monkeypatch.setitem(OPERATIONS, name, OPERATIONS[name]._replace(apply=record))
    draws, image = rng(), noise()
    for magnitude, expected in LEVELS[name].items():
        actual.clear()
        for _ in range(200):
            apply(image, name, magnitude, draws)
        assert np.abs(actual) == pytest.approx(expected, rel=1e-12)
        signed = name in ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
        if magnitude:
            negative = np.mean(np.array(actual) < 0)
            assert negative == pytest.approx(0.5 if signed else 0.0, abs=off_by(200) * signed)


def test_every_operation_is_drawn_as_often(monkeypatch):
    actual = Counter()

    def recorder(name):
        def record(image, *_):
            actual[name] += 1
            return image

        return record

    for name, operation in OPERATIONS.items():
        monkeypatch.setitem(OPERATIONS, name, operation._replace(apply=recorder(name)))
    rand_augment(noise(), 4000, 5, rng())
    assert actual.total() == 4000  # each is applied, and not with a probability
    for name in OPERATIONS:
        assert actual[name] / 4000 == pytest.approx(1 / 16, abs=off_by(4000))
        assert actual[name] > 0


# RandAugment: the operations


SIX = [[1, 2, 3], [4, 5, 6]]
POINT = [[0, 0, 0], [0, 130, 0], [0, 0, 0]]  # 5/13 of 130 is 50
HOLE = [[255, 255, 255], [255, 0, 255], [255, 255, 255]]


@pytest.mark.parametrize(
    ("operation", "argument", "before", "after"),
    [
        ("invert", 0, [[0, 100, 255]], [[255, 155, 0]]),
        ("posterize", 2, [[0, 63, 64, 200, 255]], [[0, 0, 64, 192, 192]]),
        ("posterize", 2.9, [[0, 63, 64, 200, 255]], [[0, 0, 64, 192, 192]]),
        ("posterize", 0, [[0, 127, 128, 255]], [[0, 0, 128, 128]]),
        ("posterize", 9, [[0, 127, 128, 255]], [[0, 127, 128, 255]]),
        ("solarize", 128, [[0, 127, 128, 255]], [[0, 127, 127, 0]]),
        ("solarize", 0, [[0, 127, 128, 255]], [[255, 128, 127, 0]]),
        ("solarize", 256, [[0, 127, 128, 255]], [[255, 128, 127, 0]]),
        ("solarize", 384, [[0, 127, 128, 255]], [[0, 127, 127, 0]]),
        ("solarize_add", 55, [[0, 100, 127, 128, 255]], [[55, 155, 182, 128, 255]]),
        ("solarize_add", 165.9, [[0, 100, 127, 128, 255]], [[165, 255, 255, 128, 255]]),
        ("brightness", 0.5, [[0, 101, 255]], [[0, 50, 127]]),
        ("brightness", 1.9, [[0, 101, 200]], [[0, 191, 255]]),
        ("sharpness", 0.0, POINT, [[0, 0, 0], [0, 50, 0], [0, 0, 0]]),
        ("sharpness", 0.5, POINT, [[0, 0, 0], [0, 90, 0], [0, 0, 0]]),
        ("sharpness", 2.0, POINT, [[0, 0, 0], [0, 210, 0], [0, 0, 0]]),
        # The middle is (5 · 0 + 8 · 255) / 13 = 156.9.
        ("sharpness", 0.0, HOLE, [[255, 255, 255], [255, 156, 255], [255, 255, 255]]),
        ("sharpness", 2.0, SIX, SIX),  # is all border
        ("rotate", 90, [[1, 2], [3, 4]], [[2, 4], [1, 3]]),
        ("rotate", -90, [[1, 2], [3, 4]], [[3, 1], [4, 2]]),
        ("shear_x", 1.0, SIX, [[1, 2, 3], [5, 6, 128]]),
        ("shear_x", -1.0, SIX, [[1, 2, 3], [128, 4, 5]]),
        ("shear_y", 1.0, SIX, [[1, 5, 128], [4, 128, 128]]),
        ("translate_x", 1.0, SIX, [[2, 3, 128], [5, 6, 128]]),
        ("translate_x", -1.0, SIX, [[128, 1, 2], [128, 4, 5]]),
        ("translate_x", 0.4, [[10, 20, 30]], [[10, 20, 30]]),
        ("translate_x", 0.6, [[10, 20, 30]], [[20, 30, 128]]),
        ("translate_y", 1.0, SIX, [[4, 5, 6], [128, 128, 128]]),
        ("translate_y", -5.0, SIX, [[128, 128, 128], [128, 128, 128]]),
        ("autocontrast", 0, [[50, 101, 152]], [[0, 127, 255]]),
        # Three values, 255 times each: step 510 // 255 = 2, and (1 + n) // 2 with n pixels below.
        ("equalize", 0, [[10, 20, 30]] * 255, [[0, 128, 255]] * 255),
        ("equalize", 0, [[10, 20, 30]] * 4, [[10, 20, 30]] * 4),
    ],
)  # fmt: skip
def test_an_operation_by_hand(operation, argument, before, after):
    actual = getattr(augment, operation)(picture(before), argument, rng())
    assert np.asarray(actual).tolist() == after


def test_rotation_is_about_the_centre_of_an_oblong():
    """Sides are odd, so that no point is midway between pixels: the middle square turns."""
    five = np.arange(15).reshape(3, 5)
    actual = np.asarray(augment.rotate(picture(five), 90, rng()))
    assert actual[:, 1:4].tolist() == np.rot90(five[:, 1:4]).tolist()
    assert (actual[:, [0, 4]] == 128).all()


def test_color_blends_with_the_pixels_grey():
    """Greys of red, green and blue: 0.2989, 0.587 and 0.114 of 255.5, cut off."""
    image = picture([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]])
    grey = np.asarray(augment.color(image, 0.0, rng()))
    assert grey.tolist() == [[[76] * 3, [149] * 3, [29] * 3]]
    half = np.asarray(augment.color(image, 0.5, rng()))
    assert half.tolist() == [[[165, 38, 38], [74, 202, 74], [14, 14, 142]]]
    more = np.asarray(augment.color(image, 1.9, rng()))
    assert more.tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]


def test_contrast_blends_with_a_grey_of_the_images_size():
    image = picture(np.full((30, 34), 101))  # 1020 px: a grey of 3
    assert np.unique(augment.contrast(image, 0.0, rng())).tolist() == [3]
    assert np.unique(augment.contrast(image, 0.5, rng())).tolist() == [52]
    assert np.unique(augment.contrast(image, 1.9, rng())).tolist() == [189]  # 3 + 1.9 · 98 = 189.2
    large = picture(np.full((256, 300), 101))
    assert np.unique(augment.contrast(large, 0.0, rng())).tolist() == [255]


def test_cutout_greys_a_square_around_a_pixel():
    twin, draws, places = rng(), rng(), Counter()
    for _ in range(100):
        y, x = int(twin.integers(6)), int(twin.integers(9))
        expected = np.zeros((6, 9, 3))
        for row in range(6):
            for column in range(9):
                inside = -2 <= row - y < 2 and -2 <= column - x < 2
                expected[row, column] = 128 * inside
        actual = augment.cutout(picture(np.zeros((6, 9, 3))), 2.9, draws)
        assert np.asarray(actual).tolist() == expected.tolist()
        places[y, x] += 1
    assert {y for y, _ in places} == set(range(6)) and {x for _, x in places} == set(range(9))


# RandAugment: what must hold


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("magnitude", [0, 2.5, 5, 10, 15, 40])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_keeps_size_and_mode_and_its_image(name, magnitude, channels):
    for shape in ((20, 30), (1, 1), (2, 7)):
        image = noise(*shape, channels)
        before = np.array(image)
        actual = apply(image, name, magnitude, rng())
        assert (actual.size, actual.mode) == (image.size, image.mode)
        assert (np.asarray(image) == before).all()


@pytest.mark.parametrize(
    ("magnitude", "names"),
    [
        (0, "Rotate ShearX ShearY TranslateX TranslateY Cutout SolarizeAdd"),
        (5, "Color Contrast Brightness Sharpness"),
    ],
)
def test_magnitudes_at_which_an_operation_changes_nothing(magnitude, names):
    image = noise()
    for name in names.split():
        for seed in range(4):
            actual = np.asarray(apply(image, name, magnitude, rng(seed)))
            assert (actual == np.asarray(image)).all(), name


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize"])
@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_constant_image_stays(name, value):
    image = picture(np.full((40, 40, 3), (value, 9, 200)))
    assert (np.asarray(apply(image, name, 5, rng())) == np.asarray(image)).all()


@pytest.mark.parametrize("magnitude", [0, 3, 10, 15])
@pytest.mark.parametrize("name", OPERATIONS)
def test_one_channel_is_what_three_equal_ones_are(name, magnitude):
    one = noise(40, 24, channels=1)
    three = one.convert("RGB")
    actual = np.asarray(apply(three, name, magnitude, rng()))
    assert (actual == np.asarray(apply(one, name, magnitude, rng()))[..., None]).all()


def test_no_layers_is_the_image_and_two_are_two_in_turn():
    image = noise()
    assert rand_augment(image, 0, 5, rng()) is image
    draws = rng(3)
    once = rand_augment(rand_augment(image, 1, 12, draws), 1, 12, draws)
    assert (np.asarray(rand_augment(image, 2, 12, rng(3))) == np.asarray(once)).all()


def test_the_same_generator_gives_the_same_bits():
    def made(seed):
        draws = rng(seed)
        crops = (random_crop_flip(noise(60, 50), 32, draws) for _ in range(20))
        return np.stack([np.asarray(rand_augment(crop, 2, 10, draws)) for crop in crops])

    assert (made(5) == made(5)).all()
    assert (made(5) != made(6)).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": -1}, "layers: expected 0 or more; found -1"),
        ({"magnitude": -0.5}, "magnitude: expected 0 or more; found -0.5"),
        ({"magnitude": math.nan}, "magnitude: expected 0 or more; found nan"),
        ({"image": noise().convert("RGBA")}, "an image's mode must be RGB or L; found RGBA"),
    ],
)
def test_what_rand_augment_cannot_do_is_refused(arguments, message):
    with pytest.raises(nfspec.InputError) as error:
        rand_augment(**{"image": noise(), "layers": 1, "magnitude": 5, "rng": rng(), **arguments})
    assert message in str(error.value)
