"""A spec's network cut to a few narrow blocks: same conventions, wiring and stages, small enough to
be trained ten steps in float64 many times over."""

from __future__ import annotations

from nfspec.errors import SpecError
from nfspec.language.loader import load
from nfspec.language.spec import Spec
from nfspec.language.tables import Recipe
from nfspec.plan import Plan
from nfspec.plan.resolver import resolve

SIDE = 32  # px of its images
IMAGES = 8  # in a batch
CLASSES = 10
RATE_STEPS = 40  # of the cosine of its learning rate, of which a run takes the first few
GROUP_WIDTH = 8
WIDTHS = range(16, 513, 8)
STEM = 16  # channels at most of a stem of one conv
DEEP_STEM = 32  # channels at most of the last conv of a stem of several
ORIGINAL = (16, 32, 64)  # channels of the first convs of DeepMind's stem
LONGEST_NAME = 80  # characters of a name in a spec
NAME = "-reduced"  # what the name of a network that is cut ends in


def reduced_plan(spec: Spec, drops: bool = False) -> Plan:
    """The plan of the reduced network.

    The second stage keeps two blocks, if it has them, and the others one: enough for a beta that
    is not 1. Widths are the smallest with two groups in a bottleneck. The recipe is `recipe_of`.
    The name is the spec's with `NAME` after it, and the stem as the original's constructor makes
    it: see `_stem`.

    Args:
        spec: Spec of the network.
        drops: True if training drops at the spec's rates, False if it drops nothing.

    Raises:
        SpecError: No such network can be made of the spec.
    """
    columns = spec.stages.column("group_width")
    groups = tuple("none" if g == "none" else min(GROUP_WIDTH, g) for g in columns)
    counts = tuple("none" if g == "none" else min(2, g) for g in spec.stages.column("groups"))
    depth = tuple(min(d, 2) if s == 1 else 1 for s, d in enumerate(spec.stages.depth))
    beta = spec.stages.beta
    if isinstance(beta, tuple):
        beta = tuple(b[:d] if isinstance(b, tuple) else b for b, d in zip(beta, depth, strict=True))
    data = spec.model_dump(by_alias=True)
    data["name"] = spec.name[: LONGEST_NAME - len(NAME)] + NAME
    data["head"] |= {"classes": CLASSES, "conv_width": 32}
    if not drops:
        data["head"]["dropout"] = data["stochastic_depth"]["rate"] = 0.0
    data["recipe"] = recipe_of(spec).model_dump()
    data["agc"]["enabled"] = True
    problem: SpecError | None = None
    for width in WIDTHS:
        stages = {"depth": depth, "group_width": groups, "groups": counts, "beta": beta}
        data["stages"] |= {**stages, "width": (width,) * spec.stages.count}
        data["stem"]["width"] = _stem(spec, width)
        try:
            plan = resolve(Spec.model_validate(data))
        except SpecError as error:
            problem = problem or error
            continue
        if all(block.groups > 1 or groups[block.stage] == "none" for block in plan.blocks):
            return plan
    assert problem is not None
    raise problem


def _stem(spec: Spec, width: int) -> tuple[int, ...]:
    """The channels of the reduced network's stem.

    DeepMind's constructor of NFNets is given the stages' widths alone. Its stem has 16, 32 and 64
    channels, and half of the first stage's width, which is kept here where the spec has it. timm's
    is given the last conv's channels, and the others are an eighth, a quarter and half of it: other
    stems are narrowed by one factor.
    """
    widths = spec.stem.width
    if len(widths) == 1:
        return (min(STEM, *widths),)
    if 2 * widths[-1] == spec.stages.width[0] and widths[:-1] == ORIGINAL:
        return (*ORIGINAL, width // 2)
    factor = min(1.0, DEEP_STEM / widths[-1])
    return tuple(max(1, int(factor * w)) for w in widths)


def recipe_of(spec: Spec) -> Recipe:
    """The spec's recipe, or NFNet-F0's where it has none, at a constant high rate.

    A step moves a clipped unit by a hundredth of its norm, and ten steps show a decay of 1e-3.
    """
    recipe = spec.recipe or load("nfnet-f0").recipe
    assert recipe is not None
    changes = {
        "learning_rate": 0.2,
        "learning_rate_images": 0,
        "warmup_epochs": 0.0,
        "weight_decay": 1e-3,
        "batch": IMAGES,
        "sam_rho": 0.0,
    }
    return recipe.model_copy(update=changes)
