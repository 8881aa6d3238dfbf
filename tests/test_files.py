"""Files that are read whatever they are, and written whole or not at all."""

import errno
import os
import socket
from pathlib import Path

import pytest

from nfspec.files import TEMPORARY, content, opened, replacing, sweep, write


def test_a_regular_file_is_read_and_a_link_to_one(tmp_path):
    path, link = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"bytes")
    link.symlink_to(path)
    for each in (path, str(path), link):
        with opened(each) as file:
            assert file.read() == b"bytes"


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="a named pipe, where a regular file was expected"):
        opened(path)


def test_folders_devices_and_sockets_are_refused(tmp_path):
    with pytest.raises(OSError, match="a folder, where"):
        opened(tmp_path)
    with pytest.raises(OSError, match="a device, where"):
        opened(os.devnull)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        with pytest.raises(OSError):
            opened(tmp_path / "s")


def test_what_is_not_there_is_said_as_usual(tmp_path):
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "none")


def test_a_file_without_an_end_takes_no_memory(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert content(path, 5) == b"12345"
    with pytest.raises(OSError, match="longer than 4 bytes"):
        content(path, 4)
    os.truncate(path, 2**40)  # of zeros, which take no room on the disk
    with pytest.raises(OSError, match="longer than 5 bytes"):
        content(path, 5)


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path
        assert TEMPORARY.fullmatch(temporary.name)
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_whoever_reads_the_old_file_reads_it_to_the_end(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with path.open() as reader:
        write(path, "new")
        assert reader.read() == "old"


def test_text_is_written_as_utf_8_byte_for_byte(tmp_path):
    write(tmp_path / "x", "é\r\n")
    assert (tmp_path / "x").read_bytes() == b"\xc3\xa9\r\n"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_no_temporary_one(tmp_path, error):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written(tmp_path):
    """The error names the file that was asked for, not the temporary one."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    places = {
        tmp_path / "no" / "x": "No such file or directory",
        tmp_path / "folder": "Is a directory",
        tmp_path / "file" / "x": "Not a directory",
    }
    for path, reason in places.items():
        with pytest.raises(OSError) as error:
            write(path, "new")
        assert error.value.filename == str(path)
        assert error.value.strerror == f"cannot be written: {reason}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write(tmp_path / "x", "new")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode


def no_links(error):
    def link(*_):
        raise OSError(error, os.strerror(error))

    return link


@pytest.mark.parametrize("error", [None, errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_that_came_to_be_meanwhile_is_kept(tmp_path, error, monkeypatch):
    """On file systems without hard links, too."""
    if error is not None:
        monkeypatch.setattr(os, "link", no_links(error))
    path = tmp_path / "x"
    with replacing(path, only_new=True) as temporary:
        temporary.write_text("first")
    assert path.read_text() == "first"
    with pytest.raises(FileExistsError) as refused, replacing(path, only_new=True) as temporary:
        temporary.write_text("second")
    assert refused.value.filename == str(path)
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_on_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_links(errno.ENOSPC))
    path = tmp_path / "x"
    with pytest.raises(OSError) as error, replacing(path, only_new=True) as temporary:
        temporary.write_text("new")
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(path))
    assert not list(tmp_path.iterdir())


def unfinished(path: Path) -> Path:
    """The name of a temporary file of a process that was killed."""
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        1 / 0  # noqa: B018
    return temporary


def test_what_was_being_written_is_swept_and_nothing_of_the_users(tmp_path):
    names = ("notes.tmp", ".notes.tmp", ".0123456789abcdef.tmp", ".hidden", ".nfspec-mine.tmp")
    mine = [tmp_path / name for name in names]
    for path in (*mine, unfinished(tmp_path / "x"), unfinished(tmp_path / "y")):
        path.write_text("half")
    sweep(tmp_path)
    sweep(tmp_path / "missing")
    assert sorted(tmp_path.iterdir()) == sorted(mine)
