"""`make strangers`: install implementations of other people, run the kit on them, print the matrix.

Each is installed at one version into a virtual environment of its own under build/strangers, which
also sees the project's packages: its frameworks are those, and no other PyTorch is ever fetched.
Nothing but the packages is downloaded.

A run that was interrupted goes on where it was, as long as the code is at the same commit. An
implementation that cannot be installed or run is a row of the matrix; the exit status is then 1.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from nfspec import files
from nfspec.conformance.cases.results import Results
from nfspec.conformance.conventions.matrix import PROPERTIES, markdown

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "strangers"
HERE = "conformance/strangers"
EXAMPLES = 0  # cases drawn for each property: the essential ones tell conventions apart
ORIGINAL = ("nfnet-f0", "nf-regnet-b0", "nf-resnet-50")
OF_TIMM = ("timm/dm_nfnet_f0", "timm/eca_nfnet_l0", "timm/nf_regnet_b0", "timm/nf_resnet50")
# Their dependencies by hand: pip would replace the project's frameworks by others.
KERAS_2 = (
    "tf-keras==2.21.0", "tqdm==4.70.1", "ftfy==6.3.1", "regex==2026.11.19", "wcwidth==0.9.4",
)  # fmt: skip


@dataclass(frozen=True)
class Stranger:
    """An implementation.

    Attributes:
        name: Name of its package, and of its environment.
        requirements: What is installed, each at one version.
        asked: (subject, spec) of each run.
        notes: What its source does that the tables cannot say, as Markdown.
    """

    name: str
    requirements: tuple[str, ...]
    asked: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


def _all(subject: str, *specs: str) -> tuple[tuple[str, str], ...]:
    return tuple((subject, spec) for spec in specs)


STRANGERS = (
    Stranger("timm", ("timm==1.0.31",), _all("timm", *ORIGINAL, *OF_TIMM)),
    Stranger("optax", ("optax==0.2.8",), _all("optax", "nfnet-f0", "timm/dm_nfnet_f0")),
    Stranger(
        "nfnets-pytorch",
        ("nfnets-pytorch==0.1.3",),
        tuple(
            (f"{HERE}/nfnets_pytorch.py:{subject}", spec)
            for subject in ("NFNetsPyTorch", "NFNetsPyTorchScaledStd")
            for spec in ("nf-resnet-50", f"{HERE}/nfnets_resnet50.toml")
        ),
        (
            "nfnets-pytorch's NFResNet keeps the ReLU after the stem's conv and lacks an "
            "activation before the global pool (`models/resnet.py`, lines 267 to 276), so that its "
            "network is that of no spec; its blocks are those of "
            "[nfnets_resnet50.toml](../strangers/nfnets_resnet50.toml).",
            "Its networks have no biases but the classifier's (line 54); the adapter gives their "
            "convs some by the argument `base_conv`.",
        ),
    ),
    Stranger(
        "keras-cv-attention-models",
        ("keras-cv-attention-models==1.4.3", *KERAS_2),
        _all(f"{HERE}/keras_cv.py:KerasCVAttention", "nfnet-f0", "timm/eca_nfnet_l0"),
        (
            "keras-cv-attention-models's networks pass no eps to their convs, which have 1e-5 "
            "under the rule `max` (`nfnets.py`, lines 49 and 70), also where they have timm's "
            "weights.",
        ),
    ),
    Stranger(
        "mule-torch",
        ("mule-torch==0.2.0",),
        _all(
            f"{HERE}/mule.py:MuleTorch",
            "nfnet-f0",
            f"{HERE}/mule_fast.toml",
            f"{HERE}/mule_fast_betas.toml",
        ),
        (
            "mule-torch's betas (`config.py`, `block_betas`): the first block of every stage but "
            "the first has 1/sqrt(1 + alpha²), and the blocks after it go on from there, where the "
            "original starts anew from 1. "
            "[mule_fast_betas.toml](../strangers/mule_fast_betas.toml) states them.",
            "SF-NFNet-F0 as a whole needs of the language: kernels and strides for each axis (1x3, "
            "3x1, downsampling of the frequencies alone); two pathways, and fusions that convolve "
            "one (1x7 with a stride of 4 frames, then 1x1) and concatenate it to the other before "
            "each stage; a projection in a stage's first block though neither width nor stride "
            "changes; an activation after the global pool, and no classifier. Until then its "
            "layers, its blocks without downsampling, and the fast pathway of such blocks are "
            "judged, with the square kernels that its constructors take.",
        ),
    ),
)


class NotRun(Exception):
    """The reason why an implementation could not be installed or run."""


def install(stranger: Stranger) -> Path:
    """The Python of an implementation's environment, made where it is not there yet.

    Raises:
        NotRun: pip could not install it.
    """
    venv = BUILD / stranger.name / "venv"
    python, stamp = venv / "bin" / "python", venv / "installed.txt"
    wanted = "\n".join(stranger.requirements)
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    _call([sys.executable, "-P", "-m", "venv", "--clear", "--without-pip", str(venv)])
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = sysconfig.get_path("purelib")
    link = venv / "lib" / version / "site-packages" / "project.pth"
    link.write_text(f"import site; site.addsitedir({packages!r})\n")
    pip = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    how = ["--no-deps", "--ignore-installed", "--constraint", str(ROOT / "requirements.lock")]
    _call([*pip, "--python", str(python), "install", *how, *stranger.requirements])
    stamp.write_text(wanted)
    return python


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise NotRun((told or done.stderr.splitlines() or [f"status {done.returncode}"])[-1])


def run(stranger: Stranger, python: Path, subject: str, spec: str, commit: str) -> Results:
    """The results of one run, from an earlier one of the same commit if there is one.

    Raises:
        NotRun: The kit ended without results.
    """
    name = f"{subject.rpartition(':')[2]}-{Path(spec).stem if spec.endswith('.toml') else spec}"
    out = BUILD / stranger.name / commit / name.replace("/", "-")
    finished = out.with_name(f"{out.name}.json")
    fresh = commit.endswith("-dirty")
    if finished.is_file() and not fresh:
        return Results.from_json(finished.read_text())
    began = out.is_dir() and any(out.iterdir()) and not fresh
    command = [
        str(python), "-P", "-m", "nfspec", "conform", spec, "--subject", subject, "--out", str(out),
        "--resume" if began else "--force", "--examples", str(EXAMPLES), "--json",
        "--properties", ",".join(PROPERTIES),
    ]  # fmt: skip
    paths = [os.environ.get("PYTHONPATH", ""), str(ROOT / "tests" / "standins")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    try:
        results = Results.from_json(done.stdout)
    except ValueError:
        told = done.stderr.splitlines() or [f"status {done.returncode}"]
        raise NotRun(f"the run ended without results: {told[-1]}") from None
    files.write(finished, done.stdout)
    return results


def runs(
    strangers: tuple[Stranger, ...], commit: str, problems: dict[str, str]
) -> Iterator[Results]:
    """The results of all runs; the reasons of those that have none are added to `problems`."""
    for stranger in strangers:
        print(f"{stranger.name}: installing", file=sys.stderr)
        try:
            python = install(stranger)
        except NotRun as error:
            problems[stranger.name] = f"it cannot be installed: {error}"
            continue
        for subject, spec in stranger.asked:
            print(f"{stranger.name}: {subject} asked for {spec}", file=sys.stderr)
            try:
                results = run(stranger, python, subject, spec, commit)
            except NotRun as error:
                problems[f"{stranger.name}, {spec}"] = str(error)
                continue
            print(f"{stranger.name}: {results.verdict}", file=sys.stderr)
            yield results
            for column in results.columns:
                if column.problem:
                    problems[f"{stranger.name}, {spec}"] = column.problem


def main(names: list[str]) -> int:
    """Run all implementations, or those named, and print the matrix; the exit status."""
    unknown = set(names) - {stranger.name for stranger in STRANGERS}
    if unknown:
        known = ", ".join(stranger.name for stranger in STRANGERS)
        print(f"no stranger {', '.join(sorted(unknown))}; expected {known}", file=sys.stderr)
        return 2
    described = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(described, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    problems: dict[str, str] = {}
    strangers = tuple(s for s in STRANGERS if not names or s.name in names)
    results = list(runs(strangers, commit or "unknown-dirty", problems))
    notes = [note for stranger in strangers for note in stranger.notes]
    text = markdown(results, problems, notes, datetime.now(UTC).date(), commit or "unknown")
    files.write(BUILD / "MATRIX.md", text)
    print(text, end="")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
