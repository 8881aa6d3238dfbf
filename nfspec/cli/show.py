"""`nfspec show`: the numbers of a spec, block by block, or the origin of each of its values."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from itertools import chain
from typing import Annotated, Any

import typer

from nfspec.cli.blocks import block_table
from nfspec.cli.options import MAX_SIDE, Changes, SpecName, changed_by
from nfspec.console import WIDTH, bold, print_json, print_lines
from nfspec.errors import InputError
from nfspec.language.differences import spec_fields
from nfspec.language.loader import load
from nfspec.language.spec import Spec
from nfspec.language.template import path_text, resolved
from nfspec.plan import Activation, Plan, WSConv
from nfspec.plan.counting import Count, count
from nfspec.plan.resolver import resolve
from nfspec.wording import printable

WS_SCALE = {
    "max": "1 / sqrt(max(N * var, {eps:g}))",
    "add": "1 / sqrt(N * (var + {eps:g}))",
    "add_to_std": "1 / (sqrt(N) * (std + {eps:g}))",
    "none": "not standardised",
}


def _ws(plan: Plan) -> str:
    """The scale of weight standardisation: once, or with the parts of the network that have it."""
    parts: dict[str, list[str]] = {}
    for op in plan.ops:
        if isinstance(op, WSConv):
            scale = WS_SCALE[op.eps_rule].format(eps=op.eps)
            if op.eps_rule != "none":
                scale += f", N = fan-in, ddof {op.ddof}, {op.dtype}"
            scale += "" if op.gained else ", no gain"
            part = ".".join(plan.section(op).split(".")[:2])
            parts.setdefault(scale, []).append(part)
    if len(parts) == 1:
        return next(iter(parts))
    return "; ".join(f"{', '.join(dict.fromkeys(of))}: {scale}" for scale, of in parts.items())


def _activation(spec: Spec, plan: Plan) -> str:
    act = spec.activation
    carrier = Activation if act.gamma_at == "activation" else WSConv
    gamma = next(op.gamma for op in plan.ops if isinstance(op, carrier))
    source = f" ({act.gamma})" if isinstance(act.gamma, str) else ""
    slope = f" of slope {act.slope:g}" if act.kind == "leaky_relu" else ""
    return f"{act.kind}{slope}, gamma {gamma:.6g}{source} on the {act.gamma_at}, beta {act.beta_at}"


def _agc(spec: Spec) -> str:
    agc = spec.agc
    if not agc.enabled:
        return "off"
    lambdas = [f"{name} {value:g}" for name, value in (*agc.roles.items(), *agc.names.items())]
    excluded = [f"not {' '.join(agc.exclude)}"] if agc.exclude else []
    parts = [f"lambda {agc.clipping:g}", *lambdas, f"eps {agc.eps:g}", f"unit {agc.unit}"]
    return ", ".join(parts + excluded)


def _headline(spec: Spec, plan: Plan, counted: Count) -> list[str]:
    size = "{} x {} px".format(*counted.size)
    facts = {
        "source": spec.source,
        "digest": plan.digest[:16],
        "parameters": f"{counted.parameters:,}",
        "MACs": f"{counted.macs:,} at {size}",
        "activations": f"{counted.activation_bytes / 1e6:.1f} MB at {size}, one image, float32",
        "image": f"train {plan.train_size} px, test {plan.test_size} px, {plan.channels} channels",
        "activation": _activation(spec, plan),
        "ws": _ws(plan),
        "agc": _agc(spec),
    }
    wrap = textwrap.TextWrapper(WIDTH, subsequent_indent=" " * 13, break_on_hyphens=False)
    lines = [wrap.wrap(f"{name:<11}  {printable(fact)}") for name, fact in facts.items() if fact]
    return [bold(plan.name), *chain.from_iterable(lines)]


def _meaning(spec: Spec, plan: Plan, counted: Count) -> dict[str, Any]:
    """Every number that is derived from a spec, for programs."""
    return {
        "name": plan.name,
        "source": spec.source,
        "family": plan.family,
        "digest": plan.digest,
        "channels": plan.channels,
        "train_size": plan.train_size,
        "test_size": plan.test_size,
        "counts": asdict(counted),
        "blocks": [asdict(block) for block in plan.blocks],
        "taps": dict(plan.taps),
        "tap_info": {tap: asdict(info) for tap, info in plan.tap_info.items()},
        "ops": [{"op": type(op).__name__, **asdict(op)} for op in plan.ops],
        "parameters": [asdict(parameter) for parameter in plan.parameters.values()],
    }


def _origins(spec: Spec) -> dict[str, Any]:
    fields = {}
    for path, value in spec_fields(spec).items():
        origin = spec.origin(path)
        fields[path_text(path)] = {"value": value, **(asdict(origin) if origin else {})}
    return {"name": spec.name, "digest": spec.digest, "fields": fields}


def show(
    variant: SpecName,
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_SIDE,
            metavar="PX",
            help="Side of the images, px. Default: the spec's test size.",
        ),
    ] = None,
    origins: Annotated[
        bool, typer.Option("--resolved", help="Print every field, with its file and line.")
    ] = False,
    changes: Changes = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a spec's computed numbers, block by block.

    The columns of a block are: channels in, in the middle and out; groups; kernel; stride; alpha;
    beta; the expected standard deviation of its input at initialisation; hidden channels of SE or
    taps of ECA; rate of stochastic depth; parameters; and multiply-accumulates.

    Nothing in a file is run, whoever wrote it.
    """
    spec = load(variant, changed_by(changes))
    if origins:
        if size is not None:
            raise InputError("--size and --resolved cannot be given together")
        if as_json:
            print_json(_origins(spec))
        else:
            print_lines(resolved(spec))
        return
    plan = resolve(spec)
    counted = count(plan, size)
    if as_json:
        print_json(_meaning(spec, plan, counted))
    else:
        print_lines([*_headline(spec, plan, counted), "", *block_table(plan, counted)])
