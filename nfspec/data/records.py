"""Labelled images in TFRecord and ArrayRecord files, each a `tf.train.Example`.

Sources: tensorflow/core/example/{example,feature}.proto for the messages, which protobuf reads;
tensorflow/core/lib/io/record_writer.h for a TFRecord file: the length of each record (8 bytes), a
checksum of it (4), the record, and its checksum (4). Checksums are not looked at: a length that is
damaged leads to one that the file has no room for, and damaged pixels are found by their decoder.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from nfspec.data.images import opened_image
from nfspec.data.pieces import MOST_IMAGE, Piece, Tell, source_of, untold
from nfspec.data.sources import Source
from nfspec.errors import InputError
from nfspec.files import opened
from nfspec.wording import few, printable, reason_of

TFRECORD = re.compile(r".*(\.tfrecords?(\.gz)?|\.tfrecords?-\d{5}-of-\d{5}|[^.]+-\d{5}-of-\d{5})")
ARRAY_RECORD = re.compile(r".*\.array_?record(-\d{5}-of-\d{5})?")
IMAGES = ("image/encoded", "image", "jpg", "png")
LABELS = ("image/class/label", "label", "class", "image/class/text", "image/class/synset", "cls")
EXPECTED = (
    f"a tf.train.Example with the bytes of an image in {IMAGES[0]} or {IMAGES[1]}, and a number "
    f"or a name of a class in {LABELS[0]} or {LABELS[1]}"
)
HEAD, TAIL = 12, 4  # bytes before and after a record


def is_records(path: Path) -> bool:
    """True for a file whose name is that of a TFRecord or ArrayRecord file."""
    name = path.name.lower()
    return bool(TFRECORD.fullmatch(name) or ARRAY_RECORD.fullmatch(name))


def recorded(files: Sequence[Path], classes: tuple[str, ...] = (), tell: Tell = untold) -> Source:
    """The images of TFRecord or of ArrayRecord files, in the order of the files and in each.

    Every record is read once, for its label; images are read again when they are asked for.

    Args:
        files: Files of one of the two kinds.
        classes: Names of the classes, in the order of their labels; those that are found, in
            order, if empty. Labels that are whole numbers, and no names, count from 0 in it.
        tell: Called with a message now and then.

    Raises:
        InputError: A package is missing, a file is damaged, compressed or of another kind, or a
            record has no image, no label, or one of other classes.
    """
    arrays = [bool(ARRAY_RECORD.fullmatch(file.name.lower())) for file in files]
    if all(arrays):
        return _array_records(files, classes, tell)
    if any(arrays):
        raise InputError("TFRecord and ArrayRecord files together; expected those of one kind")
    found = ((n, piece) for n, file in enumerate(files) for piece in _pieces(file))
    return source_of(files, found, classes, EXPECTED, tell)


def _pieces(path: Path) -> Iterator[Piece]:
    """The images in a TFRecord file."""
    shown = printable(str(path))
    try:
        for number, (start, record) in enumerate(_records(path)):
            image, label = _content(f"{shown}, record {number}", record)
            yield Piece(str(number), start + record.find(image), len(image), label)
    except OSError as error:
        raise InputError(f"{shown}: cannot be read: {error.strerror or error}") from None


def _records(path: Path) -> Iterator[tuple[int, bytes]]:
    """The place of each record in a TFRecord file, and the record."""
    shown = printable(str(path))
    with opened(path) as file:
        if file.read(2) == b"\x1f\x8b":
            raise InputError(
                f"{shown}: compressed with gzip, so that images cannot be read in any order; "
                "unpack it: the images in it are compressed as they are"
            )
        left = file.seek(0, 2)
        at = file.seek(0)
        while left:
            head = file.read(HEAD)
            size = struct.unpack("<Q", head[:8])[0] if len(head) == HEAD else left
            if HEAD + size + TAIL > left:
                raise InputError(
                    f"{shown}: not a TFRecord file, or damaged: at byte {at:,} begins a record "
                    "that ends beyond the file"
                )
            if size > 2 * MOST_IMAGE:
                raise InputError(
                    f"{shown}: a record of {size:,} bytes at byte {at:,}; expected at most "
                    f"{2 * MOST_IMAGE:,}"
                )
            yield at + HEAD, file.read(size)
            at = file.seek(TAIL, 1)
            left -= HEAD + size + TAIL


@cache
def _example() -> Any:
    """The class of `tf.train.Example` messages, without TensorFlow.

    Raises:
        InputError: protobuf is not installed.
    """
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError:
        raise InputError(
            "records are read with protobuf, which is not installed; run: pip install protobuf"
        ) from None
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="nfspec/example.proto", package="nfspec", syntax="proto3"
    )

    def message(name: str, *fields: tuple[str, int, int, str], of: Any = file.message_type) -> Any:
        made = of.add(name=name)
        for number, (label, kind, count, typed) in enumerate(fields, 1):
            made.field.add(
                name=label, number=number, type=kind, label=count, type_name=typed or None
            )
        return made

    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    message("BytesList", ("value", field.TYPE_BYTES, many, ""))
    message("FloatList", ("value", field.TYPE_FLOAT, many, ""))
    message("Int64List", ("value", field.TYPE_INT64, many, ""))
    message(
        "Feature",
        ("bytes_list", field.TYPE_MESSAGE, one, ".nfspec.BytesList"),
        ("float_list", field.TYPE_MESSAGE, one, ".nfspec.FloatList"),
        ("int64_list", field.TYPE_MESSAGE, one, ".nfspec.Int64List"),
    )
    features = message("Features", ("feature", field.TYPE_MESSAGE, many, ".nfspec.Features.Entry"))
    entry = message(
        "Entry",
        ("key", field.TYPE_STRING, one, ""),
        ("value", field.TYPE_MESSAGE, one, ".nfspec.Feature"),
        of=features.nested_type,
    )
    entry.options.map_entry = True
    message("Example", ("features", field.TYPE_MESSAGE, one, ".nfspec.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("nfspec.Example"))


def _content(place: str, record: bytes) -> tuple[bytes, str | None]:
    """The image file and the label in a record.

    Raises:
        InputError: It is no `tf.train.Example`, or has no image.
    """
    from google.protobuf.message import DecodeError

    example = _example()
    try:
        features = example.FromString(record).features.feature
    except DecodeError:
        raise InputError(f"{place}: damaged, or no tf.train.Example; expected {EXPECTED}") from None
    known = [name for name in IMAGES if name in features]
    values: Any = features[known[0]].bytes_list.value if known else ()
    if len(values) != 1:
        found = few(sorted(features), 5) or "nothing"
        raise InputError(f"{place}: no image in it; expected {EXPECTED}; found {found}")
    names = [name for name in LABELS if name in features]
    return values[0], _label(features[names[0]]) if names else None


def _label(feature: Any) -> str | None:
    """The one label in a feature; None if there is none, or it is neither text nor a number."""
    values = [*feature.int64_list.value, *feature.bytes_list.value]
    if len(values) != 1:
        return None
    value = values[0]
    return str(value) if isinstance(value, int) else value.decode("utf-8", "replace").strip()


@dataclass(frozen=True, eq=False)
class _Opened:
    """Opens the image of a number in ArrayRecord files."""

    records: Any

    def __call__(self, number: int) -> AbstractContextManager[Image.Image]:
        return opened_image(_content("the record", self.records[number])[0])


def _array_records(files: Sequence[Path], classes: tuple[str, ...], tell: Tell) -> Source:
    try:
        from array_record.python.array_record_data_source import ArrayRecordDataSource
    except ImportError:
        raise InputError(
            "ArrayRecord files are read with array_record, which is not installed; run: pip "
            "install array_record"
        ) from None

    def pieces(path: Path) -> Iterator[Piece]:
        shown = printable(str(path))
        try:
            with opened(path), ArrayRecordDataSource([str(path)]) as records:
                for number in range(len(records)):
                    image, label = _content(f"{shown}, record {number}", records[number])
                    yield Piece(str(number), 0, len(image), label)
        except (OSError, ValueError, RuntimeError, IndexError) as error:
            reason = getattr(error, "strerror", None) or reason_of(error)
            raise InputError(
                f"{shown}: not an ArrayRecord file that can be read ({reason})"
            ) from None

    found = ((n, piece) for n, file in enumerate(files) for piece in pieces(file))
    source = source_of(files, found, classes, EXPECTED, tell)
    return replace(source, opened=_Opened(ArrayRecordDataSource([str(file) for file in files])))
