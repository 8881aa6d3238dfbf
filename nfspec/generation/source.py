"""From a plan to the text of a file."""

from __future__ import annotations

import subprocess
import sys
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
    plan = plan_of(spec)
    template = _environment().get_template(f"{target_of(to).name}/network.py.jinja")
    text = template.render(net=view(plan), plan=plan)
    return _formatted(text)


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


def _formatted(text: str) -> str:
    """The text as `ruff format` writes it.

    Raises:
        BackendError: ruff is not installed.
    """
    if find_spec("ruff") is None:
        raise _missing("ruff")
    # -P: no module of the present folder; ruff's own configuration files are not looked for.
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "ruff", "format", "--isolated", "--no-cache"),
            *("--line-length", str(LINE_LENGTH), "--target-version", "py311"),
            *("--stdin-filename", "network.py", "-"),
        ],
        input=text,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    if done.returncode:
        raise RuntimeError(f"the generated source is not Python: {done.stderr}")
    return done.stdout
