"""The folder of a training: who may write there, and the facts of the training in it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

import nfspec
from nfspec.arguments import MAX_SEED
from nfspec.compilation import Backend
from nfspec.data.sources import DIGITS
from nfspec.errors import InputError
from nfspec.files import TEMPORARY, content, write
from nfspec.language.spec import Spec
from nfspec.language.template import resolved
from nfspec.language.validation import shown
from nfspec.outputs import LOCK, alone
from nfspec.wording import found_text, printable

MOST_FACTS = 2**26  # bytes of run.json, which holds the name of each class
RUN = "run.json"
# The files that a training writes, as patterns below its folder.
WRITTEN = (
    RUN,
    "spec.toml",
    "log.jsonl",
    "training.png",
    "weights.safetensors",
    "best.safetensors",
    "checkpoints/step-*.safetensors",
    "checkpoints/step-*.damaged",
    "tensorboard/events.out.tfevents.*",
)


def _text(value: Any) -> Any:
    """Accept any text; pydantic's own type refuses names whose bytes are not UTF-8."""
    if not isinstance(value, str) or not value:
        raise ValueError("expected text")
    return value


def _unlike(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise ValueError("one of them twice")
    return values


Text = Annotated[Any, AfterValidator(_text)]


class Facts(BaseModel):
    """The facts of a training in its run.json, but for the versions, which nothing reads."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    nfspec: Text
    variant: Text
    data: Text
    backend: Backend
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    held_out: Annotated[float, Field(ge=0.01, le=0.9)]
    classes: Annotated[list[Text], Field(min_length=1), AfterValidator(_unlike)]
    val: Text | None = None


def read_facts(folder: Path) -> Facts:
    """The facts of the training in a folder.

    Raises:
        InputError: There is none, or run.json is not as `nfspec train` wrote it.
    """
    path = folder / RUN
    try:
        data = json.loads(content(path, MOST_FACTS).decode("utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder}: no training in it (no run.json); give a folder that nfspec train wrote"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not what nfspec train wrote: no JSON") from None
    try:
        return Facts.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = first["msg"].removeprefix("Value error, ")
        what = f"{what[:1].lower()}{what[1:]}; found {found_text(first['input'])}"
        what = "missing" if first["type"] == "missing" else what
        where = f"{shown(first['loc'])}: " if first["loc"] else ""
        raise InputError(f"{path}: not what nfspec train wrote: {where}{what}") from None


def write_facts(
    folder: Path,
    spec: Spec,
    classes: Sequence[str],
    *,
    data: str | Path,
    backend: str,
    seed: int,
    held_out: float,
    val: str | Path | None = None,
) -> None:
    """Write spec.toml and run.json, from which `nfspec evaluate` knows what was trained, and how.

    Args:
        folder: The training's folder.
        spec: The spec that is trained.
        classes: Names of the classes, in the order of the outputs.
        data: The images, as the user named them.
        backend: The framework, whose version is written, too.
        seed: The training's seed.
        held_out: Share of each class that is not trained on.
        val: The images to evaluate on, as the user named them; None where a share is held out.

    Raises:
        OSError: A file cannot be written; `filename` is its path.
    """
    facts = {
        "nfspec": nfspec.__version__,
        "keras": version("keras"),
        backend: version(backend),
        "variant": spec.name,
        "data": DIGITS if str(data) == DIGITS else str(Path(data).resolve()),
        "backend": backend,
        "seed": seed,
        "held_out": held_out,
        "classes": list(classes),
        **({} if val is None else {"val": str(Path(val).resolve())}),
    }
    write(folder / "spec.toml", "\n".join(resolved(spec)) + "\n")
    write(folder / RUN, json.dumps(facts, indent=2) + "\n")


def _require_usable(folder: Path, resume: bool, force: bool) -> None:
    """Refuse a folder that this training may not write to."""
    begun = os.path.lexists(folder / RUN)
    if resume and not begun:
        raise InputError(f"{folder}: no training there to resume; start it without --resume")
    if resume:
        read_facts(folder)
    if resume or force or not folder.is_dir():
        return
    if begun:
        read_facts(folder)
        raise InputError(
            f"{folder}: holds a training; go on with it by --resume, start over by --force, or "
            "give another --out"
        )
    names = sorted(path.name for path in folder.iterdir())
    others = [name for name in names if name != LOCK and not TEMPORARY.fullmatch(name)]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise InputError(
            f"{folder}: holds files that no training wrote ({printable(others[0])}{more}); give "
            "another --out, or --force to write there and replace files of the same names"
        )


@contextlib.contextmanager
def claimed(folder: Path, resume: bool, force: bool) -> Iterator[None]:
    """Lock the folder of a training, so that no other command writes there; make it if needed.

    A folder that was made here, and is still empty at the end, is deleted again.

    Raises:
        InputError: It holds other files, another process writes there, or nothing can be
            written there.
    """
    if resume and force:
        raise InputError("--resume goes on with a training, --force starts over; give one of them")
    held = contextlib.ExitStack()
    try:
        _require_usable(folder, resume, force)
        held.enter_context(alone(folder))
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{folder}: cannot be written to: {reason}; give another --out") from None
    with held:
        _require_usable(folder, resume, force)  # it may have changed before it was locked
        yield


def clear(folder: Path) -> None:
    """Delete the files of an earlier training, and nothing else."""
    for pattern in WRITTEN:
        for path in folder.glob(pattern):
            path.unlink()
