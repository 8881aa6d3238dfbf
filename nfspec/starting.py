"""Weights to start a training from: drawn, or those of a file with another classifier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nfspec.errors import InputError, WeightError
from nfspec.initialise import Params, init
from nfspec.plan import Plan

HEAD = "head."


def with_new_head(old: Params, plan: Plan, seed: int) -> Params:
    """Parameters but for the classifier's, which are drawn as the spec says.

    Args:
        old: Of a network that differs in nothing but the number of classes.
        plan: The network to train.
        seed: Of the draws.
    """
    drawn = init(plan, seed)
    return {name: drawn[name] if name.startswith(HEAD) else old[name] for name in drawn}


def classes_of(path: Path) -> int | None:
    """Outputs of the classifier in a safetensors file of nfspec's or timm's; None if not known."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            for name in sorted(file.keys()):
                if name.endswith("head.fc.bias"):
                    shape = file.get_slice(name).get_shape()
                    return int(shape[0]) if len(shape) == 1 and shape[0] else None
    except (OSError, SafetensorError):
        return None  # whoever reads the weights says what is wrong
    return None


def start_from(
    path: Path,
    read: Callable[[Path, Plan], Params],
    plan_of: Callable[[int], Plan],
    classes: tuple[int, int],
    *,
    new_head: bool,
    seed: int,
) -> tuple[Params, bool]:
    """Read weights of a variant to train further, with any number of classes.

    Args:
        path: The file.
        read: What reads it, such as `nfspec.weights.load`.
        plan_of: The variant with a number of classes.
        classes: Those of the data, and those that the file has unless it says otherwise.
        new_head: Draw the classifier though its size would fit.
        seed: Of the draws.

    Returns:
        Parameters for the classes of the data, and whether the classifier was drawn.

    Raises:
        WeightError: They are not the variant's.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    wanted, usual = classes
    found = classes_of(path)
    problem = None
    for count in dict.fromkeys([found] if found else [usual, wanted]):
        try:
            params = read(path, plan_of(count))
        except WeightError as error:
            problem = problem or error
            continue
        if count == wanted and not new_head:
            return params, False
        return with_new_head(params, plan_of(wanted), seed), True
    assert problem is not None
    raise problem
