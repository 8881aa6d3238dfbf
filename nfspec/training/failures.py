"""The errors that end a training early, and what there is to go on with after one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from nfspec.errors import NfspecError, WeightError
from nfspec.training.folders import RUN
from nfspec.wording import printable


class TrainingError(NfspecError):
    """A training that had begun and could not go on; the message says what is left of it."""


class Diverged(TrainingError):
    """A loss that is not a number, after which there is nothing to go on with."""


class OtherTraining(WeightError):
    """A checkpoint of another training than the one that is to go on."""


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error is a framework's (or Python's) that memory did not suffice."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ in ("OutOfMemoryError", "ResourceExhaustedError")
        or "RESOURCE_EXHAUSTED" in text
        or "can't allocate memory" in text
    )


@contextlib.contextmanager
def explained(folder: Path, images: int, side: int) -> Iterator[None]:
    """Turn an error that a user can act on into one that says how the training can go on.

    Args:
        folder: The training's folder.
        images: Images that a step takes at a time.
        side: Their side, px.

    Raises:
        OtherTraining: As it was raised.
        Diverged: As it was raised, with what is left of the training.
        TrainingError: Any other error of nfspec, of the file system, or of the memory.
    """
    try:
        yield
    except OtherTraining:
        raise
    except Diverged as error:
        raise Diverged(_with_rest(str(error), folder)) from None
    except NfspecError as error:
        raise TrainingError(_with_rest(str(error), folder)) from None
    except OSError as error:
        text = f"{error.filename or folder}: {error.strerror or error}"
        raise TrainingError(_with_rest(text, folder)) from None
    except Exception as error:
        if not out_of_memory(error):
            raise
        text = (
            f"{images} images of {side} px at a time do not fit the memory; take a smaller "
            "--batch, or as many micro-batches by --accumulation"
        )
        raise TrainingError(_with_rest(text, folder)) from None


def _with_rest(message: str, folder: Path) -> str:
    """A message, and below it what there is to go on with."""
    names = sorted(path.name for path in (folder / "checkpoints").glob("step-*.safetensors"))
    if names:
        newest = printable(str(folder / "checkpoints" / names[-1]))
        return f"{message}\n{newest} is whole; --resume goes on from there"
    if (folder / RUN).exists():
        return f"{message}\nno checkpoint was written yet; --resume starts from the first step"
    return message
