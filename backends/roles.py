"""Which parameter of a plan a Keras variable is, and what part it plays in training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import keras

from nfspec.errors import InputError, suggest
from nfspec.plan import Plan, Role

TreatedAs = Mapping[str, tuple[str, Role]]  # path of a variable to canonical name and role


def treated_as(plan: Plan, names: Mapping[str, str]) -> TreatedAs:
    """Canonical names for variables of other layers, with their roles.

    Args:
        names: Path of a variable, such as `dense/kernel`, to the name of the plan's parameter that
            it is trained like, such as `head.fc.kernel`.

    Raises:
        InputError: The plan has no such parameter.
    """
    for path, name in names.items():
        if name not in plan.parameters:
            raise InputError(
                f'treat_as: {path}: {plan.name} has no parameter "{name}"'
                f"{suggest(name, plan.parameters)}"
            )
    return {path: (name, plan.parameters[name].role) for path, name in names.items()}


def identify(variables: Iterable[keras.Variable], others: TreatedAs) -> list[tuple[str, Role]]:
    """Canonical name and role of each variable.

    Args:
        variables: Of nfspec's layers, which know; others by their path in `others`.

    Raises:
        InputError: A variable has no role; all such are named.
    """
    found, strangers = [], []
    for variable in variables:
        if hasattr(variable, "canonical"):
            found.append((variable.canonical, variable.role))
        elif variable.path in others:
            found.append(others[variable.path])
        else:
            strangers.append(f"{variable.path} {tuple(variable.shape)}")
    if strangers:
        raise InputError(
            f"not of nfspec's layers, so that their role in training is not known: "
            f"{', '.join(strangers)}; say which parameter each is trained like, as in "
            f'treat_as={{"{strangers[0].split()[0]}": "head.fc.kernel"}}'
        )
    return found
