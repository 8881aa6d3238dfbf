"""From a plan to the text of a file."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from nfspec.arguments import refuse
from nfspec.errors import BackendError
from nfspec.generation.blocks import number
from nfspec.generation.targets import target_of
from nfspec.generation.view import view
from nfspec.language.spec import Spec
from nfspec.plan import Plan
from nfspec.plan.resolver import resolve
from nfspec.rewrites.folding import Folded

LINE_LENGTH = 100


def plan_of(spec: Spec | Plan | Folded) -> Plan:
    """The plan of a spec, or of what was folded, or the plan itself.

    Raises:
        InputError: Something else, or a spec of which no network can be made.
    """
    if isinstance(spec, Plan):
        return spec
    if isinstance(spec, Folded):
        return spec.plan
    if not isinstance(spec, Spec):
        raise refuse("spec", "what nfspec.load, nfspec.resolve or nfspec.fold returns", spec)
    return resolve(spec)


def generate(spec: Spec | Plan | Folded, *, to: str) -> str:
    """A network as plain source: one formatted file that needs its framework and nothing else.

    The same spec gives the same bytes, with the same versions of nfspec, Jinja2 and ruff.

    Args:
        spec: What `nfspec.load`, `nfspec.resolve` or `nfspec.fold` returned. The file of a folded
            network is for inference alone: plain convs, and nothing that trains.
        to: Name of a target, one of `nfspec.generation.targets.TARGETS`, such as `torch`.

    Raises:
        InputError: The target is not known, or the plan is rewritten.
        SpecError: No network can be made of the spec.
        BackendError: Jinja2 or ruff is not installed.
    """
    return generate_all([plan_of(spec)], to)[0]


def generate_all(plans: Sequence[Plan], to: str) -> list[str]:
    """The sources of several networks, as `generate` writes each, formatted in one go.

    Raises:
        InputError, BackendError: As of `generate`.
    """
    template = _environment().get_template(f"{target_of(to).name}/network.py.jinja")
    return _formatted([template.render(net=view(plan), plan=plan) for plan in plans])


@cache
def _environment() -> Any:
    jinja2 = _jinja2()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = number
    return environment


def _jinja2() -> ModuleType:
    try:
        import jinja2
    except ImportError:
        raise _missing("Jinja2") from None
    return jinja2


def _missing(package: str) -> BackendError:
    return BackendError(
        f"generate needs {package}, which is not installed; run: pip install jinja2 ruff"
    )


def _formatted(texts: Sequence[str]) -> list[str]:
    """Texts as `ruff format` writes them.

    Raises:
        BackendError: ruff is not installed.
    """
    if find_spec("ruff") is None:
        raise _missing("ruff")
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"network{number}.py") for number in range(len(texts))]
        for file, text in zip(files, texts, strict=True):
            file.write_bytes(text.encode())
        # -P: no module of the present folder; ruff's own configuration files are not looked for.
        done = subprocess.run(
            [
                *(sys.executable, "-P", "-m", "ruff", "format", "--isolated", "--no-cache"),
                *("--line-length", str(LINE_LENGTH), "--target-version", "py311", folder),
            ],
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        if done.returncode:
            raise RuntimeError(f"the generated source is not Python: {done.stderr}")
        return [file.read_bytes().decode() for file in files]
