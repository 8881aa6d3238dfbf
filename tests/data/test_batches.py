"""Batches: what is in them depends on the seed and the place, and on nothing else."""

import hashlib
import sys
import threading

import numpy as np
import pytest
from PIL import Image

import nfspec
from nfspec.data import augment
from nfspec.data import batches as module
from nfspec.data.batches import Share, batches, held_out
from nfspec.data.images import fit, normalise
from nfspec.data.preprocessing import Preprocessing
from nfspec.data.sources import Source

from examples import ALL, BARE, GREY, PLAIN, alone, examples, joined, numbered, numbers_of

EXAMPLES = {"count": 48, "batch": 8}


# the same bits


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("how", [PLAIN, GREY], ids=["colour", "grey"])
def test_threads_do_not_change_a_bit(scans, workers, how):
    made = examples(scans, ALL, how, **EXAMPLES)
    actual = list(batches(Share(made, 8, 0), workers))
    assert [(x.shape, y.shape) for x, y in actual] == [((8, 16, 16, how.channels), (8, 10))] * 6
    assert {array.dtype for pair in actual for array in pair} == {np.dtype(np.float32)}
    assert joined(actual) == alone(examples(scans, ALL, how, **EXAMPLES))


def test_so_many_threads_read_at_once():
    meeting, lock, inside, most = threading.Barrier(4), threading.Lock(), set(), []

    def opened(number):
        with lock:
            inside.add(threading.get_ident())
            most.append(len(inside))
        meeting.wait(60)  # until four are here
        with lock:
            inside.discard(threading.get_ident())
        return Image.new("L", (20, 20), number)

    plain = numbered(20)
    source = Source(plain.classes, plain.labels, plain.names, opened)
    actual = list(batches(Share(examples(source, batch=4), 4, 0), 4))
    assert joined(actual) == alone(examples(plain, batch=4))
    assert max(most) == 4


def test_images_to_evaluate_on_are_read_at_once_and_stay_in_order(monkeypatch):
    meeting = threading.Barrier(2)

    def opened(number):
        meeting.wait(60)  # until two are here
        if number == 3:
            raise OSError("broken")
        return Image.new("L", (20, 20), number)

    monkeypatch.setattr(module, "WORKERS", 2)
    plain, bad = numbered(6), []
    source = Source(plain.classes, plain.labels, plain.names, opened)
    batches = list(held_out(source, Preprocessing(PLAIN, 16), 3, bad.append))
    assert [numbers.tolist() for _, numbers in batches] == [[0, 1, 2], [4, 5]]
    assert [np.unique(image).tolist() for images, _ in batches for image in images] == [
        [0], [1], [2], [4], [5]
    ]  # fmt: skip
    assert bad == ["image3: cannot be read (broken)"]


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


# evaluation


def test_all_held_out_images_are_seen_once_in_order():
    actual = list(held_out(numbered(10), Preprocessing(PLAIN, 16), 4, pytest.fail))
    assert [len(numbers) for _, numbers in actual] == [4, 4, 2]
    images, numbers = (np.concatenate(part) for part in zip(*actual, strict=True))
    assert np.rint(images[:, 0, 0, 0]).tolist() == numbers.tolist() == list(range(10))
    assert (images.dtype, numbers.dtype) == (np.float32, np.int64)
    assert images.shape == (10, 16, 16, 3)


def test_they_are_as_the_spec_prepares_images(scans):
    how = PLAIN.model_copy(update={"margin": 4, "resize": "center", "std": (0.5, 0.4, 0.3)})
    ((images, _),) = held_out(scans.some(np.arange(5)), Preprocessing(how, 24), 8, pytest.fail)
    for number in range(5):
        expected = normalise(fit(scans.image(number, 3), how, 24), how)
        assert (images[number] == expected).all()


def test_bad_ones_are_left_out_and_named():
    messages = []
    source = numbered(10, bad={0, 4, 9})
    actual = list(held_out(source, Preprocessing(GREY, 16), 3, messages.append))
    assert [images.shape for images, _ in actual] == [
        (3, 16, 16, 1),
        (3, 16, 16, 1),
        (1, 16, 16, 1),
    ]
    numbers = [int(np.rint(image[0, 0, 0])) for images, _ in actual for image in images]
    assert numbers == [1, 2, 3, 5, 6, 7, 8]
    assert [int(number) for _, each in actual for number in each] == numbers
    assert messages == [f"image{n}: cannot be read (broken)" for n in (0, 4, 9)]


def test_of_bad_ones_alone_nothing_is_left():
    source = numbered(3, bad={0, 1, 2})
    assert list(held_out(source, Preprocessing(PLAIN, 16), 2, lambda message: None)) == []


def test_without_grain_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(nfspec.InputError) as error:
        next(batches(Share(examples(numbered(8)), 8, 0), 2))
    assert str(error.value) == (
        "training reads its images with grain, which is not installed; run: pip install grain"
    )
