"""Images in tar files, as WebDataset has them, and tar files that are none or mean harm."""

import io
import json
import tarfile

import pytest

from nfspec.data import pieces
from nfspec.data.shards import MOST_LABEL, is_shard, sharded
from nfspec.errors import InputError

from folders import archive, png

CLASSES = ("ant", "cat", "dog")


def one(name, data=b"", **facts):
    """A member with other facts than a file's."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in facts.items():
        setattr(member, key, value)
    return member, data


def grey(source, number):
    return source.image(number, 3).getpixel((0, 0))[0]


def test_labels_are_beside_images(tmp_path):
    """In any order, in facts or alone; where both are there, alone."""
    first = archive(
        tmp_path / "0.tar",
        [
            ("a/0001.cls", b"2\n"),
            ("a/0001.jpg", png(10)),
            ("a/0001.txt", b"a caption"),
            ("a/0001.json", b'{"label": 0}'),
            ("a/0002.png", png(20)),
            ("a/0002.json", json.dumps({"width": 8, "label": 0}).encode()),
            ("b/0001.WEBP", png(30)),
            ("b/0001.json", b'{"label": 2}'),
            ("b/0001.cls", b"1"),
            ("b/._0001.jpg", b"what macOS writes"),
            ("README.md", b"read me"),
        ],
    )
    second = archive(tmp_path / "1.tar", [("a/0001.jpg", png(40)), ("a/0001.cls", b"0")])
    source = sharded([first, second], CLASSES)
    assert source.labels.tolist() == [2, 0, 1, 0]
    assert source.keys() == ["0.tar/a/0001.jpg", "0.tar/a/0002.png", "0.tar/b/0001.WEBP",
                             "1.tar/a/0001.jpg"]  # fmt: skip
    assert [grey(source, n) for n in (3, 0, 2, 1)] == [40, 10, 30, 20]
    assert sharded([first, second]).classes == ("0", "1", "2")


def test_names_of_classes_and_long_names(tmp_path):
    name = "é" * 150
    path = archive(tmp_path / "a.tar", [(f"{name}.png", png(7)), (f"{name}.cls", b" dog ")])
    source = sharded([path])
    assert source.classes == ("dog",) and source.keys() == ["."] and grey(source, 0) == 7
    assert is_shard(path) and is_shard(tmp_path / "A.TAR") and not is_shard(tmp_path / "tar")


GOOD = [("0.png", png()), ("0.cls", b"cat")]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([], "a.tar: no images in it; expected a number or a name of a class in NAME.cls"),
        ([("0.png", png())], "no label for 1 image: .*a.tar: 0.png; expected a number or a name"),
        ([("cat/0.png", png()), ("cat/0.json", b'{"width": 8}')], "no label for 1 image"),
        ([("0.png", png()), ("0.cls", b"\n")], "no label for 1 image"),
        ([("0.png", png()), ("0.json", b'{"label": [1, 2]}')], "no label for 1 image"),
        ([*GOOD, ("0.jpg", png())], "a.tar: 0.jpg: a second image called 0; expected one"),
        ([("../0.png", png())], "a.tar: ../0.png: a name that leads out of the archive"),
        ([("/0.png", png())], "a.tar: /0.png: a name that leads out of the archive"),
        ([("a/../../0.cls", b"1")], "a name that leads out of the archive"),
        ([one("0.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "0.png: a link; expected"),
        ([*GOOD, one("1.jpg", type=tarfile.LNKTYPE, linkname="0.png")], "1.jpg: a link; expected"),
        ([one("0.cls", type=tarfile.FIFOTYPE)], "0.cls: no regular file; expected a file"),
        ([("0.png", png()), ("0.cls", b"1" * (MOST_LABEL["cls"] + 1))], "0.cls: 4,097 bytes; exp"),
        ([("0.png", png()), ("0.cls", b"\xff")], "0.cls: not UTF-8; expected a label"),
        ([("0.png", png()), ("0.json", b"{")], "0.json: not JSON; expected a label in it"),
        ([("0.png", png()), ("0.json", b"[" * 99999)], "0.json: not JSON; expected a label"),
        ([("0.png", png()), ("0.json", b"3")], "0.json: expected an object of JSON with a label"),
        ([("\x1b[2J0.png", png())], r"no label for 1 image: .*\\x1b\[2J0.png"),
    ],
)  # fmt: skip
def test_what_is_not_taken(members, words, tmp_path):
    with pytest.raises(InputError, match=words):
        sharded([archive(tmp_path / "a.tar", members)])


def test_progress_is_told(tmp_path, monkeypatch):
    path, messages = archive(tmp_path / "a.tar", [*GOOD, ("1.png", png()), ("1.cls", b"dog")]), []
    monkeypatch.setattr(pieces, "SECONDS_BETWEEN_LINES", -1.0)
    sharded([path], tell=messages.append)
    assert messages == [f"{path}: {n} images so far" for n in range(2)]


def test_a_label_of_another_class(tmp_path):
    path = archive(tmp_path / "a.tar", GOOD)
    with pytest.raises(InputError, match=r"a.tar/0.png: the network has no class 'cat'; it has a"):
        sharded([path], ("a", "b"))


def test_an_image_of_gigabytes(tmp_path):
    """The file has a hole in it, and takes no room."""
    member, _ = one("0.png")
    member.size = 2**31
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(member.tobuf())
        file.truncate(2**31 + 2048)
    with pytest.raises(InputError, match=r"0.png: 2,147,483,648 bytes; expected an image of at mo"):
        sharded([path])


def test_damaged_files(tmp_path):
    """One byte anywhere in a header, or an end anywhere, is an error or changes no label."""
    path = archive(tmp_path / "a.tar", [*GOOD, ("1.png", png()), ("1.cls", b"dog")])
    whole = path.read_bytes()
    wanted = sharded([path]).labels.tolist()
    blocks = [n for n in range(0, len(whole), 512) if whole[n + 257 : n + 262] == b"ustar"]
    refused = 0
    for damaged in (
        *(whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :] for b in blocks for n in (b, b + 130)),
        *(whole[:n] for n in (0, 1, 511, 513, blocks[1] - 400, blocks[2] + 100, blocks[3] + 513)),
        b"\x1f\x8b" + whole[2:],
        b"PK\x03\x04" * 1000,
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"^[^\n]*a\.tar: (not a tar file|no images in it)"):
            sharded([path])
        refused += 1
    assert (wanted, refused) == ([0, 1], 17)


def test_headers_that_point_back(tmp_path):
    """A negative size would have the same header read again and again."""
    header = bytearray(tarfile.TarInfo("0.png").tobuf())
    header[124:136] = b"\xff" * 10 + b"\xfc\x00"  # -1024, in base 256
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path / "a.tar"
    path.write_bytes(archive(path, GOOD).read_bytes()[:2048] + header + bytes(1024))
    with pytest.raises(InputError, match=r"a\.tar: not a tar file that can be read"):
        sharded([path])


def test_compressed_missing_and_other_files(tmp_path):
    plain = archive(tmp_path / "a.tar", GOOD)
    packed = tmp_path / "b.tar.gz"
    with tarfile.open(packed, "w:gz") as file:
        file.add(plain, "a.tar")
    with pytest.raises(InputError, match=r"b.tar.gz: compressed, so that .* unpack it to a .tar"):
        sharded([packed])
    plain.write_bytes(packed.read_bytes())
    with pytest.raises(InputError, match="not a tar file that can be read"):
        sharded([plain])
    (tmp_path / "c.tar").symlink_to(tmp_path)
    for name, words in (("c.tar", "a folder, where"), ("none.tar", "No such file")):
        with pytest.raises(InputError, match=words):
            sharded([tmp_path / name])


def test_a_file_that_is_cut_while_it_is_used(tmp_path):
    source = sharded([path := archive(tmp_path / "a.tar", GOOD)])
    path.write_bytes(path.read_bytes()[:540])
    with pytest.raises(InputError, match=r"0.png: cannot be read .the file is shorter than it was"):
        source.image(0, 3)


def test_a_sparse_member(tmp_path):
    """Its bytes are not those that lie in the archive; this header is one of GNU tar's."""
    member, data = one("0.png", png(), type=tarfile.GNUTYPE_SPARSE)
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, len(data))
    header[483:495] = b"%011o\0" % len(data)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path / "a.tar"
    path.write_bytes(header + data + bytes(-len(data) % 512 + 1024))
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as file:
        assert file.getmembers()[0].issparse()
    with pytest.raises(InputError, match=r"0.png: no regular file"):
        sharded([path])
