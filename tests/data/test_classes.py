"""Names of classes: ImageNet's as they ship, and those that users give."""

import csv
import re

import pytest

import nfspec
from nfspec.data.classes import imagenet, named, read_classes, unnamed

from standin import timm  # isort: skip  (before timm is imported by another way)
from timm.data.imagenet_info import ImageNetInfo


def test_imagenets_are_timms_in_the_order_of_outputs():
    assert timm.__version__
    info, found = ImageNetInfo(), imagenet()
    assert list(found.synsets) == info.label_names()
    assert list(found.names) == info.label_descriptions()
    assert (found.names[207], found.synsets[207]) == ("golden retriever", "n02099601")
    assert len(set(found.synsets)) == 1000


def test_the_file_states_its_source_and_licence():
    text = (
        nfspec.data.classes.Path(nfspec.data.classes.__file__).with_name("imagenet.tsv")
    ).read_text()
    assert "timm 1.0.31" in text and "WordNet 3.0 Copyright 2006 by Princeton University" in text
    rows = list(csv.reader((line for line in text.splitlines() if line[0] != "#"), delimiter="\t"))
    assert all(re.fullmatch(r"n\d{8}", synset) and name for synset, name in rows)


def test_a_file_has_a_name_on_each_line(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffcat\r\n blue whale \r\nÉtoile, with a comma\r\n\n".encode())
    found = read_classes(path, 3)
    assert found.names == ("cat", "blue whale", "Étoile, with a comma")
    assert (found.source, found.synsets) == (str(path), ())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb\n", "expected names for 3 classes, which the network has; found 2"),
        (b"\xff\xfe", "not a text file in UTF-8; expected a name on each line"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_of_something_else_is_a_sentence(content, message, tmp_path):
    path = tmp_path / "names.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(nfspec.InputError) as error:
        read_classes(path, 3)
    assert str(error.value) == f"{path}: {message}"


def test_names_in_memory_and_none_at_all():
    assert named(["a", "b"], 2, "classes").names == ("a", "b")
    with pytest.raises(nfspec.InputError, match=r"^classes: expected names for 2 classes"):
        named(["a"], 2, "classes")
    assert unnamed(2).names == ("class 0", "class 1")
