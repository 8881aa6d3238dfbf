"""Groups of parameters that decay and learn alike, for optimizers of any framework."""

from __future__ import annotations

from dataclasses import dataclass

from nfspec.arguments import instance, number
from nfspec.errors import InputError
from nfspec.plan import Plan

DECAY = ("kernel", "head")  # roles that decay where no recipe says which do not


@dataclass(frozen=True)
class Group:
    """Parameters with one weight decay and one learning rate.

    Attributes:
        part: The part of the network that they are in: `stem`, `stages.S`, or `head`, to which a
            final conv belongs.
        names: Their canonical names, in the plan's order.
        weight_decay: Weight decay; 0 for gains, biases and skip gains, as the recipe says.
        lr_scale: Factor of the learning rate.
    """

    part: str
    names: tuple[str, ...]
    weight_decay: float
    lr_scale: float


def groups(
    plan: Plan, *, weight_decay: float | None = None, layer_decay: float = 1.0
) -> tuple[Group, ...]:
    """Sort a plan's parameters into groups for an optimizer.

    The learning rate falls by `layer_decay` from the head to the last stage, from there to the one
    before, and so on to the stem, as in ELECTRA (Clark et al. 2020, arXiv:2003.10555, appendix A)
    and BEiT, with a stage for a layer.

    Args:
        plan: What `nfspec.resolve` returned. `model.plan` has it.
        weight_decay: Weight decay of the parameters that decay; the recipe's if None.
        layer_decay: Factor of the learning rate of each part beside that of the next; 1 for none.

    Returns:
        Groups from the stem to the head. Every parameter is in one of them.

    Raises:
        InputError: An argument has a wrong type or value, or no recipe states the weight decay.
    """
    instance("plan", plan, Plan, "nfspec.resolve")
    number("layer_decay", layer_decay, 0.0, 1.0, above=True)
    recipe = plan.recipe
    if weight_decay is None:
        if recipe is None:
            raise InputError(f"{plan.name} has no [recipe]; give weight_decay, too")
        weight_decay = recipe.weight_decay
    number("weight_decay", weight_decay, 0.0, 1.0)
    parts = ["stem", *dict.fromkeys(f"stages.{row.stage}" for row in plan.blocks), "head"]
    found: dict[tuple[int, float], list[str]] = {}
    for name, parameter in plan.parameters.items():
        role = parameter.role
        decays = role not in recipe.weight_decay_exclude if recipe else role in DECAY
        own = [n for n, part in enumerate(parts) if name.startswith(f"{part}.")]
        place = own[0] if own else len(parts) - 1
        found.setdefault((place, weight_decay if decays else 0.0), []).append(name)
    return tuple(
        Group(parts[place], tuple(names), decay, layer_decay ** (len(parts) - 1 - place))
        for (place, decay), names in sorted(found.items())
    )
