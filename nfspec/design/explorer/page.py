"""The page of the explorer: its data, packed, in the template with its style and scripts."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nfspec.arguments import flag, instance, whole
from nfspec.console import compact, cut
from nfspec.cost.accelerators import named
from nfspec.cost.memory import width_of
from nfspec.design.candidates import training
from nfspec.design.explorer.networks import Data, Networks, Shown
from nfspec.errors import BackendError, InputError
from nfspec.generation.source import generate_all
from nfspec.generation.targets import TARGETS
from nfspec.language.differences import same
from nfspec.language.loader import load, variants
from nfspec.language.spec import Spec
from nfspec.plan.resolver import resolve
from nfspec.wording import printable

FOLDER = Path(__file__).parent
SCRIPTS = ("d3.min.js", "plot.umd.min.js", "charts.js", "drawing.js", "explorer.js")
DEVICES = ("tpu-v3", "v100", "a100-80gb", "h100")
BATCH = 256  # images in a step
PRECISION = "bfloat16"
LONGEST = 60  # characters of a training's name
MOST_GIVEN = 200  # a page of so many has less than 5 MB


def explore(
    specs: Sequence[Spec] = (),
    *,
    runs: Sequence[str | Path] = (),
    only: bool = False,
    accelerators: Sequence[str] = DEVICES,
    batch: int = BATCH,
    precision: str = PRECISION,
    step: Callable[[str], None] = lambda done: None,
) -> str:
    """Make a page of HTML to look at networks, and to compare them.

    It shows their sizes, costs, accuracies, drawings, expected signals, clipping, specs and
    sources. It is one file, and loads nothing.

    Args:
        specs: What `nfspec.load` returned.
        runs: Folders that `nfspec train` wrote; the top-1 is the highest of the log.
        only: Show these alone; the built-in networks are shown beside them otherwise.
        accelerators: Devices whose time of a training step is estimated.
        batch: Images in a step, on one device.
        precision: Dtype of a step: float32, bfloat16 or float16.
        step: Called before each part of the work with what it is.

    Raises:
        InputError: An argument has a wrong type or value, there is no network to show, or too
            many are given; or a folder has no training.
        SpecError: The spec in a folder of a training is none.
        BackendError: Jinja2 or ruff is not installed.
    """
    devices = [_measured(name) for name in accelerators]
    whole("batch", batch, 1, "images")
    width_of(precision)
    shown = _shown(specs, runs, flag("only", only))
    different = _different(shown)
    plans = [resolve(each.spec) for each in different.values()]
    sources = {}
    for target in TARGETS:
        step(f"writing sources for {target} ...")
        sources[target] = packed(generate_all(plans, target))
    found = Networks(devices, batch, precision)
    step("estimating and drawing ...")
    files = {spec: number for number, spec in enumerate(different)}
    networks = [found.data(each) | {"file": files[each.spec.model_dump_json()]} for each in shown]
    data = {
        "devices": [device.name for device in devices],
        "batch": batch,
        "precision": precision,
        "targets": {name: target.summary for name, target in TARGETS.items()},
        "networks": networks,
        "parts": found.parts,
    }
    return _html(networks, packed(data), sources, data)


def _shown(specs: Sequence[Spec], runs: Sequence[str | Path], only: bool) -> list[Shown]:
    """The networks of a page, each with a name of its own: built-in ones, specs and trainings."""
    for spec in specs:
        instance("specs", spec, Spec, "nfspec.load")
    given = len(specs) + len(runs)
    if given > MOST_GIVEN:
        raise InputError(f"{given:,} networks are too many for a page; give {MOST_GIVEN} at most")
    known = {} if only else {name: load(name) for name in variants()}
    shown = [Shown(name, spec) for name, spec in known.items()]
    names = {*known}
    for spec in specs:
        if spec.name not in known or not same(spec, known[spec.name]):
            shown.append(Shown(_free(spec.name, names), spec, own=True))
    for run in map(training, map(Path, runs)):
        name = _free(cut(run.name, LONGEST), names)
        shown.append(Shown(name, run.spec, own=True, run=run))
    if not shown:
        raise InputError("no network to show; give a spec, or leave out only")
    return shown


def _different(shown: Sequence[Shown]) -> dict[str, Shown]:
    """The first of all that have one spec, such as the seeds of a sweep, by the spec as text."""
    first: dict[str, Shown] = {}
    for each in shown:
        first.setdefault(each.spec.model_dump_json(), each)
    return first


def _measured(name: str) -> Any:
    if name == "cpu":
        raise InputError("accelerators: the cpu is measured by nfspec cost --accelerator cpu alone")
    return named(name)


def _free(name: str, taken: set[str]) -> str:
    """A name that is not taken yet, and takes it: the name, or the name with a number."""
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name} ({number})"
    taken.add(found)
    return found


def packed(data: object) -> str:
    """Data as JSON, compressed, in base64: letters that cannot end an element of a page."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _html(networks: Sequence[Data], data: str, sources: dict[str, str], settings: Data) -> str:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise BackendError("explore needs Jinja2; run: pip install jinja2") from None
    scripts = [(FOLDER / name).read_text(encoding="utf-8").strip("\n") for name in SCRIPTS]
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("explorer.html.j2").render(
        networks=networks,
        own=sum(network["own"] for network in networks),
        settings=settings,
        compact=compact,
        data=Markup(data),
        sources={name: Markup(text) for name, text in sources.items()},
        style=Markup((FOLDER / "explorer.css").read_text(encoding="utf-8")),
        scripts=[Markup(text) for text in scripts],
        # No other script runs, whatever stands in the page.
        policy=Markup(" ".join(f"'sha256-{_digest(text)}'" for text in scripts)),
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
