import errno
import os

from nfspec.weights.files import reading, writing


def _read(path):
    with reading(path) as file:
        return file.read()


def test_a_file_is_read_from_its_start(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert _read(path) == b"abc"


def test_what_cannot_be_read(tmp_path, complaint):
    (tmp_path / "empty").touch()
    assert complaint(_read, tmp_path / "empty") == "empty: an empty file"
    assert complaint(_read, tmp_path / "no") == "no: cannot be read: No such file or directory"
    (tmp_path / "folder").mkdir()
    message = "folder: cannot be read: a folder, where a regular file was expected"
    assert complaint(_read, tmp_path / "folder") == message
    os.mkfifo(tmp_path / "pipe")
    message = "pipe: cannot be read: a named pipe, where a regular file was expected"
    assert complaint(_read, tmp_path / "pipe") == message


def test_a_disk_that_fails_in_the_middle_is_a_sentence(tmp_path, complaint):
    def read(path):
        with reading(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "x").write_text("abc")
    assert complaint(read, tmp_path / "x") == "x: cannot be read: Input/output error"


def test_paths_are_fit_for_a_terminal(tmp_path, complaint):
    bad = tmp_path / "a\x1b[2J"
    assert complaint(_read, bad) == "a\\x1b[2J: cannot be read: No such file or directory"
    bad.mkdir()
    assert complaint(_write, bad) == "a\\x1b[2J: cannot be written: Is a directory"


def _write(path):
    with writing(path) as file:
        file.write(b"new")


def test_places_that_cannot_be_written(tmp_path, complaint):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    missing = tmp_path / "no" / "x"
    assert complaint(_write, missing) == "no/x: cannot be written: No such file or directory"
    assert complaint(_write, tmp_path / "folder") == "folder: cannot be written: Is a directory"
    below = tmp_path / "file" / "x"
    assert complaint(_write, below) == "file/x: cannot be written: Not a directory"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path, complaint):
    def full(path):
        with writing(path) as file:
            file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    _write(tmp_path / "x")
    assert complaint(full, tmp_path / "x") == "x: cannot be written: No space left on device"
    assert (tmp_path / "x").read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]
