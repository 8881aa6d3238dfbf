"""Readers of files of many images: lists, tar files, TFRecord and Arrow files."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow

from nfspec.data.images import UNREADABLE, sample_photo
from nfspec.data.lists import listed
from nfspec.data.records import recorded
from nfspec.data.saved import _columns, _Images, _table
from nfspec.data.shards import sharded
from nfspec.data.sources import Source
from nfspec.errors import InputError

from folders import archive, example, png, records
from fuzzing.mutation import by_bytes
from fuzzing.target import Target, asserted, fault_of_text

MANY = 2_000  # images of the largest files


def _looked_at(source: Source) -> None:
    """Every image is one, or is refused in a sentence."""
    asserted(len(source) == len(source.names) and len(source) > 0, "names for other images")
    asserted(source.labels.min() >= 0 and source.labels.max() < len(source.classes), "no class")
    for number in range(min(len(source), 4)):
        try:
            asserted(source.image(number, 3).mode == "RGB", "another mode")
        except InputError as error:
            if fault := fault_of_text(str(error)):
                raise AssertionError(fault) from None


def _target(
    name: str,
    file: str,
    read: Callable[[Path], Source],
    made: Callable[[int], bytes],
    hostile: Mapping[str, bytes],
) -> Target:
    seed = made(3)
    return Target(
        name, file, lambda path: _looked_at(read(path)), [seed], made(MANY), hostile,
        by_bytes([seed]),
    )  # fmt: skip


def _written(write: Callable[[Path], object]) -> bytes:
    """The bytes of what a function writes to a path."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, "a"))
        return Path(folder, "a").read_bytes()


def tar() -> Target:
    """Tar files of WebDataset."""

    def made(count: int) -> bytes:
        members = []
        for n in range(count):
            members += [(f"a/{n}.png", png(n % 256)), (f"a/{n}.cls", b"%d" % (n % 3))]
            members += [(f"{'é' * 90}{n}.json", b'{"label": "cat"}')]
        return _written(lambda path: archive(path, members))

    hostile = {
        "no end": made(1)[:1024],
        "deep JSON": _written(
            lambda path: archive(path, [("0.png", png()), ("0.json", b"[" * 10**6)])
        ),
        "names with escapes": _written(lambda path: archive(path, [("\x1b[2J\n0.png", png())])),
        "headers of zeros and ones": b"\0" * 512 + b"\xff" * 5120,
    }
    return _target("tar", "a.tar", lambda path: sharded([path]), made, hostile)


def tfrecord() -> Target:
    """TFRecord files."""

    def made(count: int) -> bytes:
        messages = [example(image__encoded=png(n % 256), label=n % 3) for n in range(count)]
        return _written(lambda path: records(path, messages))

    def one(message: bytes) -> bytes:
        return _written(lambda path: records(path, [message]))

    hostile = {
        "a group that nests": one(b"\x0b" * 10_000),
        "messages that nest": one(b"\x0a\x80\x01" * 5_000),
        "names with escapes": one(example(**{"\x1b[2J": b"x"})),
        "a length without an end": b"\xff" * 24,
    }
    return _target("tfrecord", "a.tfrecord", lambda path: recorded([path]), made, hostile)


def arrow() -> Target:
    """Arrow files of a dataset that was saved."""

    def made(count: int) -> bytes:
        kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
        images = pyarrow.array([{"bytes": png(n % 256), "path": None} for n in range(count)], kind)
        table = pyarrow.table({"image": images, "label": [n % 3 for n in range(count)]})
        file = io.BytesIO()
        with pyarrow.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
        return file.getvalue()

    def read(path: Path) -> None:
        table = _table(path)
        image, label, names = _columns("the file", table.schema)
        asserted(all(isinstance(name, str) for name in names), "names that are no text")
        table.column(label).to_pylist()
        for number in range(min(len(table), 4)):
            with suppress(*UNREADABLE), _Images((path,), image)(number) as picture:
                picture.load()

    hostile = {"nothing but the end": b"\xff\xff\xff\xff\0\0\0\0", "a length": b"\xff" * 64}
    return Target("arrow", "data.arrow", read, [made(3)], made(MANY), hostile, by_bytes([made(3)]))


def csv_list() -> Target:
    """CSV lists, of the one image that there is."""

    hostile = {
        "quotes": b'path,label\n"' + b'""' * 50_000,
        "long cells": b"path,label\n" + b"a" * 10**6 + b",b\n",
        "no end of columns": b"," * 10**6,
        "null characters": b"path,label\na\0b.png,c\n",
        "names with escapes": b"path,label\n\x1b[2J.png,\x1b[2J\n",
    }
    photo = str(sample_photo()).encode()
    columns = 100_000
    largest = b"path,label" + b",x" * columns + b"\n%b,cat" % photo + b",y" * columns + b"\n"
    seeds = [
        b"path,label\n%b,cat\n" % photo,
        b"%b;dog\n" % photo,
        b"label\timage\ncat\t%b\n" % photo,
    ]
    return Target(
        "list", "list.csv", lambda path: _looked_at(listed(path)), seeds, largest, hostile,
        by_bytes(seeds),
    )  # fmt: skip
