"""Files of embeddings: NumPy's .npz, and Parquet."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nfspec.errors import InputError
from nfspec.files import replacing
from nfspec.training.predicting import Embeddings
from nfspec.wording import printable

KINDS = (".npz", ".parquet")


def require_kind(path: Path) -> None:
    """Refuse a file that embeddings cannot be written to, before they are computed.

    Raises:
        InputError: Its name does not say what it is to be, there is no such folder, or pyarrow,
            which writes Parquet, is not installed.
    """
    shown = printable(str(path))
    if path.suffix not in KINDS:
        raise InputError(f"{shown}: expected a name that ends in {' or '.join(KINDS)}")
    if not path.parent.is_dir():
        raise InputError(f"{shown}: there is no folder {printable(str(path.parent))}")
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ModuleNotFoundError:
            message = "pyarrow, which writes Parquet, is not installed; run: pip install pyarrow"
            raise InputError(f"{shown}: {message}") from None


def write_embeddings(path: Path, found: Embeddings) -> None:
    """Write embeddings, whole or not at all.

    Args:
        path: The file. A .npz gets the arrays `images` (text) and `embeddings` (float32); a
            .parquet the columns `image` and `embedding`, a list of a fixed length.
        found: What `nfspec.embed` returned.

    Raises:
        InputError: As of `require_kind`.
        OSError: The file cannot be written, and whatever was there is still there.
    """
    require_kind(path)
    with replacing(path) as temporary:
        if path.suffix == ".npz":
            with temporary.open("wb") as file:
                np.savez(file, images=np.asarray(found.images), embeddings=found.vectors)
        else:
            _write_parquet(temporary, found)


def _write_parquet(path: Path, found: Embeddings) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    values = pa.array(np.ascontiguousarray(found.vectors).reshape(-1))
    vectors = pa.FixedSizeListArray.from_arrays(values, found.vectors.shape[1])
    # A name of bytes that are no UTF-8 cannot be in Parquet as it is.
    names = [name.encode("utf-8", "replace").decode("utf-8") for name in found.images]
    parquet.write_table(pa.table({"image": names, "embedding": vectors}), path)
