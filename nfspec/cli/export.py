"""`nfspec export`: a network as a file for another runtime, proved in that runtime."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
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
from nfspec.conformance.quantising import Quantised, quantise
from nfspec.console import print_json, print_lines, say, table
from nfspec.errors import InputError
from nfspec.language.loader import load
from nfspec.outputs import FORCE_HELP
from nfspec.plan import Plan
from nfspec.plan.free_memory import require_free_memory
from nfspec.plan.initialise import Params
from nfspec.plan.resolver import resolve
from nfspec.training.folders import read_facts
from nfspec.weights.kinds import kind_of_file, read_fitting
from nfspec.weights.pretrained import weights_file
from nfspec.wording import sizes

ANY = "any"
ABLE = ", ".join(name for name, each in FORMATS.items() if each.quantise)
FORMAT_HELP = "; ".join(f"{name}: {each.summary}" for name, each in FORMATS.items())


def export(
    variant: Annotated[
        str,
        typer.Argument(
            metavar="SPEC|RUN",
            help="A built-in spec, the path of a .toml file, or the folder of a training, whose "
            "last weights and names of classes are taken.",
        ),
    ],
    to: Annotated[
        str, typer.Option("--to", metavar="NAME", help=f"Format of the file. {FORMAT_HELP}.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File to write. Default: the network's name in the current folder."
        ),
    ] = None,
    changes: Changes = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="WEIGHTS",
            help="File of weights, of nfspec, DeepMind or timm, or a name that "
            "nfspec list --pretrained prints, hf-hub:owner/name, or a URL. A classifier of other "
            "classes is drawn anew, and other input channels are made to fit. Default: those "
            "of the training, or for a spec weights that are drawn from --seed, for a test.",
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
        typer.Option(
            metavar="nhwc|nchw",
            help=f"Layout of images and of outputs with sides: {' or '.join(LAYOUTS)}.",
        ),
    ] = LAYOUTS[0],
    dtype: Annotated[
        str,
        typer.Option(
            metavar="f32|f16|bf16",
            help="Numbers of the file: f16 for weights and arithmetic, bf16 for weights alone. "
            "Images and outputs stay float32.",
        ),
    ] = DTYPES[0],
    int8: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGES",
            help=f"Write weights and arithmetic of int8 ({ABLE}), calibrated on half of these "
            "images, a folder or a pattern, and measured on the others. Such a file is near the "
            "network, never equal to it.",
        ),
    ] = None,
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
            metavar="NAMES",
            help="Outputs of the file, a list with commas: logits, pool, features, stem, or blocks "
            "such as stages.2.blocks.5.",
        ),
    ] = "logits",
    license: Annotated[
        str,
        typer.Option(
            "--license", metavar="TEXT", help="Licence of the weights, for the file's metadata."
        ),
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
            min=0,
            max=MAX_SEED,
            metavar="N",
            help="Random seed of the images that the file is proved with.",
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
    from the file alone. A file of --int8 is measured beside the float32 file instead.

    Nothing in a spec or a file of weights is run, whoever wrote it.
    """
    form = format_of(to)
    form.require()
    given = _given(variant, changes)
    plan = given.plan
    path = out or Path(f"{re.sub(r'[^A-Za-z0-9_.+-]', '-', plan.name)}{form.suffix}")
    form.require_free(path, force)
    sides, images = _size(size), _batch(batch)
    params = _params(plan, weights or given.weights, seed)
    if int8 is not None:
        if dtype != DTYPES[0] or keep:
            raise InputError("--int8: has no --dtype and no --keep")
        how: dict[str, Any] = {
            "layout": layout,
            "preprocess": preprocess,
            "outputs": names(outputs),
        }
        how |= {"size": sides, "batch": images, "license": license, "classes": given.classes}
        found = quantise(
            plan, to, path, params, int8, **how, force=force, seed=seed, progress=say
        )  # fmt: skip
        show_quantised(found, as_json)
        return
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
            classes=given.classes,
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


@dataclass(frozen=True)
class _Given:
    """A network as it was named.

    Attributes:
        plan: Its plan.
        weights: The weights of a training; None for a spec.
        classes: Names of a training's classes; empty for a spec.
    """

    plan: Plan
    weights: Path | None
    classes: tuple[str, ...]


def _given(variant: str, changes: list[str] | None) -> _Given:
    """A spec, or the folder of a training.

    Raises:
        InputError: It is neither.
    """
    path = Path(variant)
    if not path.is_dir():
        return _Given(resolve(load(variant, changed_by(changes))), None, ())
    facts = read_facts(path)
    plan = resolve(load(path / "spec.toml", changed_by(changes)))
    return _Given(plan, path / "weights.safetensors", tuple(facts.classes))


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


def show_quantised(found: Quantised, as_json: bool) -> None:
    """Print what int8 changed."""
    if as_json:
        print_json(asdict(found) | {"path": str(found.path), "same": False})
        return
    faster = found.float_seconds / found.seconds
    rows = [["layer", "distance"], *([name, f"{gap:.4f}"] for name, gap in found.layers.items())]
    agree = "" if found.agreement is None else f"{found.agreement:.1%} of the images"
    print_lines(
        [
            f"{found.network} in int8, {found.runtime}, calibrated on {found.calibration} images",
            f"Relative L2 distance to the float32 file on {found.held_out} other images:",
            "",
            *table(rows, "<>"),
            "",
            *([f"most probable class the same: {agree}"] if agree else []),
            f"size: {found.bytes / 1e6:.1f} MB, {found.bytes / found.float_bytes:.2f} of float32",
            f"time of {found.batch} images: {1e3 * found.seconds:.0f} ms, float32 "
            f"{1e3 * found.float_seconds:.0f} ms: {faster:.2f} times as fast",
            f"NOT EQUAL to {found.network}, as int8 never is; nfspec evaluate measures it",
            f"wrote {found.path}",
        ]
    )


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
        return f"THE SAME NETWORK: {proof.network} in {runtime} at {sizes(proof.sizes)}"
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
