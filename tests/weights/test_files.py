import pytest

from nfspec.weights.files import head, replacing


def test_head_is_what_a_file_begins_with(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert head(path, 2) == b"ab"
    assert head(path, 9) == b"abc"


def test_head_of_what_cannot_be_read(tmp_path, complaint):
    (tmp_path / "empty").touch()
    assert complaint(head, tmp_path / "empty", 1) == "empty: an empty file"
    assert complaint(head, tmp_path / "no", 1) == "no: cannot be read: No such file or directory"
    (tmp_path / "folder").mkdir()
    message = "folder: cannot be read: a folder, where a regular file was expected"
    assert complaint(head, tmp_path / "folder", 1) == message


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_whoever_reads_the_old_file_reads_it_to_the_end(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with path.open() as reader:
        _write(path)
        assert reader.read() == "old"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_no_temporary_one(tmp_path, error):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def _write(path):
    with replacing(path) as temporary:
        temporary.write_text("new")


def test_places_that_cannot_be_written(tmp_path, complaint):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    missing = tmp_path / "no" / "x"
    assert complaint(_write, missing) == "no/x: cannot be written: No such file or directory"
    assert complaint(_write, tmp_path / "folder") == "folder: cannot be written: Is a directory"
    below = tmp_path / "file" / "x"
    assert complaint(_write, below) == "file/x: cannot be written: Not a directory"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    _write(tmp_path / "x")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode
