"""Labelled images in a list: a CSV or Parquet file with a path and a label in each row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nfspec.data.labels import numbered
from nfspec.data.sources import EXTENSIONS, Files, Source, require_once
from nfspec.errors import InputError
from nfspec.files import content
from nfspec.wording import few, printable, reason_of

CSV, PARQUET = (".csv", ".tsv"), ".parquet"
SUFFIXES = (*CSV, PARQUET)
PATHS = ("path", "image", "file", "filename", "filepath", "image_path", "file_name")
LABELS = ("label", "class", "category", "target", "class_name")
MOST_BYTES = 2**30


@dataclass(frozen=True)
class Row:
    """One image of a list; `place` names its row in errors."""

    place: str
    path: str
    label: str


def is_list(path: Path) -> bool:
    """True for a file whose name is that of a list."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def listed(path: Path, classes: tuple[str, ...] = ()) -> Source:
    """The images of a list.

    Args:
        path: A CSV file (with commas, semicolons or tabs between the columns) or a Parquet file.
            The column of paths is one of `PATHS`, that of labels one of `LABELS`; a CSV file of two
            columns may have no header. Paths that are not absolute begin at the list's folder.
            Labels are names of classes, or whole numbers.
        classes: Names of the classes, in the order of their labels; those of the list, in order, if
            empty. Labels that are whole numbers, and no names, count from 0 in it.

    Paths may be absolute, and may lead out of the folder: a list of a stranger can name any image
    that its user may read. Nothing but images is opened.

    Raises:
        InputError: It cannot be read, has no such columns or no rows, names images that do not
            exist, an image twice, or a class that is none of `classes`.
    """
    rows = list(_parquet(path) if path.suffix.lower() == PARQUET else _csv(path))
    if not rows:
        raise InputError(f"{printable(str(path))}: no images in it; expected a row for each")
    paths = [path.parent.absolute() / row.path for row in rows]
    pairs = zip(rows, paths, strict=True)
    absent = [f"{row.place}: {row.path}" for row, at in pairs if not _is_file(at)]
    if absent:
        raise InputError(
            f"{printable(str(path))}: {len(absent):,} of {len(rows):,} images do not exist: "
            f"{few(absent)}; paths begin at the folder of the list"
        )
    names, labels = numbered([row.label for row in rows], classes, lambda n: rows[n].place)
    images = tuple(map(str, paths))
    require_once(images)
    return Source(names, labels, images, Files(images))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # too long a name, or a folder that may not be looked into
        return False


def _csv(path: Path) -> Iterator[Row]:
    shown = printable(str(path))
    try:
        text = content(path, MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{shown}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].count(b"\n")
        raise InputError(f"{shown}:{line}: not UTF-8; save the list as UTF-8") from None
    first = text.partition("\n")[0]
    separator = max((",", ";", "\t"), key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = next(reader, [])
        bare = len(header) == 2 and Path(header[0].strip()).suffix.lower() in EXTENSIONS
        at = (0, 1) if bare else _columns(shown, header)
        if bare:
            yield _row(f"{shown}:1", header, at)
        for row in reader:
            if any(cell.strip() for cell in row):
                yield _row(f"{shown}:{reader.line_num}", row, at)
    except csv.Error as error:
        raise InputError(f"{shown}:{reader.line_num}: not a row of a CSV file ({error})") from None


def _columns(shown: str, header: Sequence[str]) -> tuple[int, int]:
    """The places of the columns of paths and of labels.

    Raises:
        InputError: There is no such column.
    """
    names = [name.strip().lower() for name in header]
    found = []
    for what, known in (("paths", PATHS), ("labels", LABELS)):
        own = [n for n, name in enumerate(names) if name in known]
        if not own:
            raise InputError(
                f"{shown}: no column of {what} in it; expected one called {', '.join(known)}; "
                f"found {few(names) if names else 'none'}"
            )
        found.append(own[0])
    return found[0], found[1]


def _row(place: str, row: Sequence[str], at: tuple[int, int]) -> Row:
    """A row by the places of its columns.

    Raises:
        InputError: It has too few columns, or an empty one.
    """
    cells = [row[n].strip() if n < len(row) else "" for n in at]
    if not all(cells) or "\0" in cells[0]:
        raise InputError(f"{place}: expected a path and a label; found {printable(str(list(row)))}")
    return Row(place, cells[0], cells[1])


def _parquet(path: Path) -> Iterator[Row]:
    shown = printable(str(path))
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise InputError(f"{shown}: pyarrow is not installed; run: pip install pyarrow") from None
    try:
        about = parquet.read_metadata(path)
        if (
            sum(about.row_group(n).total_byte_size for n in range(about.num_row_groups))
            > MOST_BYTES
        ):
            raise InputError(f"{shown}: expected a list of at most {MOST_BYTES / 1e9:.1f} GB")
        names = about.schema.to_arrow_schema().names
        at = _columns(shown, names)
        table = parquet.read_table(path, columns=[names[n] for n in at])
        columns = [table.column(names[n]).to_pylist() for n in at]
    except (ArrowException, OSError, ValueError) as error:
        reason = reason_of(error)
        raise InputError(f"{shown}: not a Parquet file that can be read ({reason})") from None
    for n, cells in enumerate(zip(*columns, strict=True)):
        place = f"{shown}, row {n + 1}"
        if isinstance(cells[0], dict):
            raise InputError(
                f"{place}: expected a path; found an image itself. Save the data by "
                "datasets.load_dataset(...).save_to_disk(FOLDER), and give the folder"
            )
        if strange := [cell for cell in cells if not isinstance(cell, str | int | None)]:
            raise InputError(f"{place}: expected text or a whole number; found {strange[0]!r:.80}")
        yield _row(place, ["" if cell is None else str(cell) for cell in cells], (0, 1))
