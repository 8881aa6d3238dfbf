"""Weights of classes in the loss, in the forms that people give them."""

import numpy as np
import pytest

from nfspec.data.sources import Source
from nfspec.errors import InputError
from nfspec.reference.training import smoothed
from nfspec.training.class_weights import class_weights, told

CLASSES = ("ant", "cat", "dog")
LABELS = [0] * 1 + [1] * 3 + [2] * 8
IMAGES = Source(CLASSES, np.asarray(LABELS), tuple(map(str, LABELS)), lambda number: None)


def test_balanced_is_one_on_average_and_the_same_for_each_class():
    weights = class_weights("balanced", IMAGES)
    assert weights == pytest.approx([4.0, 4 / 3, 0.5])
    assert np.mean([weights[label] for label in LABELS]) == pytest.approx(1.0)
    assert told(weights, CLASSES) == "class weights  ant 4, cat 1.333, dog 0.5"
    absent = Source((*CLASSES, "eel"), IMAGES.labels, IMAGES.names, IMAGES.opened)
    assert class_weights("balanced", absent) == (*weights, 0.0)


def test_the_forms_of_weights(tmp_path):
    file = tmp_path / "weights.csv"
    file.write_bytes(b"\xef\xbb\xbfclass,weight\r\nant,2\n\n dog , 0.25\n")
    wanted = (2.0, 1.0, 0.25)
    for given in (
        "ant=2,dog=0.25",
        " ant = 2, dog=2.5e-1",
        "2,1,0.25",
        [2, 1, 0.25],
        np.array(wanted),
        {"dog": 0.25, "ant": 2},
        file,
        str(file),
    ):
        assert class_weights(given, IMAGES) == wanted, given


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("balance", '--class-weights: balance is no file; expected "balanced", weights such as'),
        (".", "a folder, where a regular file was expected"),
        ("a\0b", "cannot be read"),
        ("cats=2", "no class is called 'cats'; there are ant, cat, dog; did you mean \"cat\""),
        ("cat=2,cat=2", "the class 'cat' has a weight already"),
        ("cat=much", "cat: expected a finite number from 0 to 1e\\+06; found 'much'"),
        ("cat=-1", "cat: expected a finite number from 0"),
        ("1,nan,1", "expected a finite number from 0"),
        ("1,2", r"2 weights for 3 classes \(ant, cat, dog\); expected one for each, in this order"),
        ("0,0,0", "all images have weight 0"),
        ([1, 2, True], "expected a finite number"),
        (3, 'expected "balanced", a file, or weights by name or in order; found 3'),
    ],
)
def test_what_is_no_weights(given, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        class_weights(given, IMAGES)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"ant,1,2\n", ":1: expected a class and its weight, with a comma between"),
        (b"ant,1\neel,1\n", ":2: no class is called 'eel'"),
        (b"ant,1\nclass,weight\n", ":2: no class is called 'class'"),
        (b"\xff\xd8\xff", "not UTF-8"),
        (b'ant,"1\n', "not a row of a CSV file"),
    ],
)
def test_a_file_that_is_no_weights(content, words, tmp_path):
    file = tmp_path / "weights.csv"
    file.write_bytes(content)
    with pytest.raises(InputError, match=words):
        class_weights(file, IMAGES)


def test_the_target_of_an_image_is_multiplied():
    """A mixed one by the mean of its classes' weights."""
    labels = [[1.0, 0.0, 0.0], [0.25, 0.0, 0.75]]
    wanted = np.array([[2.0], [2.0 * 0.25 + 4.0 * 0.75]]) * smoothed(labels, 3, 0.1)
    assert smoothed(labels, 3, 0.1, [2.0, 1.0, 4.0]) == pytest.approx(wanted, rel=1e-15)
    with pytest.raises(InputError, match="expected 3 weights, one for each class; found 2"):
        smoothed(labels, 3, 0.1, [2.0, 1.0])
