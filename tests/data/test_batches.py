"""Batches: what is in them depends on the seed and the place, and on nothing else."""

import hashlib
import math
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

import nfspec
from nfspec.data import augment
from nfspec.data import batches as module
from nfspec.data.batches import Examples, Share, batches, held_out
from nfspec.data.images import fit, normalise
from nfspec.data.sources import Source, digits

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
EXAMPLES = {"count": 48, "batch": 8}


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


def off_by(draws):
    """Largest error of a share of draws, but for once in 10^9 times (Hoeffding)."""
    return math.sqrt(math.log(2e9) / (2 * draws))


@pytest.fixture(scope="module")
def scans():
    return digits()


# the same bits


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("how", [PLAIN, GREY], ids=["colour", "grey"])
def test_threads_do_not_change_a_bit(scans, workers, how):
    made = examples(scans, ALL, how, **EXAMPLES)
    actual = list(batches(Share(made, 8, 0), workers))
    assert [(x.shape, y.shape) for x, y in actual] == [((8, 16, 16, how.channels), (8, 10))] * 6
    assert {array.dtype for pair in actual for array in pair} == {np.dtype(np.float32)}
    assert joined(actual) == alone(examples(scans, ALL, how, **EXAMPLES))


def test_so_many_threads_read_at_once():
    meeting, lock, inside, most = threading.Barrier(5), threading.Lock(), set(), []

    def opened(number):
        with lock:
            inside.add(threading.get_ident())
            most.append(len(inside))
        meeting.wait(60)  # until five are here
        with lock:
            inside.discard(threading.get_ident())
        return Image.new("L", (20, 20), number)

    plain = numbered(20)
    source = Source(plain.classes, plain.labels, plain.names, opened)
    actual = list(batches(Share(examples(source, batch=4), 4, 0), 5))
    assert joined(actual) == alone(examples(plain, batch=4))
    assert max(most) == 5


@pytest.mark.parametrize("start", [8, 24, 40])
def test_starting_later_leaves_out_what_comes_before(scans, start):
    made = examples(scans, ALL, **EXAMPLES)
    share = Share(made, 8, start)
    assert len(share) == 48 - start
    assert joined(batches(share, 2)) == alone(made, start)


@pytest.mark.parametrize("micro", [2, 4, 8])
def test_micro_batches_together_are_the_batch(scans, micro):
    made = examples(scans, ALL, **EXAMPLES)
    actual = list(batches(Share(made, micro, 0), 2))
    assert [len(images) for images, _ in actual] == [micro] * (48 // micro)
    assert joined(actual) == alone(made)


@pytest.mark.parametrize(("micro", "world"), [(8, 2), (8, 4), (8, 8), (4, 2)])
def test_the_parts_of_all_processes_together_are_the_batch(scans, micro, world):
    made = examples(scans, ALL, **EXAMPLES)
    parts = [list(batches(Share(made, micro, 16, rank, world), 2)) for rank in range(world)]
    assert {len(images) for part in parts for images, _ in part} == {micro // world}
    assert joined([pair for step in zip(*parts, strict=True) for pair in step]) == alone(made, 16)


def test_a_share_by_hand():
    """Batches of 6 in 3 processes from place 6 on, of which the last is not whole."""
    made = examples(numbered(40), batch=6, count=22)
    order = numbers_of(made)
    for rank, places in enumerate([[6, 7, 12, 13], [8, 9, 14, 15], [10, 11, 16, 17]]):
        share = Share(made, 6, 6, rank, 3)
        assert (share.size, len(share)) == (2, 4)
        assert numbers_of(share) == [order[place] for place in places]


def test_a_last_batch_that_is_not_whole_is_left_out():
    made = examples(numbered(20), count=20)
    assert [len(images) for images, _ in batches(Share(made, 8, 0), 2)] == [8, 8]


def test_after_the_last_batch_there_is_none():
    made = examples(numbered(16), count=16)
    assert list(batches(Share(made, 8, 16), 2)) == []


def test_the_seed_decides_on_order_and_augmentation(scans):
    def bits(seed, recipe):
        return alone(examples(scans, recipe, seed=seed, **EXAMPLES))

    assert bits(1, ALL) == bits(1, ALL)
    assert bits(1, ALL)[0] != bits(2, ALL)[0]
    assert bits(1, BARE)[1] != bits(2, BARE)[1]


def test_an_example_does_not_depend_on_which_were_made_before(scans):
    made, other = (examples(scans, ALL, **EXAMPLES) for _ in range(2))
    forward = [made[place].image.tobytes() for place in range(48)]
    assert [other[place].image.tobytes() for place in range(47, -1, -1)] == forward[::-1]


# Of labels, of the images that are read and of RandAugment's operations, but not of pixels, which
# another version of Pillow may round in another way. To make it anew after a change that is meant:
# run the test, which prints what it finds.
MEANING_OF_A_SEED = "6cd8ca9405c8eef51358eca7e677ce1611bb57cc14819703f06537f7ff0ed021"


def test_a_seed_means_the_same_as_ever(scans, monkeypatch):
    read, operations, apply = [], [], augment.apply

    def recorded(image, name, magnitude, rng):
        operations.append(name)
        return apply(image, name, magnitude, rng)

    def opened(number):
        read.append(number)
        return scans.opened(number)

    monkeypatch.setattr(augment, "apply", recorded)
    source = Source(scans.classes, scans.labels, scans.names, opened)
    made = examples(source, ALL, seed=20, batch=16, count=32)
    # Rounded, since powers and logarithms of other machines may end in another bit.
    labels = [[f"{value:.3f}" for value in made[place].label] for place in range(32)]
    assert (len(read), len(operations)) == (64, 64)
    actual = hashlib.sha256(repr((read, operations, labels)).encode()).hexdigest()
    assert actual == MEANING_OF_A_SEED, actual


# epochs


def test_an_epoch_is_every_image_once_and_each_in_an_order_of_its_own():
    made = examples(numbered(50), count=200)
    actual = numbers_of(made)
    epochs = [actual[start : start + 50] for start in range(0, 200, 50)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in [*epochs, range(50)]}) == 5
    other = examples(numbered(50), count=200, seed=1)
    assert numbers_of(other)[:50] not in epochs


def test_labels_are_those_of_the_images():
    made = examples(numbered(30, classes=4), count=30)
    for place, number in enumerate(numbers_of(made)):
        expected = np.zeros(4, np.float32)
        expected[number % 4] = 1.0
        assert made[place].label.dtype == np.float32
        assert (made[place].label == expected).all()


def test_orders_are_kept_for_threads_that_are_epochs_apart():
    made = examples(numbered(7), count=70)
    expected = numbers_of(made)
    actual = [numbers_of(made, [place])[0] for place in range(69, -1, -1)]
    assert actual == expected[::-1]


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


# images that cannot be read


def expected_order(seed, count, bad, epochs):
    actual = []
    for epoch in range(epochs):
        order = module._order(seed, epoch, count).tolist()
        for start in range(count):
            rest = order[start:] + order[:start]
            actual.append(next(number for number in rest if number not in bad))
    return actual


BROKEN = {0, 3, 4, 5, 11, 19}


def test_a_bad_image_gives_way_to_the_one_after_it():
    made = examples(numbered(20, bad=BROKEN), count=60)
    assert numbers_of(made) == expected_order(0, 20, BROKEN, 3)


def test_a_bad_image_is_named_once_and_read_once():
    messages, read = [], []
    made = examples(numbered(20, bad=BROKEN, read=read), count=60, on_bad=messages.append)
    numbers_of(made)
    assert sorted(messages) == sorted(f"image{n}: cannot be read (broken)" for n in BROKEN)
    assert made.bad == BROKEN
    times = Counter(read)
    assert all(times[number] == 1 for number in BROKEN)


class Slow(set):
    """A set that takes its time to answer, so that others come in between."""

    def __contains__(self, value):
        actual = super().__contains__(value)
        time.sleep(0.02)
        return actual


def test_a_bad_image_is_named_once_by_threads_that_meet_at_it():
    messages, meeting = [], threading.Barrier(6)

    def opened(number):
        if number == 0:
            meeting.wait(30)  # until six threads have it open
            raise OSError("broken")
        return Image.new("L", (20, 20), number)

    source = numbered(2)
    source = Source(source.classes, source.labels, source.names, opened)
    made = examples(source, count=12, on_bad=messages.append, bad=Slow())
    places = [p for p in range(12) if module._order(0, p // 2, 2)[p % 2] == 0]
    actual = []
    threads = [
        threading.Thread(target=lambda place=place: actual.append(numbers_of(made, [place])))
        for place in places
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert actual == [[1]] * 6
    assert messages == ["image0: cannot be read (broken)"]


@pytest.mark.parametrize("workers", [1, 8])
def test_bad_images_change_nothing_between_threads(workers):
    messages = []
    source = numbered(20, 10, bad=BROKEN)
    made = examples(source, ALL, count=64, on_bad=messages.append)
    assert joined(batches(Share(made, 8, 0), workers)) == alone(examples(source, ALL, count=64))
    assert len(messages) == len(set(messages)) == len(BROKEN)


def test_a_run_that_goes_on_after_bad_images_were_found_is_the_same():
    source = numbered(20, 10, bad=BROKEN)
    whole = alone(examples(source, ALL, count=48))
    later = alone(examples(source, ALL, count=48), 24)
    assert all(bits.endswith(rest) for bits, rest in zip(whole, later, strict=True))


@pytest.mark.parametrize("workers", [1, 4])
def test_when_no_image_can_be_read_it_ends(workers):
    made = examples(numbered(6, bad=set(range(6))), count=48)
    caught = []

    def read():
        try:
            list(batches(Share(made, 8, 0), workers))
        except Exception as error:
            caught.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert [type(error) for error in caught] == [nfspec.InputError]
    assert "none of the training images can be read" in str(caught[0])


# evaluation


def test_all_held_out_images_are_seen_once_in_order():
    actual = list(held_out(numbered(10), PLAIN, 16, 4, pytest.fail))
    assert [len(labels) for _, labels in actual] == [4, 4, 2]
    images, labels = (np.concatenate(part) for part in zip(*actual, strict=True))
    assert np.rint(images[:, 0, 0, 0]).tolist() == list(range(10))
    assert labels.tolist() == [n % 3 for n in range(10)]
    assert (images.dtype, labels.dtype) == (np.float32, np.int64)
    assert images.shape == (10, 16, 16, 3)


def test_they_are_as_the_spec_prepares_images(scans):
    how = PLAIN.model_copy(update={"margin": 4, "resize": "center", "std": (0.5, 0.4, 0.3)})
    ((images, _),) = held_out(scans.some(np.arange(5)), how, 24, 8, pytest.fail)
    for number in range(5):
        expected = normalise(fit(scans.image(number, 3), how, 24), how)
        assert (images[number] == expected).all()


def test_bad_ones_are_left_out_and_named():
    messages = []
    actual = list(held_out(numbered(10, bad={0, 4, 9}), GREY, 16, 3, messages.append))
    assert [images.shape for images, _ in actual] == [
        (3, 16, 16, 1),
        (3, 16, 16, 1),
        (1, 16, 16, 1),
    ]
    numbers = [int(np.rint(image[0, 0, 0])) for images, _ in actual for image in images]
    assert numbers == [1, 2, 3, 5, 6, 7, 8]
    assert [int(label) for _, labels in actual for label in labels] == [n % 3 for n in numbers]
    assert messages == [f"image{n}: cannot be read (broken)" for n in (0, 4, 9)]


def test_of_bad_ones_alone_nothing_is_left():
    assert list(held_out(numbered(3, bad={0, 1, 2}), PLAIN, 16, 2, lambda message: None)) == []


def test_without_grain_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(nfspec.InputError) as error:
        next(batches(Share(examples(numbered(8)), 8, 0), 2))
    assert str(error.value) == (
        "training reads its images with grain, which is not installed; run: pip install grain"
    )
