"""`nfspec export`: a network as a file for another runtime, proved in that runtime."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from nfspec.arguments import MAX_SEED
from nfspec.backends.exporters.formats import FORMATS, format_of
from nfspec.backends.exporters.settings import DTYPES, LAYOUTS
from nfspec.cli.options import MAX_IMAGES, MAX_SIDE, Changes, changed_by, names
from nfspec.conformance.cases.weights import trial_params
from nfspec.conformance.exporting import Proof, ProofError
from nfspec.conformance.exporting import export as exported
from nfspec.console import print_json, print_lines, say, table
from nfspec.errors import InputError
from nfspec.language.loader import load
from nfspec.outputs import FORCE_HELP
from nfspec.plan import Plan
from nfspec.plan.free_memory import require_free_memory
from nfspec.plan.initialise import Params
from nfspec.plan.resolver import resolve
from nfspec.weights.kinds import kind_of_file, read_fitting
from nfspec.weights.pretrained import weights_file

ANY = "any"
FORMAT_HELP = "; ".join(f"{name}: {each.summary}" for name, each in FORMATS.items())


def export(
    variant: Annotated[
        str, typer.Argument(metavar="VARIANT", help="A built-in spec, or the path of a .toml file.")
    ],
    to: Annotated[str, typer.Option("--to", help=f"Format of the file. {FORMAT_HELP}.")],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write. Default: the network's name in the current folder."),
    ] = None,
    changes: Changes = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="File of weights, of nfspec, DeepMind or timm, or a name that "
            "nfspec list --pretrained prints, hf-hub:owner/name, or a URL. A classifier of other "
            "classes is drawn anew, and other input channels are made to fit. Default: weights "
            "drawn from --seed, for a test."
        ),
    ] = None,
    size: Annotated[
        str,
        typer.Option(
            metavar="any|PX|HxW",
            help="Images that the file takes: of any size, of one side in px, or of one height and "
            "width.",
        ),
    ] = ANY,
    batch: Annotated[
        str, typer.Option(metavar="any|N", help="Number of images that the file takes at a time.")
    ] = ANY,
    layout: Annotated[
        str,
        typer.Option(help=f"Layout of images and of outputs with sides: {' or '.join(LAYOUTS)}."),
    ] = LAYOUTS[0],
    dtype: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(DTYPES)}. f16: weights and arithmetic; bf16: weights alone. Images "
            "and outputs stay float32."
        ),
    ] = DTYPES[0],
    preprocess: Annotated[
        bool,
        typer.Option(
            "--preprocess",
            help="Take pixels, uint8, and normalise them in the file, as the spec "
            "says. Images of the right size are still yours to make.",
        ),
    ] = False,
    outputs: Annotated[
        str,
        typer.Option(
            help="Outputs of the file, a list with commas: logits, pool, features, stem, or blocks "
            "such as stages.2.blocks.5."
        ),
    ] = "logits",
    license: Annotated[
        str, typer.Option("--license", help="Licence of the weights, for the file's metadata.")
    ] = "",
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Keep a file that is not the network, under a name with .failed in it."
        ),
    ] = False,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=MAX_SEED, help="Random seed of the images that the file is proved with."
        ),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """Write a network as a file for another runtime, and prove the file.

    The file is for inference: its convs are plain, and no weight standardisation is left in it. It
    is run in its own runtime before it has its name, at several sizes of images, odd and even, and
    every output is compared with the float64 reference. A file that is not the network within the
    bound is deleted, and the exit status is 1. `nfspec verify FILE` repeats the comparison later
    from the file alone.

    Nothing in a spec or a file of weights is run, whoever wrote it.
    """
    form = format_of(to)
    form.require()
    plan = resolve(load(variant, changed_by(changes)))
    path = out or Path(f"{re.sub(r'[^A-Za-z0-9_.+-]', '-', plan.name)}{form.suffix}")
    form.require_free(path, force)
    sides, images = _size(size), _batch(batch)
    params = _params(plan, weights, seed)
    kept = None
    try:
        proof = exported(
            plan,
            to,
            path,
            params,
            size=sides,
            batch=images,
            layout=layout,
            dtype=dtype,
            preprocess=preprocess,
            outputs=names(outputs),
            license=license,
            force=force,
            keep=keep,
            seed=seed,
            progress=say,
        )
    except ProofError as error:
        proof, kept = error.proof, error.kept
    show(proof, as_json)
    if proof.same and not as_json:
        print_lines([f"wrote {path}"])
    if not proof.same:
        say(
            f"{path} was not written; the file is kept as {kept}"
            if kept
            else f"{path} was not written; --keep keeps such a file"
        )
        raise typer.Exit(1)


def _size(text: str) -> tuple[int, int] | None:
    sides = text.split("x") if "x" in text else [text, text]
    return None if text == ANY else _numbers("--size", sides, MAX_SIDE, "any, a side in px, or HxW")


def _batch(text: str) -> int | None:
    return (
        None if text == ANY else _numbers("--batch", [text] * 2, MAX_IMAGES, "any or a number")[0]
    )


def _numbers(option: str, texts: list[str], most: int, expected: str) -> tuple[int, int]:
    """Two whole numbers.

    Raises:
        InputError: There are not two, or one is not from 1 to `most`.
    """
    good = all(len(each) < 10 and each.isascii() and each.isdigit() for each in texts)
    if len(texts) != 2 or not good or not all(1 <= int(each) <= most for each in texts):
        raise InputError(
            f"{option}: expected {expected}, at most {most:,}; found {texts[0][:30]!r}"
        )
    return int(texts[0]), int(texts[1])


def _params(plan: Plan, path: Path | None, seed: int) -> Params:
    if path is None:
        say(f"weights: drawn from seed {seed}; --weights FILE exports those of a file")
        return trial_params(plan, seed)
    path = weights_file(path, say)
    require_free_memory(plan, "read the weights of", 2)
    fitted = read_fitting(path, plan, kind_of_file(path))
    for change in fitted.changes:
        say(change)
    return fitted.params


def show(proof: Proof, as_json: bool) -> None:
    """Print a proof."""
    if as_json:
        print_json(_data(proof))
    else:
        print_lines(_report(proof))


def _report(proof: Proof) -> list[str]:
    problems = dict.fromkeys((row.runtime, row.problem) for row in proof.rows if row.problem)
    return [
        *_facts(proof),
        "Distance of each output to the float64 reference, relative L2 norm; bound:",
        "3 times what rounding of every operation does to the reference itself.",
        "",
        *_table(proof),
        "",
        *(f"{runtime}: {_first(problem)}" for runtime, problem in problems),
        *(_verdict(proof, runtime) for runtime in proof.runtimes),
        *([note] if (note := FORMATS[proof.format].note) else []),
    ]


def _table(proof: Proof) -> list[str]:
    """A line for each output at each size, with a column for each runtime."""
    short = [each.split()[0] for each in proof.runtimes]
    cells: dict[tuple[str, str], list[str]] = {}
    for row in proof.rows:
        mark = "" if row.within else " !"
        line = cells.setdefault((row.size, row.output), [f"{row.bound:.1e}"])
        line.insert(-1, f"{row.distance:.1e}{mark}")
    lines = [["images", "output", *short, "bound"]]
    lines += [[*key, *line] for key, line in cells.items()]
    return table(lines, "<<" + ">" * (1 + len(short)))


def _first(problem: str) -> str:
    return problem.strip().splitlines()[0][:300]


def _facts(proof: Proof) -> list[str]:
    share = proof.bytes / proof.weights
    lines = [f"{proof.network}: {proof.bytes / 1e6:,.1f} MB, {share:.3f} times its weights"]
    if proof.facts and proof.facts.nodes:
        nodes = sorted(proof.facts.nodes.items(), key=lambda each: (-each[1], each[0]))
        total = sum(proof.facts.nodes.values())
        opset = proof.facts.opset and f"{proof.facts.opset}, "
        lines.append(f"{opset}{total} nodes:")
        lines += [f"  {count:5}  {kind}" for kind, count in nodes]
    return [*lines, ""]


def _verdict(proof: Proof, runtime: str) -> str:
    wrong = proof.first_beyond(runtime)
    if wrong is None:
        return f"THE SAME NETWORK: {proof.network} in {runtime} at {proof.sizes} sizes"
    what = "does not run" if wrong.problem else "leaves the bound"
    advice = "" if runtime == proof.runtimes[0] else "; do not run the file there"
    return f"NOT THE SAME: {proof.network} in {runtime} {what} at {wrong.size}{advice}"


def _data(proof: Proof) -> dict[str, Any]:
    return {
        "network": proof.network,
        "format": proof.format,
        "file": str(proof.path),
        "runtimes": list(proof.runtimes),
        "note": FORMATS[proof.format].note or None,
        "same": proof.same,
        "bytes": proof.bytes,
        "weights_bytes": proof.weights,
        "opset": proof.facts.opset if proof.facts else None,
        "nodes": dict(proof.facts.nodes) if proof.facts else None,
        "rows": [
            {
                "batch": row.batch,
                "height": row.height,
                "width": row.width,
                "output": row.output,
                "runtime": row.runtime,
                "distance": row.distance if row.distance < float("inf") else None,
                "bound": row.bound,
                "within": row.within,
                "problem": row.problem or None,
            }
            for row in proof.rows
        ],
    }
