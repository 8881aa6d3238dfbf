"""The parameter of a plan that each Keras variable is, and its role in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras

from nfspec.plan import Plan, Role
from nfspec.plan.clipping import (
    TreatAs,
    like_classifier,
    pattern_of,
    require_likeness,
    unknown_layers,
)

# Pattern of paths to canonical name and role, or to None for variables that are neither clipped nor
# decayed.
TreatedAs = Mapping[str, tuple[str, Role] | None]


def treated_as(plan: Plan, treat_as: TreatAs | None) -> TreatedAs:
    """Canonical names for variables of other layers, with their roles.

    Args:
        treat_as: Path of a variable, such as `dense/kernel`, to the name of the plan's parameter
            that it is trained like, such as `head.fc.kernel`, or to None.

    Raises:
        InputError: The plan has no such parameter.
    """
    return {
        path: None if name is None else (name, plan.parameters[name].role)
        for path, name in require_likeness(plan, treat_as).items()
    }


def identify(
    variables: Sequence[keras.Variable], others: TreatedAs
) -> list[tuple[str, Role] | None]:
    """Canonical name and role of each variable; None for one that is neither clipped nor decayed.

    Args:
        variables: Variables of nfspec's layers, which know their name, and of other layers.
        others: Patterns for the paths of the variables of other layers.

    Raises:
        InputError: No variable is of nfspec's layers, and no pattern is for some; they are named.
            Beside nfspec's, those of other layers are trained like the classifier, with a warning.
    """
    parts: list[tuple[str, Role] | None] = []
    strangers: dict[str, tuple[int, ...]] = {}
    places = []
    for variable in variables:
        if hasattr(variable, "canonical"):
            parts.append((variable.canonical, variable.role))
            continue
        pattern = pattern_of(variable.path, others)
        if pattern is None:
            strangers[variable.path] = tuple(variable.shape)
            places.append((len(parts), variable.path))
            parts.append(None)
        else:
            parts.append(others[pattern])
    if strangers:
        if len(strangers) == len(parts):
            raise unknown_layers(strangers)
        like = like_classifier(strangers)
        for place, path in places:
            parts[place] = like[path]
    return parts
