"""Weights to start a training from, read from a file that may have another classifier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from nfspec.errors import WeightError
from nfspec.plan import Plan
from nfspec.plan.initialise import Params, init
from nfspec.weights.checking import CLASSIFIER, NoClassifier
from nfspec.weights.container import contents


class Reader(Protocol):
    """A function that reads weights, such as `nfspec.weights.load`."""

    def __call__(self, path: Path, plan: Plan, /, *, classifier: bool = True) -> Params: ...


def with_new_head(old: Params, plan: Plan, seed: int) -> Params:
    """Parameters in which the classifier's are replaced by ones drawn as the spec says.

    Args:
        old: Parameters of a network that differs in nothing but the number of classes.
        plan: The network to train.
        seed: Seed of the draws.
    """
    drawn = init(plan, seed)
    return {name: drawn[name] if name in CLASSIFIER else old[name] for name in drawn}


def classes_of(path: Path) -> int | None:
    """Outputs of the classifier in a safetensors file of nfspec's or timm's; None if not known."""
    if path.suffix != ".safetensors":
        return None
    try:
        with contents(path) as file:
            for name, tensor in file.tensors.items():
                if name.endswith("head.fc.bias"):
                    shape = tensor.shape
                    return shape[0] if len(shape) == 1 and shape[0] else None
    except WeightError:
        return None  # whoever reads the weights says what is wrong
    return None


def start_from(
    path: Path,
    read: Reader,
    plan_of: Callable[[int], Plan],
    classes: tuple[int, int],
    *,
    new_head: bool,
    seed: int,
) -> tuple[Params, bool]:
    """Read weights of a variant to train further, with any number of classes or no classifier.

    Args:
        path: The file.
        read: Function that reads it, such as `nfspec.weights.load`.
        plan_of: The variant with a number of classes.
        classes: Those of the data, and those that the file has unless it says otherwise.
        new_head: Draw the classifier though its size would fit.
        seed: Seed of the draws.

    Returns:
        Parameters for the classes of the data, and whether the classifier was drawn.

    Raises:
        WeightError: They are not the variant's.
    """
    wanted, usual = classes
    stated = classes_of(path)
    problem = None
    for count in dict.fromkeys([stated] if stated else [usual, wanted]):
        try:
            params = read(path, plan_of(count))
        except NoClassifier:
            body = read(path, plan_of(wanted), classifier=False)
            return with_new_head(body, plan_of(wanted), seed), True
        except WeightError as error:
            problem = problem or error
            continue
        if count == wanted and not new_head:
            return params, False
        return with_new_head(params, plan_of(wanted), seed), True
    assert problem is not None
    raise problem
