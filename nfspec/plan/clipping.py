"""The rule of adaptive gradient clipping for each parameter: the axes of a norm, and lambda.

Sources: Brock et al. 2021 (arXiv:2102.06171 §4.1, eq. 3); deepmind-research/nfnets/optim.py
(`unitwise_norm`, `SGD_AGC`) and experiment_nfnets.py (what is left out); timm/utils/agc.py.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import translate
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nfspec.arguments import instance, mapping
from nfspec.errors import InputError, suggest
from nfspec.language.fields import Unit
from nfspec.language.tables import AGC
from nfspec.plan import Plan, Role

# Name of a tensor of another layer, with * for any characters, to the name of the plan's parameter
# that it is trained like, or to None.
TreatAs = Mapping[str, str | None]
LEAST_GRADIENT_NORM = 1e-6  # guards the division; from optim.py


@dataclass(frozen=True)
class ClipRule:
    """The rule by which one parameter's gradient G is clipped, given the parameter W.

    A unit is a set of elements with one norm. Where a unit's `‖G‖ > clipping · max(‖W‖, eps)`, its
    gradient is scaled by `clipping · max(‖W‖, eps) / max(‖G‖, 1e-6)`.

    Attributes:
        axes: Axes that a norm is taken over, of the canonical layout (HWIO, IO). None: all of them,
            so that the tensor is one unit. Empty: none of them, so that each element is a unit.
        units: Number of units of the parameter.
        clipping: lambda; None where the gradient is left as it is.
        eps: Least norm of the parameter that is used.
    """

    axes: tuple[int, ...] | None
    units: int
    clipping: float | None
    eps: float

    def limits(self, norms: NDArray[np.float64]) -> NDArray[np.float64]:
        """The largest norm of each unit's gradient that is left as it is, given the norms of the
        parameter's units; of a parameter that is clipped."""
        assert self.clipping is not None
        return np.asarray(self.clipping * np.maximum(norms, self.eps))


def _axes(unit: Unit, role: Role, shape: Sequence[int]) -> tuple[int, ...] | None:
    rank = len(shape)
    if unit == "tensor":
        return None
    if unit in ("output", "element"):  # of ports that look at the rank as it is
        return None if rank == 0 or (rank == 1 and unit == "output") else tuple(range(rank - 1))
    if unit == "timm":
        # timm stores gains as (O, 1, 1, 1), so that its rule of "all dimensions but the first"
        # takes each gain for a unit of its own.
        if role == "gain":
            return ()
        return None if rank <= 1 else tuple(range(rank - 1))
    if sum(side != 1 for side in shape) <= 1:
        return None  # as the original squeezes before it looks at the rank
    return (0,) if rank <= 3 else tuple(range(rank - 1))


@lru_cache(maxsize=1_024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern.replace("[", "[[]").replace("?", "[?]")))


def matches(name: str, pattern: str) -> bool:
    """Tell whether a pattern matches a name. `*` is any run of characters."""
    return _compiled(pattern).match(name) is not None


def pattern_of(name: str, patterns: Iterable[str]) -> str | None:
    """The longest of the patterns that are for a name; None if there is none."""
    return max((p for p in patterns if matches(name, p)), key=len, default=None)


def _clipping(agc: AGC, name: str, role: Role) -> float | None:
    if not agc.enabled or any(matches(name, pattern) for pattern in agc.exclude):
        return None
    if (pattern := pattern_of(name, agc.names)) is not None:
        return agc.names[pattern]
    return agc.roles.get(role, agc.clipping)


def clip_rule(agc: AGC, name: str, role: Role, shape: Sequence[int]) -> ClipRule:
    """The rule for one parameter.

    Args:
        agc: The `[agc]` table of a spec.
        name: Canonical name. `agc.exclude` comes first, then the longest matching pattern of
            `agc.names`, then `agc.roles`, then `agc.clipping`.
        role: Role of the parameter.
        shape: In the canonical layout: kernels HWIO, dense kernels IO.
    """
    axes = _axes(agc.unit, role, shape)
    units = 1 if axes is None else math.prod(n for i, n in enumerate(shape) if i not in axes)
    return ClipRule(axes, units, _clipping(agc, name, role), agc.eps)


def require_agc(plan: Plan) -> None:
    """Refuse a plan whose spec trains without AGC.

    Raises:
        InputError: It does.
    """
    instance("plan", plan, Plan, "nfspec.resolve")
    if not plan.agc.enabled:
        raise InputError(
            f"{plan.name} trains without adaptive gradient clipping; to have it, put "
            "`[agc] enabled = true` into its spec, or into one that extends it"
        )


def clip_rules(plan: Plan) -> dict[str, ClipRule]:
    """Canonical name to rule, in order of execution."""
    return {p.name: clip_rule(plan.agc, p.name, p.role, p.shape) for p in plan.parameters.values()}


def require_likeness(plan: Plan, treat_as: TreatAs | None) -> TreatAs:
    """Require that `treat_as` names parameters of the plan.

    Raises:
        InputError: The plan has no such parameter.
    """
    given = mapping("treat_as", treat_as or {}, "name of a tensor to name of a parameter")
    for pattern, name in given.items():
        if name is not None and name not in plan.parameters:
            raise InputError(
                f'treat_as: {pattern}: {plan.name} has no parameter "{name}"'
                f"{suggest(str(name), plan.parameters)}"
            )
    return given


def unknown_layers(strangers: Mapping[str, Sequence[int]], known: Iterable[str] = ()) -> InputError:
    """The error to raise for tensors of other layers that `treat_as` does not name.

    Args:
        strangers: Name to shape.
        known: Names that may have been meant.
    """
    known = list(known)
    listed = [
        f"  {name} {tuple(shape)}{suggest(name, known)}"
        for name, shape in list(strangers.items())[:20]
    ]
    if len(strangers) > 20:
        listed.append(f"  and {len(strangers) - 20} more")
    return InputError(
        "\n".join(
            [
                "agc: tensors of layers that are not nfspec's:",
                *listed,
                "name, for each, a parameter that is clipped by the same rule, or None for no "
                "clipping; * matches any characters: "
                f'treat_as={{"{next(iter(strangers))}": "head.fc.kernel"}}',
            ]
        )
    )


def like_classifier(strangers: Mapping[str, Sequence[int]]) -> dict[str, tuple[str, Role]]:
    """Name to the parameter of the classifier that a tensor of another layer is clipped and decayed
    like, where `treat_as` does not name it: kernels like its kernel, others like its bias.

    A warning says so.

    Args:
        strangers: Name to shape.
    """
    first = ", ".join(f"{name} {tuple(shape)}" for name, shape in list(strangers.items())[:3])
    more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
    warnings.warn(
        f"agc: {first}{more} are of layers that are not nfspec's, and are clipped and decayed as "
        "the classifier is; treat_as={name: parameter, or None} says otherwise",
        stacklevel=2,  # once in a process, however many optimizers ask
    )
    kernel: tuple[str, Role] = ("head.fc.kernel", "head")
    bias: tuple[str, Role] = ("head.fc.bias", "bias")
    return {name: kernel if len(shape) > 1 else bias for name, shape in strangers.items()}


def _mismatch(plan: Plan, name: str, shape: Sequence[int]) -> str | None:
    if (expected := plan.parameters[name].shape) == tuple(shape):
        return None
    return f"{name}: expected shape {expected} (HWIO, dense kernels IO); found {tuple(shape)}"


def rules_for(
    plan: Plan,
    names: Sequence[str],
    shapes: Sequence[Sequence[int]],
    treat_as: TreatAs | None = None,
) -> list[ClipRule]:
    """The rules of the tensors that a training loop holds.

    Args:
        plan: The network.
        names: Canonical name of each tensor, or its own name if it is of another layer.
        shapes: Shape of each tensor, in the canonical layout.
        treat_as: For tensors of other layers: see `nfspec.agc`.

    Raises:
        InputError: The plan does not clip, or tensors are not known; the first 20 are named. Those
            of other layers beside the plan's are clipped like the classifier, with a warning,
            unless their names are nearly those of the plan's parameters.
    """
    require_agc(plan)
    treat_as = require_likeness(plan, treat_as)
    if len(names) != len(shapes):
        raise InputError(f"expected a name for each of {len(shapes)} tensors; found {len(names)}")
    wrong = [f"{name}: twice" for name, count in Counter(names).items() if count > 1]
    parts: dict[str, tuple[str, Role] | None] = {}
    strangers: dict[str, Sequence[int]] = {}
    for name, shape in zip(names, shapes, strict=True):
        if name in plan.parameters:
            parts[name] = name, plan.parameters[name].role
            if len(wrong) < 20 and (message := _mismatch(plan, name, shape)) is not None:
                wrong.append(message)
        elif (pattern := pattern_of(name, treat_as)) is not None:
            parts[name] = part_like(plan, treat_as[pattern])
        else:
            strangers[name] = shape
    if wrong:
        raise InputError("\n".join(wrong[:20]))
    if strangers:
        misspelt = any(get_close_matches(name, plan.parameters, 1, 0.9) for name in strangers)
        if misspelt or not parts:
            raise unknown_layers(strangers, plan.parameters)
        parts |= like_classifier(strangers)
    return [
        rule_like(plan.agc, parts[name], shape) for name, shape in zip(names, shapes, strict=True)
    ]


def part_like(plan: Plan, name: str | None) -> tuple[str, Role] | None:
    """Name and role of a parameter of the plan."""
    return None if name is None else (name, plan.parameters[name].role)


def rule_like(agc: AGC, part: tuple[str, Role] | None, shape: Sequence[int]) -> ClipRule:
    """The rule for a tensor that is clipped like a parameter; for None, not clipped."""
    return ClipRule(None, 1, None, agc.eps) if part is None else clip_rule(agc, *part, shape)
