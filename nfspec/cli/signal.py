"""`nfspec signal`: the variance that each block sees, beside the one that it should see."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from nfspec.arguments import MAX_SEED
from nfspec.cli.asking import counting
from nfspec.cli.options import MAX_SIDE, Changes, changed_by
from nfspec.console import WIDTH, print_json, print_lines, say, table
from nfspec.data.photos import photos
from nfspec.data.preprocessing import preprocess
from nfspec.design.gradients import gradient_norms
from nfspec.design.plots import plot as draw
from nfspec.design.reading import Reading, read
from nfspec.design.signal import Propagation, measure, noise, with_skip_gain
from nfspec.errors import InputError
from nfspec.language.loader import load
from nfspec.outputs import FORCE_HELP, require_free
from nfspec.plan import Plan
from nfspec.plan.initialise import Params, init
from nfspec.plan.resolver import resolve
from nfspec.training import frameworks
from nfspec.training.folders import RUN, read_facts
from nfspec.training.logs import NAME as LOG
from nfspec.training.logs import read as read_log
from nfspec.training.plots import require_matplotlib
from nfspec.weights.kinds import kind_of_file, read_fitting
from nfspec.weights.pretrained import weights_file
from nfspec.wording import printable

if TYPE_CHECKING:
    pass

NOISE = "noise"
MOST_IMAGES = 1_024
MOST_GAIN = 1e6


@dataclass(frozen=True)
class Measured:
    """The signal of one network, and what it was measured with."""

    name: str
    weights: str
    images: int
    signal: Propagation
    reading: Reading
    gradients: dict[str, float]
    clipped: dict[str, float]


def signal(
    specs: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC|RUN",
            help="Built-in specs, paths of .toml files, or folders that `nfspec train` wrote.",
        ),
    ],
    images: Annotated[
        str, typer.Option(metavar="DIR", help="Folder of images, or noise: normal numbers.")
    ] = NOISE,
    weights: Annotated[
        str | None,
        typer.Option(
            help="File of trained weights, for a single SPEC, or a name that nfspec list "
            "--pretrained prints. Default: fresh ones, from --seed."
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--framework",
            "--backend",
            help="jax, torch or tensorflow, in float32. Default: the float64 reference.",
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", min=1, max=MOST_IMAGES, help="Images to take.")
    ] = 8,
    size: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_SIDE, help="Side of the images, px. Default: the spec's training size."
        ),
    ] = None,
    skip_gain: Annotated[
        float,
        typer.Option(
            min=0.0, max=MOST_GAIN, help="Skip gain of fresh networks; training starts from 0."
        ),
    ] = 1.0,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Random seed of fresh weights and of noise.")
    ] = 0,
    folded: Annotated[
        bool, typer.Option("--folded", help="Measure the folded network, as inference has it.")
    ] = False,
    gradients: Annotated[
        bool,
        typer.Option("--gradients", help="Show gradients' norms by block, too, for random labels."),
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="PNG file to write.")] = None,
    changes: Changes = None,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the variance that each block sees beside the one that it should see.

    The columns are, after the stem and after each block: the variance that the plan expects at
    initialisation; the variance of a channel, mean over channels; the squared mean of a channel;
    and the variance of the block's residual branch (Brock et al. 2021, arXiv:2101.08692 §2). Then
    it says what to make of them. Dropout and stochastic depth are off.

    Nothing in a spec, image or file of weights is run, whoever wrote it.
    """
    if plot is not None:
        require_free(plot, force)
        require_matplotlib()
    if weights is not None and len(specs) > 1:
        raise InputError("--weights: for one SPEC; several have each their own weights")
    if backend is not None:
        frameworks.start(backend)
    over = changed_by(changes)
    found: list[Measured] = []
    for spec in specs:
        run = spec if (Path(spec) / RUN).exists() else None
        plan = resolve(load(str(Path(run) / "spec.toml") if run else spec, over))
        params, about = _params(plan, run, weights, skip_gain, seed)
        x = _images(plan, images, count, size, seed)
        with counting(len(x)) as step:
            measured = measure(
                plan,
                params,
                x,
                backend=backend,  # type: ignore[arg-type]  # text that was checked
                folded=folded,
                step=step,
            )
        trained = weights is not None or run is not None
        norms = gradient_norms(plan, params, x, seed) if gradients else {}
        reading = read(measured, params, trained)
        found.append(Measured(plan.name, about, len(x), measured, reading, norms, _clipped(run)))
    if plot is not None:
        require_free(plot, force)  # again: a file may have come to be there meanwhile
        draw(_named(found), plot)
    where = f"{NOISE}, seed {seed}" if images == NOISE else images
    if as_json:
        print_json(_finite([_json(each, where) for each in found]))
        return
    for n, each in enumerate(found):
        print_lines([*([""] if n else []), *_lines(each, where)])
    if plot is not None:
        print_lines([f"wrote  {printable(str(plot))}"])


def _params(
    plan: Plan, run: str | None, weights: str | None, skip_gain: float, seed: int
) -> tuple[Params, str]:
    """Parameters, and words for them."""
    if run is None and weights is None:
        return with_skip_gain(plan, init(plan, seed), skip_gain), (
            f"fresh weights, seed {seed}, skip gains {skip_gain:g}"
        )
    if run is not None:
        read_facts(Path(run))
    source = weights or str(Path(run or "") / "weights.safetensors")
    file = weights_file(source, say)
    return read_fitting(file, plan, kind_of_file(file)).params, f"weights: {source}"


def _images(plan: Plan, images: str, count: int, size: int | None, seed: int) -> Any:
    """Images (N, H, W, C): noise, or as many of a folder, evenly from all of it."""
    side = size or plan.train_size
    if images == NOISE:
        return noise(plan, count, side, seed)
    names = photos(images).names
    chosen = sorted({round(n) for n in np.linspace(0, len(names) - 1, min(count, len(names)))})
    return preprocess(plan, side)([names[n] for n in chosen])


def _clipped(run: str | None) -> dict[str, float]:
    """The clip fraction of each stage of a training, mean over its last tenth of steps."""
    if run is None:
        return {}
    steps = [each for each in read_log(Path(run) / LOG, say) if "clip_fraction_of" in each]
    last = steps[-max(1, len(steps) // 10) :]
    stages = dict.fromkeys(stage for each in last for stage in each["clip_fraction_of"])
    return {
        stage: float(np.mean([each["clip_fraction_of"].get(stage, 0.0) for each in last]))
        for stage in stages
    }


def _named(found: list[Measured]) -> dict[str, Propagation]:
    """Signals by name, and by a number, too, where two have one name."""
    names = [each.name for each in found]
    return {
        each.name if names.count(each.name) == 1 else f"{each.name} ({n})": each.signal
        for n, each in enumerate(found, 1)
    }


def _finite(value: Any) -> Any:
    """Data in which numbers that JSON has none for are null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(each: Measured, images: str) -> dict[str, Any]:
    signal = each.signal
    return {
        "name": each.name,
        "weights": each.weights,
        "images": images,
        "count": each.images,
        "size": signal.size,
        "image_power": signal.image_power,
        "as_expected": each.reading.as_expected,
        "faults": each.reading.faults,
        "notes": each.reading.notes,
        "signals": [asdict(row) for row in signal.signals],
        "convs": [asdict(row) for row in signal.convs],
        "gates": [asdict(row) for row in signal.gates],
        "pools": signal.pools,
        "gradient_norms": each.gradients,
        "clip_fractions": each.clipped,
    }


def _lines(each: Measured, images: str) -> list[str]:
    size = " x ".join(map(str, each.signal.size))
    rows = [
        ["", "expected", "variance", "mean^2", "branch", *(["gradient"] * bool(each.gradients))]
    ]
    for row in each.signal.signals:
        branch = "" if row.res_avg_var is None else _short(row.res_avg_var)
        cells = [row.tap, f"{row.expected_variance:.3f}", _short(row.avg_var)]
        norm = [_short(each.gradients[row.tap])] if each.gradients else []
        rows.append([*cells, _short(row.avg_sq_mean), branch, *norm])
    if each.gradients:
        rows.append(["head", "", "", "", "", _short(each.gradients["head"])])
    clipped = [f"{stage} {share:.1%}" for stage, share in each.clipped.items()]
    verdict = "AS EXPECTED" if each.reading.as_expected else "NOT AS EXPECTED"
    first, *rest = (*each.reading.faults, *each.reading.notes)
    return [
        f"{each.name}: {each.images} images of {size} px ({images})",
        each.weights,
        "",
        *table(rows, "<" + ">" * (len(rows[0]) - 1)),
        "",
        *(_wrapped(f"clipped at the training's end: {', '.join(clipped)}") if clipped else []),
        *_wrapped(f"{verdict}: {first}" if not _describes(each) else first),
        *(line for text in rest for line in _wrapped(f"- {text}", "  ")),
    ]


def _describes(each: Measured) -> bool:
    """Tell whether nothing was expected: of trained and folded networks."""
    return each.weights.startswith("weights: ") or not each.signal.convs


def _short(value: float) -> str:
    return f"{value:.3f}" if 0.01 <= value < 1000 else f"{value:.2g}"


def _wrapped(text: str, indent: str = "") -> list[str]:
    import textwrap

    return textwrap.wrap(
        printable(text), WIDTH, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
