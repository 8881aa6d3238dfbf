import os
import socket

import pytest

from nfspec.files import content, opened


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
