"""The kinds of weight files, told apart by name and content, with what reads and writes each."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from nfspec.errors import InputError
from nfspec.plan import Plan
from nfspec.weights.checking import CLASSIFIER
from nfspec.weights.container import contents
from nfspec.weights.deepmind import from_deepmind, to_deepmind
from nfspec.weights.fitting import Fitted, fit
from nfspec.weights.store import FORMAT, load, save
from nfspec.weights.timm import SUFFIXES as TIMM_SUFFIXES
from nfspec.weights.timm import from_timm, to_timm_file
from nfspec.wording import printable


class Kind(StrEnum):
    """Whose names and layout a weight file has."""

    NFSPEC = "nfspec"
    DEEPMIND = "deepmind"
    TIMM = "timm"


SUFFIXES = {
    Kind.NFSPEC: (".safetensors",),
    Kind.DEEPMIND: (".npz",),
    Kind.TIMM: TIMM_SUFFIXES,
}
READERS = {Kind.NFSPEC: load, Kind.DEEPMIND: from_deepmind, Kind.TIMM: from_timm}
WRITERS = {Kind.NFSPEC: save, Kind.DEEPMIND: to_deepmind, Kind.TIMM: to_timm_file}


def kind_of_name(path: Path, option: str = "") -> Kind:
    """The first kind of file with such a name: nfspec's before timm's.

    Args:
        path: The file, which need not exist.
        option: The option that names the kind, for the advice in the error; none if empty.

    Raises:
        InputError: No kind has such names.
    """
    for kind, suffixes in SUFFIXES.items():
        if path.suffix in suffixes:
            return kind
    advice = f"give {option}, one of {', '.join(Kind)}"
    if not option:
        known = (f"{kind}: {' '.join(suffixes)}" for kind, suffixes in SUFFIXES.items())
        advice = f"expected a name that ends as one of {'; '.join(known)}"
    raise InputError(f"{path}: its name does not say what it is; {advice}")


def kind_of_file(path: Path, option: str = "") -> Kind:
    """The kind of a file that exists, by its name and content.

    Raises:
        InputError: As `kind_of_name`.
        WeightError: A .safetensors file that cannot be read, or is damaged.
    """
    kind = kind_of_name(path, option)
    return Kind.TIMM if kind is Kind.NFSPEC and not _is_ours(path) else kind


def _is_ours(path: Path) -> bool:
    """True if a safetensors file says that nfspec wrote it."""
    with contents(path) as file:
        return file.metadata.get("format") == FORMAT


def read_fitting(
    path: Path, plan: Plan, kind: Kind, *, seed: int = 0, new_head: bool = False
) -> Fitted:
    """Read weights and make them fit a plan: see `fit`.

    Args:
        path: The file.
        plan: The network that they are to fit.
        kind: Whose names and layout the file has.
        seed: Seed of a new classifier.
        new_head: Draw the classifier, even if the one in the file fits.

    Raises:
        WeightError: They do not fit, for another reason than the number of classes or of input
            channels.
    """
    params = READERS[kind](path, plan, own_shapes=True)
    if new_head:
        params = {name: value for name, value in params.items() if name not in CLASSIFIER}
    return fit(params, plan, seed=seed, source=printable(str(path)))
