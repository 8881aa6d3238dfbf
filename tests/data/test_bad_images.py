"""Training images that cannot be read: each gives way to the next one and is named once."""

import threading
import time
from collections import Counter

import pytest
from PIL import Image

import nfspec
from nfspec.data import batches as module
from nfspec.data.batches import Share, batches
from nfspec.data.sources import Source

from examples import ALL, alone, examples, joined, numbered, numbers_of


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


@pytest.mark.parametrize("workers", [1, 4])
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
