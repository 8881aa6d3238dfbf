"""Labelled images of a Hugging Face dataset on disk, as its `save_to_disk` writes it.

The files are Arrow streams, which pyarrow maps into memory: an image is read when it is asked for.

Source: https://huggingface.co/docs/datasets (Dataset.save_to_disk, features.Image and ClassLabel).
"""

from __future__ import annotations

import json
import struct
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nfspec.data.images import opened_image
from nfspec.data.labels import numbered, text_of
from nfspec.data.lists import LABELS
from nfspec.data.sources import Source
from nfspec.errors import InputError
from nfspec.files import content, opened
from nfspec.wording import few, printable, reason_of

STATE, SPLITS = "state.json", "dataset_dict.json"
MOST_STATE = 2**26  # bytes of a file of facts
EXPECTED = "a column of images (datasets.Image) and one of labels (datasets.ClassLabel, or label)"


def is_saved(path: Path) -> bool:
    """True for a folder of a dataset, but not for one of several splits."""
    return (path / STATE).is_file()


@dataclass(frozen=True)
class _Images:
    """Opens the image of a number in Arrow files."""

    files: tuple[Path, ...]
    name: str

    @cached_property
    def column(self) -> Any:
        import pyarrow

        return pyarrow.chunked_array(
            [chunk for file in self.files for chunk in _table(file).column(self.name).chunks]
        )

    def __call__(self, number: int) -> AbstractContextManager[Image.Image]:
        found = self.column[number].as_py()
        if not found or not found.get("bytes"):
            raise ValueError("no bytes of an image in the dataset")
        return opened_image(found["bytes"])

    def __reduce__(self) -> Any:  # a process maps the files for itself
        return type(self), (self.files, self.name)


def saved(folder: Path, classes: tuple[str, ...] = ()) -> Source:
    """The images of a dataset, in its order.

    Args:
        folder: The folder that `save_to_disk` wrote, of one split.
        classes: Names of the classes, in the order of their labels; those of the dataset if empty.

    Raises:
        InputError: pyarrow is missing; the files are damaged; there is no column of images or of
            labels, or an image has no label, or one of other classes.
    """
    shown = printable(str(folder))
    files = _files(folder)
    tables = [_table(file) for file in files]
    schema = tables[0].schema
    if any(not table.schema.equals(schema) for table in tables):
        raise InputError(f"{shown}: its files have different columns; save the dataset anew")
    image, label, names = _columns(shown, schema)
    values = [value for table in tables for value in table.column(label).to_pylist()]
    if not values:
        raise InputError(f"{shown}: no images in it; expected {EXPECTED}")
    labels = []
    for n, value in enumerate(values):
        named = names and isinstance(value, int) and 0 <= value < len(names)
        text = names[value] if named else None if names else text_of(value)
        if text is None:
            raise InputError(f"{shown}, row {n}: no label, or one of no class: {value!r:.40}")
        labels.append(text)
    found, numbers = numbered(labels, classes or tuple(names), lambda n: f"{shown}, row {n}")
    places = tuple(f"{folder}/{n}" for n in range(len(labels)))
    return Source(found, np.asarray(numbers), places, _Images(tuple(files), image))


def _read_json(path: Path) -> Any:
    try:
        data = json.loads(content(path, MOST_STATE).decode("utf-8"))
    except OSError as error:
        raise InputError(
            f"{printable(str(path))}: cannot be read: {error.strerror or error}"
        ) from None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise InputError(f"{printable(str(path))}: damaged: not what datasets writes")
    return data


def _files(folder: Path) -> list[Path]:
    """The files of a dataset, which lie in its folder."""
    state, path = _read_json(folder / STATE), printable(str(folder / STATE))
    given = state.get("_data_files")
    names = [each.get("filename") for each in given] if _dicts(given) else []
    if not names or any(not isinstance(n, str) or Path(n).name != n or "\0" in n for n in names):
        raise InputError(f"{path}: damaged: expected the names of files in its folder")
    if any(state.get(key) for key in ("_indices_files", "_indices_data_files")):
        raise InputError(
            f"{path}: an order of its own beside the data; call flatten_indices() before "
            "save_to_disk()"
        )
    return [folder / name for name in names]


def _dicts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _table(path: Path) -> Any:
    """The table in an Arrow file, mapped and looked through, so that no place in it leads out."""
    shown = printable(str(path))
    try:
        import pyarrow
    except ImportError:
        raise InputError(f"{shown}: pyarrow is not installed; run: pip install pyarrow") from None
    try:
        with opened(path):  # a pipe would be waited for
            file = pyarrow.memory_map(str(path))
        for message in pyarrow.ipc.MessageReader.open_stream(file):
            if _is_compressed(message):
                raise InputError(
                    f"{shown}: compressed, so that it could take any amount of memory; load and "
                    "save the dataset with datasets, which does not compress it"
                )
        file.seek(0)
        table = pyarrow.ipc.open_stream(file).read_all()
        table.validate(full=True)
    except (pyarrow.ArrowException, OSError, ValueError, struct.error) as error:
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise InputError(f"{shown}: not an Arrow file that can be read ({reason})") from None
    return table


def _is_compressed(message: Any) -> bool:
    """True if the columns of an Arrow message are compressed, or are none but of other messages.

    pyarrow does not say so: field 3 of a RecordBatch, which is field 2 of a Message, is there
    (Message.fbs of Arrow's format, as FlatBuffers lay out a table).
    """
    if message.type == "schema":
        return False
    data = message.metadata.to_pybytes()

    def field(table: int, number: int) -> int:
        """The place of a field of a table; 0 if it is not there."""
        names = table - struct.unpack_from("<i", data, table)[0]
        (size,) = struct.unpack_from("<H", data, names)
        entry = 4 + 2 * number
        (offset,) = struct.unpack_from("<H", data, names + entry) if entry < size else (0,)
        return table + offset if offset else 0

    def table_at(place: int) -> int:
        return place + struct.unpack_from("<I", data, place)[0]

    batch = table_at(field(table_at(0), 2))
    return message.type != "record batch" or field(batch, 3) > 0


def _columns(shown: str, schema: Any) -> tuple[str, str, list[str]]:
    """The names of the columns of images and of labels, and the names of classes, if it has them.

    Raises:
        InputError: There is no such column.
    """
    features = _features(schema)
    images = [
        field.name
        for field in schema
        if str(field.type).startswith("struct<bytes: binary, path: ")
        and features.get(field.name, {}).get("_type", "Image") == "Image"
    ]
    known = [n for n, about in features.items() if about.get("_type") == "ClassLabel"]
    labels = [name for name in (*known, *LABELS) if name in schema.names]
    if not images or not labels:
        raise InputError(f"{shown}: expected {EXPECTED}; found {few(schema.names)}")
    names = features.get(labels[0], {}).get("names") if labels[0] in known else None
    if names is not None and (
        not isinstance(names, list)
        or not all(isinstance(name, str) and name for name in names)
        or len(set(names)) < len(names)
    ):
        raise InputError(f"{shown}: damaged: the classes of {printable(labels[0])} are no names")
    return images[0], labels[0], names or []


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """The description of the columns by datasets; empty where it is not written."""
    try:
        facts = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = facts["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    if not isinstance(features, dict):
        return {}
    return {name: about for name, about in features.items() if isinstance(about, dict)}
