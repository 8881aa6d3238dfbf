"""`nfspec agc`: how adaptive gradient clipping and weight decay treat each tensor."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain, groupby
from typing import Annotated, Any

import typer

from nfspec.cli.options import Changes, SpecName, changed_by
from nfspec.console import WIDTH, bold, print_json, print_lines, table
from nfspec.language.loader import load
from nfspec.language.template import value_text
from nfspec.plan import Parameter, Plan
from nfspec.plan.clipping import ClipRule, clip_rules
from nfspec.plan.resolver import resolve

RULE = "a unit's norm(gradient) is cut to lambda * max(norm(weight), eps)"
UNITS = {
    "squeeze": "a kernel's output channel; a whole gain, bias or skip gain",
    "timm": "a kernel's output channel; each number of a gain; a whole bias",
    "output": "a kernel's output channel, even one of a single weight; a whole vector",
    "element": "a kernel's output channel; each number of a vector",
    "tensor": "a whole tensor",
}
LAYOUT = "HWIO"  # the axes of a conv kernel; those of a dense kernel are the last two


@dataclass(frozen=True)
class Tensor:
    """One row: a parameter, its clipping and its weight decay.

    `decay` is None where the spec has no recipe.
    """

    section: str
    parameter: Parameter
    rule: ClipRule
    decay: float | None


def _tensors(plan: Plan) -> list[Tensor]:
    """The parameters in order of execution, so that those of one section stand together."""
    rules, recipe = clip_rules(plan), plan.recipe
    return [
        Tensor(plan.section(op), p, rules[p.name], recipe.decay_of(p.role) if recipe else None)
        for op in plan.ops
        for p in op.parameters
    ]


def _norm_of(rule: ClipRule, rank: int) -> str:
    """The axes that one norm is taken over, as a word or as letters of the layout."""
    if rule.axes is None:
        return "all"
    return " ".join(LAYOUT[-rank:][axis] for axis in rule.axes) or "each"


def _row(tensor: Tensor) -> list[str]:
    parameter, rule = tensor.parameter, tensor.rule
    return [
        parameter.name.removeprefix(tensor.section),
        parameter.role,
        "x".join(map(str, parameter.shape)) or "scalar",
        _norm_of(rule, len(parameter.shape)),
        str(rule.units),
        f"{rule.clipping:g}" if rule.clipping is not None else "-",
        f"{tensor.decay:g}" if tensor.decay else "-",
    ]


def _rows(tensors: list[Tensor]) -> Iterator[str]:
    """Lines of the table, a heading for each section."""
    header = ["", "role", "shape", "norm of", "units", "lambda", "decay"]
    first, *lines = table([header, *map(_row, tensors)], "<<<<>>>")
    yield bold(first)
    for section, pairs in groupby(zip(tensors, lines, strict=True), lambda pair: pair[0].section):
        yield bold(section)
        yield from (line for _, line in pairs)


def _totals(plan: Plan, tensors: list[Tensor]) -> dict[str, int | None]:
    clipped = [t for t in tensors if t.rule.clipping is not None]
    return {
        "tensors": len(tensors),
        "clipped_tensors": len(clipped),
        "decayed_tensors": sum(bool(t.decay) for t in tensors) if plan.recipe else None,
        "units": sum(t.rule.units for t in tensors),
        "clipped_units": sum(t.rule.units for t in clipped),
    }


def _lambdas(plan: Plan) -> str:
    """Every lambda: the general one, those for roles, those for names."""
    agc = plan.agc
    roles = [f"{value:g} for the role {role}" for role, value in agc.roles.items()]
    names = [f"{value:g} for {value_text(name)}" for name, value in agc.names.items()]
    return ", ".join([f"{agc.clipping:g}", *roles, *names])


def _decay(plan: Plan) -> str:
    recipe = plan.recipe
    if recipe is None:
        return "no recipe"
    spared = " ".join(recipe.weight_decay_exclude)
    return f"{recipe.weight_decay:g}" + (f", not for the roles {spared}" if spared else "")


def _headline(plan: Plan, tensors: list[Tensor]) -> list[str]:
    agc, total = plan.agc, _totals(plan, tensors)
    decayed = ", {decayed_tensors:,} decayed" if plan.recipe else ""
    facts = {
        "agc": RULE if agc.enabled else "off, no gradient is clipped: agc.enabled = false",
        "lambda": _lambdas(plan) if agc.enabled else "",
        "eps": f"{agc.eps:g}" if agc.enabled else "",
        "unit": f"{agc.unit}: {UNITS[agc.unit]}",
        "excluded": " ".join(agc.exclude) if agc.enabled else "",
        "decay": _decay(plan),
        "tensors": ("{tensors:,}: {clipped_tensors:,} clipped" + decayed).format(**total),
        "units": "{units:,}: {clipped_units:,} clipped".format(**total),
    }
    wrap = textwrap.TextWrapper(WIDTH, subsequent_indent=" " * 10, break_on_hyphens=False)
    lines = [wrap.wrap(f"{name:<8}  {fact}") for name, fact in facts.items() if fact]
    return [bold(plan.name), *chain.from_iterable(lines)]


def _json(plan: Plan, tensors: list[Tensor]) -> dict[str, Any]:
    recipe = plan.recipe
    return {
        "name": plan.name,
        "digest": plan.digest,
        "agc": plan.agc.model_dump(),
        "weight_decay": recipe.weight_decay if recipe else None,
        "weight_decay_exclude": recipe.weight_decay_exclude if recipe else None,
        "totals": _totals(plan, tensors),
        "parameters": [
            {
                "name": t.parameter.name,
                "section": t.section,
                "role": t.parameter.role,
                "shape": t.parameter.shape,
                **asdict(t.rule),
                "decay": t.decay,
            }
            for t in tensors
        ],
    }


def agc(
    variant: SpecName,
    changes: Changes = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what clipping and weight decay do to each tensor.

    The columns are: role; shape (HWIO for conv kernels: height, width, in, out; IO for dense
    kernels); the axes of one norm (letters of the shape; "all" for the whole tensor, "each" for
    single numbers); the number of units, each of which has a norm; lambda; and weight decay. A
    dash means none. A name that begins with a dot continues the heading above it.

    Nothing in a file is run, whoever wrote it.
    """
    plan = resolve(load(variant, changed_by(changes)))
    tensors = _tensors(plan)
    if as_json:
        print_json(_json(plan, tensors))
    else:
        print_lines([*_headline(plan, tensors), "", *_rows(tensors)])
