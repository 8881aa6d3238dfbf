"""Right answers and losses against a slow loop, and intervals against their definition."""

import math

import numpy as np
import pytest

from nfspec.training.scores import Score, Z, interval, probabilities, score, shares

EPS = 2.0**-52


def slow(logits, labels):
    """Row by row: images, right answers, label among five, and the loss of each."""
    top1 = top5 = 0
    losses = []
    for row, label in zip(logits.astype(np.float64).tolist(), labels.tolist(), strict=True):
        own = row[label]
        better = sum(value >= own for place, value in enumerate(row) if place != label)
        usable = all(map(math.isfinite, row))
        top1 += usable and better == 0
        top5 += usable and better < 5
        most = max(row)
        losses.append(math.log(math.fsum(math.exp(v - most) for v in row)) + most - own)
    return len(labels), top1, top5, losses


def drawn(images, classes, seed, scale=3.0):
    rng = np.random.default_rng(seed)
    logits = scale * rng.standard_normal((images, classes))
    return logits.astype(np.float32), rng.integers(0, classes, images)


def off_by(logits):
    """Largest error of a sum of losses.

    A row's sum of exponentials is off by a part of (classes + 1) eps, each exponential by one of
    the size of its argument besides; the logarithm makes that an absolute error, and the sum over
    images adds one of the size of the total for each.
    """
    spread = float(np.ptp(logits.astype(np.float64), axis=1).max()) + 1.0
    images, classes = logits.shape
    return images * EPS * (2 * classes + 4 * spread + images * (spread + math.log(classes)))


@pytest.mark.parametrize("classes", [1, 2, 4, 5, 6, 10, 100])
def test_scores_are_those_of_a_slow_loop(classes):
    logits, labels = drawn(200, classes, classes)
    images, top1, top5, losses = slow(logits, labels)
    result = score(logits, labels)
    assert (result.images, result.top1, result.top5) == (images, top1, top5)
    assert result.loss == pytest.approx(math.fsum(losses), rel=0, abs=off_by(logits))
    assert all(type(value) is int for value in (result.images, result.top1, result.top5))
    assert type(result.loss) is float


@pytest.mark.parametrize("classes", [2, 5, 8])
def test_among_ties_the_label_comes_last(classes):
    logits, labels = drawn(300, classes, 0, scale=0.7)
    logits = np.round(logits)  # mostly -1, 0 and 1
    result = score(logits, labels)
    assert (result.images, result.top1, result.top5) == slow(logits, labels)[:3]
    flat = score(np.zeros((6, classes), np.float32), np.arange(6) % classes)
    assert flat.top1 == 0
    assert flat.top5 == (6 if classes <= 5 else 0)
    assert flat.loss == pytest.approx(6 * math.log(classes), rel=0, abs=6 * 8 * EPS * classes)


def test_with_fewer_than_six_classes_the_label_is_always_among_five():
    for classes in (1, 2, 3, 4, 5):
        logits, labels = drawn(50, classes, classes)
        assert score(logits, labels).top5 == 50


def test_one_class_is_always_right_and_costs_nothing():
    assert score(np.full((3, 1), -7.5, np.float32), np.zeros(3, np.int64)) == Score(3, 3, 3, 0.0)


def test_large_outputs_do_not_overflow():
    logits = np.array([[3e38, 0.0], [-3e38, 0.0], [800.0, -800.0]], np.float32)
    result = score(logits, np.array([0, 0, 1]))
    assert (result.top1, result.top5) == (1, 3)
    assert result.loss == float(np.float32(3e38))  # 0, 3e38 and 1600


def test_losses_are_in_float64():
    """In float32 the exponentials of the others would be lost beside the first."""
    logits = np.zeros((1, 1001), np.float32)
    logits[0, 0] = 25.0
    exact = math.log1p(1000 * math.exp(-25.0))
    # 1 + 1.4e-8 is off by half an eps, which the logarithm keeps, and each sum before by as much
    assert score(logits, np.array([0])).loss == pytest.approx(exact, rel=0, abs=1001 * EPS)


def test_what_is_not_a_number_is_no_answer():
    logits = np.zeros((4, 3), np.float32)
    logits[:, 1] = 1.0
    logits[0, 0] = logits[1, 1] = np.nan
    logits[2] = np.nan
    result = score(logits, np.array([1, 1, 1, 1]))
    assert (result.images, result.top1, result.top5) == (4, 1, 1)
    assert math.isnan(result.loss)


def test_an_output_of_minus_infinity_is_no_answer_either():
    logits = np.array([[0.0, 1.0, -np.inf], [0.0, 1.0, 0.0]], np.float32)
    assert (score(logits, np.array([1, 1])).top1, score(logits, np.array([1, 1])).top5) == (1, 1)
    assert score(logits[:1], np.array([2])).loss == math.inf


def test_an_output_of_infinity_is_no_answer_and_no_warning():
    logits = np.array([[0.0, np.inf], [np.inf, np.inf], [0.0, 1.0]], np.float32)
    result = score(logits, np.array([1, 0, 1]))
    assert (result.images, result.top1, result.top5) == (3, 1, 1)
    assert not math.isfinite(result.loss)


def test_scores_of_parts_add_up():
    logits, labels = drawn(90, 12, 1)
    whole, total = score(logits, labels), Score()
    for start in range(0, 90, 32):
        total += score(logits[start : start + 32], labels[start : start + 32])
    assert (total.images, total.top1, total.top5) == (whole.images, whole.top1, whole.top5)
    assert total.loss == pytest.approx(whole.loss, rel=0, abs=off_by(logits))
    assert Score(1, 2, 3, 4.0) + Score(10, 20, 30, 40.0) == Score(11, 22, 33, 44.0)
    assert Score() + whole == whole


def test_what_is_scored_stays_as_it_is():
    logits, labels = drawn(8, 4, 2)
    before = logits.copy(), labels.copy()
    score(logits, labels)
    assert (logits == before[0]).all()
    assert (labels == before[1]).all()


def test_probabilities_are_those_of_the_definition():
    logits, _ = drawn(20, 7, 0, scale=20.0)
    for row, found in zip(logits.astype(float), probabilities(logits), strict=True):
        powers = [math.exp(value - max(row)) for value in row]
        exact = [power / math.fsum(powers) for power in powers]
        # An exponential is off by its argument's rounding, as all are exact here, and its own.
        assert found == pytest.approx(exact, rel=8 * EPS)
    assert np.isnan(probabilities(np.array([[0.0, np.nan], [np.inf, 0.0]], np.float32))).all()


def test_five_of_up_to_five_classes_are_no_figure():
    assert [line[:5] for line in shares(3, 9, 10, 6)] == ["top-1", "top-5"]
    assert [line[:5] for line in shares(3, 10, 10, 5)] == ["top-1"]


# intervals


@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_intervals(right, images, low, high):
    """Newcombe 1998, "Two-sided confidence intervals for the single proportion", method 3."""
    assert tuple(round(end, 4) for end in interval(right, images)) == (low, high)


def test_z_is_the_normal_distributions():
    assert math.erf(Z / math.sqrt(2)) == pytest.approx(0.95, rel=0, abs=2 * EPS)


def test_the_ends_are_where_the_share_is_z_standard_deviations_away():
    for images in (1, 2, 7, 30, 1000, 50_000):
        for right in {0, 1, images // 3, images - 1, images}:
            for end in interval(right, images):
                distance = abs(right / images - end)
                spread = Z * math.sqrt(max(end * (1 - end), 0.0) / images)
                # Squared, as both may be near zero: a few roundings of numbers of at most 1.
                assert distance**2 == pytest.approx(spread**2, rel=0, abs=16 * EPS)


def test_an_interval_is_of_shares_and_symmetric():
    for images in (*range(1, 60), 1797, 50_000):
        for right in {*range(min(images, 60)), images - 1, images}:
            low, high = interval(right, images)
            assert 0.0 <= low < high <= 1.0
            other = interval(images - right, images)
            assert (1.0 - other[1], 1.0 - other[0]) == pytest.approx((low, high), abs=8 * EPS)


def test_an_interval_contains_the_share():
    for images in range(1, 200):
        for right in range(images + 1):
            low, high = interval(right, images)
            assert low <= right / images <= high, (right, images)


def test_more_images_make_it_narrower():
    widths = [high - low for low, high in (interval(n // 4, n) for n in (4, 40, 400, 4000))]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("images", [30, 360, 2000])
@pytest.mark.parametrize("share", [0.1, 0.37, 0.5, 0.95])
def test_it_covers_the_share_as_often_as_it_says(images, share):
    """The chance is a sum of binomial ones, and that of being within Z standard deviations.

    So it is 0.95 but for the distance of the binomial from the normal distribution at two places:
    0.4748 (p² + q²) / sqrt(n p q) at most at each, Berry and Esseen with Shevtsova's constant.
    """
    covered = near = 0.0
    for right in range(images + 1):
        chance = math.exp(
            math.lgamma(images + 1)
            - math.lgamma(right + 1)
            - math.lgamma(images - right + 1)
            + right * math.log(share)
            + (images - right) * math.log(1 - share)
        )
        low, high = interval(right, images)
        covered += chance * (low <= share <= high)
        deviation = math.sqrt(images * share * (1 - share))
        near += chance * (abs(right - images * share) <= Z * deviation)
    assert covered == near  # the same terms in the same order
    apart = 0.4748 * (share**2 + (1 - share) ** 2) / math.sqrt(images * share * (1 - share))
    assert covered == pytest.approx(0.95, rel=0, abs=2 * apart)
