"""The files of `nfspec generate`, as their users have them: one subject for each target.

A subject generates the file of the network that is asked for, and calls what is in it. For a layer
it takes the file of a small network that has this layer: see `carriers`. A module here is one for
each framework, and imports `nfspec.generation`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from types import FunctionType, ModuleType
from typing import Any

from nfspec.conformance.cases.case import Arrays
from nfspec.conformance.cases.reduction import RATE_STEPS
from nfspec.conformance.subjects import Function, NotOffered
from nfspec.conformance.subjects.generated import carriers
from nfspec.generation.native import module
from nfspec.generation.targets import target_of
from nfspec.plan import Activation, Plan
from nfspec.reference.training import learning_rate, recipe_of


class Generated:
    """Common to all targets; a subclass names its target.

    Attributes:
        file: A function of a plan, which returns the generated file as a module. A file is written
            once for each plan.
    """

    target = ""

    def __init__(self, mode: str):
        if mode != "f32":
            raise NotOffered(f"a generated file is tested in mode f32, not in {mode}")
        target_of(self.target).require()
        self._file = cache(partial(module, to=self.target))

    def activation(self, op: Activation) -> Function:
        """The file's function with its gamma. beta is applied here, as the file's block does it."""
        act = self._file(carriers.with_activation(op)).act
        if op.beta_at == "before":
            return lambda x: act(op.beta * x)
        return lambda x: op.beta * act(x)


def rate(plan: Plan, step: int) -> float:
    """The learning rate of a step of the kit's training."""
    recipe = recipe_of(plan)
    return learning_rate(step, recipe.learning_rate, RATE_STEPS, 0.0, recipe.final_learning_rate)


def decays(plan: Plan) -> dict[str, float]:
    """Weight decay of each parameter, by canonical name."""
    return {q.name: recipe_of(plan).decay_of(q.role) for q in plan.parameters.values()}


def given(params: Arrays | None) -> Arrays:
    """The weights that a network is asked to take.

    Raises:
        NotOffered: It is asked to draw its own.
    """
    if params is None:
        raise NotOffered("a file draws its weights by its framework, not by nfspec's seed")
    return params


def recorded(done: int, steps: int, parameters: Callable[[], Arrays]) -> Arrays:
    """The parameters after the first step and after the last, as the kit names them; none after
    the others."""
    if done not in (0, steps - 1):
        return {}
    prefix = "first" if done == 0 else "last"
    return {f"{prefix}/{name}": value for name, value in parameters().items()}


def rebound(made: ModuleType, **others: Any) -> dict[str, Any]:
    """The names of a file, whose functions call others in place of some; the file itself is left as
    it is."""
    names = dict(vars(made))
    for name, value in vars(made).items():
        if isinstance(value, FunctionType) and value.__module__ == made.__name__:
            names[name] = FunctionType(value.__code__, names, name, value.__defaults__)
    names.update(others)
    return names


def named(values: tuple[Any, ...], *names: str) -> dict[str, Any]:
    """The parameters of a layer that a file knows as `op`."""
    return {f"op.{name}": value for name, value in zip(names, values, strict=True)}


def weight(name: str) -> str:
    """The name of a parameter in PyTorch and MLX, given the canonical one."""
    return f"{name.removesuffix('kernel')}weight" if name.endswith("kernel") else name
