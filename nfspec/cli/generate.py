"""`nfspec generate`: a network as plain source in a framework."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nfspec.arguments import MAX_SEED
from nfspec.cli.options import Changes, SpecName, changed_by
from nfspec.console import print_lines, print_text, say, table
from nfspec.errors import InputError
from nfspec.files import write
from nfspec.generation.native import native
from nfspec.generation.source import generate as source_of
from nfspec.generation.targets import TARGETS, target_of
from nfspec.language.loader import load
from nfspec.outputs import FORCE_HELP, require_free
from nfspec.plan import Plan
from nfspec.plan.free_memory import require_free_memory
from nfspec.plan.initialise import Params
from nfspec.plan.resolver import resolve
from nfspec.rewrites.folding import fold, fold_plan
from nfspec.weights.kinds import kind_of_file, read_fitting
from nfspec.weights.pretrained import weights_file
from nfspec.weights.store import save
from nfspec.wording import sizes

if TYPE_CHECKING:
    from nfspec.conformance.proof import Row

TARGET_HELP = "; ".join(f"{name}: {target.summary}" for name, target in TARGETS.items())


def generate(
    variant: SpecName,
    to: Annotated[
        str, typer.Option("--to", metavar="NAME", help=f"Framework of the source. {TARGET_HELP}.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write. Default: the source is printed."),
    ] = None,
    changes: Changes = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="WEIGHTS",
            help="File of weights, of nfspec, DeepMind or timm, or a name that "
            "nfspec list --pretrained prints, hf-hub:owner/name, or a URL. They are written beside "
            "--out, in the form that the source loads, and --check uses them. A classifier of "
            "other classes is drawn anew, and other input channels are made to fit.",
        ),
    ] = None,
    folded: Annotated[
        bool,
        typer.Option(
            "--folded",
            help="The network for inference alone: plain convs, their kernels standardised once. "
            "The weights are folded as nfspec.fold does it.",
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Run the source, and compare its logits with the float64 reference at several "
            "sizes before anything is written; exit status 1 where they differ.",
        ),
    ] = False,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_SEED,
            metavar="N",
            help="Random seed of the images, and weights, of --check.",
        ),
    ] = 0,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """Write a network as plain source in a framework.

    The source is one file that needs its framework and nothing else. The same spec gives the same
    file. nfspec.native gives the same network as an object.

    Nothing in a spec or a file of weights is run, whoever wrote it.
    """
    target_of(to)
    plan = resolve(load(variant, changed_by(changes)))
    if weights is not None and out is None and not check:
        raise InputError("--weights: give --out or --check, too; the source alone has no weights")
    outputs = [] if out is None else [out]
    if out is not None and weights is not None:
        outputs.append(out.with_suffix(".safetensors"))
    for path in outputs:
        require_free(path, force)
    source = source_of(fold_plan(plan) if folded else plan, to=to)
    params = _read(plan, weights_file(weights, say)) if weights is not None else None
    if check and not _checked(Checked(plan, to, folded, seed), params, out is None):
        raise typer.Exit(1)
    if out is None:
        print_text(source.rstrip("\n"))
        return
    for path in outputs:
        require_free(path, force)  # again: a file may have come to be there meanwhile
    write(out, source)
    print_lines([f"wrote {out}: {plan.name} for {to}, {source.count(chr(10))} lines"])
    if params is not None:
        if folded:
            network = fold(plan, params)
            plan, params = network.plan, network.params
        save(outputs[1], plan, params)
        print_lines([f"wrote {outputs[1]}: its weights"])


def _read(plan: Plan, path: Path) -> Params:
    require_free_memory(plan, "read the weights of", 2)
    fitted = read_fitting(path, plan, kind_of_file(path))
    for change in fitted.changes:
        say(change)
    return fitted.params


@dataclass(frozen=True)
class Checked:
    """The run of --check: a network, the target, if it is folded, and the seed of its images."""

    plan: Plan
    to: str
    folded: bool
    seed: int


def _checked(given: Checked, params: Params | None, aside: bool) -> bool:
    """Compare the source with the reference, and print how far apart they are.

    Args:
        given: The source.
        params: Weights of the network, not folded; drawn from the seed if not given.
        aside: Print to stderr, since the source goes to stdout.
    """
    from nfspec.conformance.cases.weights import trial_params
    from nfspec.conformance.proof import prove

    plan, to = given.plan, given.to
    require_free_memory(plan, "check the source of", 5 if given.folded else 4)
    params = trial_params(plan, given.seed) if params is None else params
    target = target_of(to)
    spec = fold(plan, params) if given.folded else plan
    network = native(spec, to, params=None if given.folded else params)
    rows = prove(plan, params, lambda images: target.logits(network, images), say, seed=given.seed)
    lines = _report(plan, to, rows)
    if aside:
        say("\n".join(lines))
    else:
        print_lines(lines)
    return all(row.within for row in rows)


def _report(plan: Plan, to: str, rows: tuple[Row, ...]) -> list[str]:
    cells = [["images", "distance", "bound"]]
    for row in rows:
        mark = "" if row.within else " !"
        size = f"{row.batch} x {row.height} x {row.width} px"
        cells.append([size, f"{row.distance:.1e}{mark}", f"{row.bound:.1e}"])
    beyond = [row for row in rows if not row.within]
    verdict = f"THE SAME NETWORK: {plan.name} for {to} at {sizes(len(rows))}"
    if beyond:
        size = f"{beyond[0].height} x {beyond[0].width} px"
        verdict = f"NOT THE SAME: {plan.name} for {to} leaves the bound at {size}"
    return [
        "Distance of the logits to the float64 reference, relative L2 norm; bound:",
        "3 times what float32 rounding of every operation does to the reference itself.",
        "",
        *table(cells, "<>>"),
        "",
        verdict,
    ]
