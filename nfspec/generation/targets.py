"""The targets by name. A new one is a folder with a template and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from nfspec.errors import InputError, suggest
from nfspec.generation import flax, jax, keras, mlx, numpy, torch
from nfspec.generation.target import Target

TARGETS: Mapping[str, Target] = {
    each.name: each
    for each in (
        torch.TARGET,
        jax.TARGET,
        flax.TARGET,
        keras.TARGET,
        mlx.TARGET,
        numpy.TARGET,
    )
}


def target_of(name: str) -> Target:
    """The target of a name.

    Raises:
        InputError: There is none.
    """
    if name not in TARGETS:
        known = ", ".join(TARGETS)
        raise InputError(f"to: expected one of {known}; found {name!r}{suggest(name, TARGETS)}")
    return TARGETS[name]
