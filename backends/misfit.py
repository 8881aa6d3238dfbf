"""Images that a network cannot take, explained in a sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from nfspec.errors import InputError


@contextlib.contextmanager
def explained(model: Any, images: Sequence[Any]) -> Iterator[None]:
    """Explain an error by the shape of the images, where that is wrong.

    They are looked at after an error alone, since tracers could not follow a check of every call.

    Args:
        model: A network with one input, images of four axes.
        images: One batch that it was called with, or none.
    """
    try:
        yield
    except Exception as error:
        refusal = misfit(model, images[0]) if images else None
        if refusal is None or isinstance(error, InputError):
            raise
        raise refusal from None


def misfit(model: Any, images: Any) -> InputError | None:
    """The error for images of a shape that a network does not take.

    Args:
        model: A network with one input, images of four axes.
        images: The argument that it was called with.

    Returns:
        None where their shape is right, or is not known.
    """
    wanted = tuple(model.input.shape)
    try:
        found = tuple(images.shape)
    except (AttributeError, ValueError):  # no tensor, or one of TensorFlow's of unknown rank
        return None
    last = wanted[3] is not None
    axis = 3 if last else 1
    channels = wanted[axis]
    sides = found[1:3] if last else found[2:4]
    if len(found) == 4 and found[axis] == channels and 0 not in sides:
        return None
    layout = f"(N, H, W, {channels})" if last else f"(N, {channels}, H, W)"
    return InputError(
        f"{model.name}: expected images {layout}, of one pixel or more; found the shape "
        f"{found}; {_advice(found, axis, channels)}"
    )


def _advice(found: tuple[Any, ...], axis: int, channels: int) -> str:
    """Advice on a shape."""
    last = axis == 3
    if len(found) == 3:
        return "put an axis in front of a single image: image[None]"
    if len(found) != 4 or found[axis] == channels:
        return "give a batch of images of this shape"
    if found[1 if last else 3] == channels:
        there, other = ("end", "first") if last else ("second place", "last")
        return (
            f"move the axis of channels to the {there}, or compile with "
            f'data_format="channels_{other}"'
        )
    return (
        "convert the images, or load the spec with their number as input.channels, with as many "
        "numbers in input.mean and input.std"
    )
