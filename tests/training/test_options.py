"""Options of a training that are read from files."""

import pytest

from nfspec.errors import InputError
from nfspec.training.options import Options


def test_names_of_classes(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("cat\nblue whale\n")
    for given in (file, str(file), ["cat", "blue whale"]):
        assert Options("a", "b", classes=given).class_names() == ("cat", "blue whale")
    assert Options("a", "b").class_names() == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cat\ndog\ncat\n", "--classes: 'cat' is there twice"),
        ("cat\n\ndog\n", "--classes: '' is there twice, or is no name"),
        ("\n", "names.txt: empty; expected the name of a class on each line"),
    ],
)
def test_what_is_no_names_of_classes(text, words, tmp_path):
    file = tmp_path / "names.txt"
    file.write_text(text)
    with pytest.raises(InputError, match=words):
        Options("a", "b", classes=file).class_names()
