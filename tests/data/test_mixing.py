"""mixup and CutMix: pixels and labels agree, and shares are distributed as they should."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

import nfspec
from nfspec.data.mixing import cutmix, cutmix_box, mix_kind, mixup

RECIPE = nfspec.load("nfnet-f0").recipe
BLACK, WHITE = (np.full((16, 24, 3), value, np.uint8) for value in (0, 255))


def noise(seed, shape=(16, 24, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def off_by(draws):
    """Largest error of a mean of draws in [0, 1], but for once in 10^9 times (Hoeffding)."""
    return math.sqrt(math.log(2e9) / (2 * draws))


def drawing(share, *places):
    """A generator that draws these."""
    left = list(places)
    return SimpleNamespace(beta=lambda *_: share, integers=lambda *_: left.pop(0))


def test_mixup_by_hand():
    a = np.array([[[0], [3], [200], [255]]], np.uint8)
    b = np.array([[[255], [0], [100], [255]]], np.uint8)
    mixed, ratio = mixup(a, b, 0.2, drawing(0.25))
    assert (ratio, mixed.dtype) == (0.25, np.uint8)
    assert mixed.ravel().tolist() == [191, 0, 125, 255]  # 191.25 and 0.75 are cut off


@pytest.mark.parametrize(("share", "seed"), [(1.0, 0), (0.0, 1)])
def test_mixup_with_all_the_weight_on_one_image_is_that_image(share, seed):
    mixed, ratio = mixup(noise(0), noise(1), 0.2, drawing(share))
    assert ratio == share
    assert (mixed == noise(seed)).all()


def test_mixup_of_equal_pixels_changes_none():
    image, rng = np.arange(256, dtype=np.uint8).reshape(16, 16, 1), np.random.default_rng(0)
    for _ in range(200):
        assert (mixup(image, image, 0.2, rng)[0] == image).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixups_weight_is_of_the_beta_distribution(alpha):
    """Mean 1/2, variance 1 / (4 (2 alpha + 1))."""
    rng = np.random.default_rng(0)
    ratios = np.array([mixup(BLACK[:1, :1], WHITE[:1, :1], alpha, rng)[1] for _ in range(5000)])
    assert ratios.mean() == pytest.approx(0.5, abs=off_by(5000))
    variance = ((ratios - 0.5) ** 2).mean()
    assert variance == pytest.approx(0.25 / (2 * alpha + 1), abs=0.25 * off_by(5000))


def test_cutmix_by_hand():
    """A share of 0.75 leaves sides of half the image: 8 x 12 px, 4 and 6 to each side of (9, 2)."""
    assert cutmix_box(24, 16, 1.0, drawing(0.75, 9, 2)) == (3, 0, 15, 6)
    a, b = noise(0), noise(1)
    mixed, ratio = cutmix(a, b, 1.0, drawing(0.75, 9, 2))
    expected = b.copy()
    for row in range(6):
        for column in range(3, 15):
            expected[row, column] = a[row, column]
    assert (mixed == expected).all()
    assert ratio == 6 * 12 / (16 * 24)
    assert (b == noise(1)).all()


def test_sides_are_cut_off_to_even_numbers():
    # sqrt(1 - 0.5) of 24 is 16.97 and of 16 is 11.3
    assert cutmix_box(24, 16, 1.0, drawing(0.5, 12, 8)) == (4, 3, 20, 13)
    # and of 2 it is 1.4, which leaves nothing
    assert cutmix(WHITE[:2, :2], BLACK[:2, :2], 1.0, drawing(0.5, 1, 1))[1] == 0.0


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_cutmixs_ratio_is_the_share_of_pixels(alpha):
    rng = np.random.default_rng(0)
    for _ in range(300):
        mixed, ratio = cutmix(WHITE, BLACK, alpha, rng)
        assert (mixed.shape, mixed.dtype) == (WHITE.shape, np.uint8)
        assert (mixed == 255).mean() == ratio


def test_cutmix_of_one_image_is_that_image():
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert (cutmix(noise(0), noise(0), 1.0, rng)[0] == noise(0)).all()


def test_a_share_of_nothing_leaves_what_is_not_lost_outside():
    assert cutmix_box(24, 16, 1.0, drawing(0.0, 12, 8)) == (0, 0, 24, 16)
    assert cutmix_box(24, 16, 1.0, drawing(0.0, 0, 0)) == (0, 0, 12, 8)
    assert cutmix(WHITE, BLACK, 1.0, drawing(1.0, 12, 8))[1] == 0.0


def expected_share(size):
    """For a square image, summed over all sides and centres; alpha 1.

    sqrt(1 - share) · size is cut off to n with probability ((n + 1)² - n²) / size².
    """
    total = 0.0
    centres = np.arange(size)
    for n in range(size):
        lengths = np.minimum(centres + n // 2, size) - np.maximum(centres - n // 2, 0)
        total += (2 * n + 1) / size**2 * (lengths.mean() / size) ** 2
    return total


def test_rectangles_are_as_large_as_they_should_be():
    rng = np.random.default_rng(0)
    boxes = np.array([cutmix_box(16, 16, 1.0, rng) for _ in range(5000)])
    shares = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 256
    assert shares.mean() == pytest.approx(expected_share(16), abs=off_by(5000))
    # Without pixels it is 77/240; each side is cut off by less than 2 of 1024.
    assert expected_share(1024) == pytest.approx(77 / 240, abs=2 * 2 / 1024)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_the_same_generator_gives_the_same_bits(mix):
    def made(seed):
        rng = np.random.default_rng(seed)
        return np.stack([mix(noise(0), noise(1), 0.4, rng)[0] for _ in range(20)])

    assert (made(3) == made(3)).all()
    assert (made(3) != made(4)).any()


def kinds(batch, mixup_alpha, cutmix_alpha):
    recipe = RECIPE.model_copy(update={"mixup_alpha": mixup_alpha, "cutmix_alpha": cutmix_alpha})
    return [mix_kind(place, batch, recipe) for place in range(batch)]


def test_the_first_half_of_a_batch_is_mixup_and_the_second_cutmix():
    assert (RECIPE.mixup_alpha, RECIPE.cutmix_alpha) == (0.2, 1.0)
    assert kinds(6, 0.2, 1.0) == ["mixup"] * 3 + ["cutmix"] * 3
    assert kinds(5, 0.2, 1.0) == ["mixup"] * 2 + ["cutmix"] * 3
    assert kinds(4, 0.2, 0.0) == ["mixup"] * 4
    assert kinds(4, 0.0, 1.0) == ["cutmix"] * 4
    assert kinds(4, 0.0, 0.0) == [None] * 4


@pytest.mark.parametrize("place", [-1, 4])
def test_a_place_outside_the_batch_is_refused(place):
    with pytest.raises(nfspec.InputError, match=f"expected 0 to 3 in a batch of 4; found {place}"):
        mix_kind(place, 4, RECIPE)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_what_cannot_be_mixed_is_refused(mix):
    rng = np.random.default_rng(0)
    with pytest.raises(nfspec.InputError, match="alpha: expected more than 0; found 0"):
        mix(WHITE, BLACK, 0.0, rng)
    with pytest.raises(nfspec.InputError, match="images of one shape are mixed"):
        mix(WHITE, BLACK[:8], 1.0, rng)
