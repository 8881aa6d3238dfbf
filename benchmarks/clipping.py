"""The effect of adaptive gradient clipping: one network at many learning rates and batch sizes,
with it and without.

    python -m nfspec.benchmarks.clipping FOLDER

writes AGC.md, agc.json and agc.png. NFNet-nano on scikit-learn's digits, on PyTorch, ten minutes on
two cores. Interrupted, it goes on with what is not in agc.json yet. The question is that of Brock
et al. 2021 (arXiv:2102.06171), figure 2.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import typer

from nfspec.files import write
from nfspec.training.failures import Diverged
from nfspec.training.options import Options
from nfspec.training.session import train

VARIANT = "nfnet-nano"
BACKEND = "torch"
BATCHES = (32, 128, 512)
RATES = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
EPOCHS, WARMUP = 6, 1
FAILED = 0.2  # a top-1 below is guessing, or nearly so; ten classes


@dataclass(frozen=True)
class Outcome:
    """One training: top-1 on held-out digits at its end; None where the loss was not finite."""

    batch: int
    rate: float
    clipped: bool
    top1: float | None


def trained(batch: int, rate: float, clipped: bool) -> Outcome:
    """Train once."""
    with TemporaryDirectory() as folder:
        values = Path(folder, "values.toml")
        values.write_text("ema_decay = 0.0\n", encoding="utf-8")
        options = Options(
            VARIANT,
            "digits",
            BACKEND,
            out=Path(folder, "run"),
            recipe=values,
            epochs=EPOCHS,
            batch=batch,
            learning_rate=rate,
            warmup=WARMUP,
            clipping=None if clipped else "none",
        )
        try:
            final = train(options).final
        except Diverged:
            return Outcome(batch, rate, clipped, None)
    assert final is not None
    return Outcome(batch, rate, clipped, final["top1"])


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Top-1 in percent, a row for each batch size with and without, a column for each rate."""
    outcome_of = {(o.batch, o.rate, o.clipped): o for o in outcomes}
    rates = sorted({o.rate for o in outcomes})
    lines = [
        "| batch | AGC | " + " | ".join(f"{rate:g}" for rate in rates) + " |",
        "|---|---|" + "---|" * len(rates),
    ]
    for batch in sorted({o.batch for o in outcomes}):
        for clipped in (False, True):
            cells = [_cell(outcome_of.get((batch, rate, clipped))) for rate in rates]
            lines.append(f"| {batch} | {'yes' if clipped else 'no'} | {' | '.join(cells)} |")
    return lines


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    return "diverged" if outcome.top1 is None else f"{100 * outcome.top1:.1f}"


def plot(outcomes: Sequence[Outcome], path: Path) -> None:
    """Top-1 over the learning rate, a part for each batch size."""
    from matplotlib.figure import Figure

    batches = sorted({o.batch for o in outcomes})
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    parts = figure.subplots(1, len(batches), sharey=True, squeeze=False)[0]
    for axes, batch in zip(parts, batches, strict=True):
        for clipped, name in ((False, "without AGC"), (True, "with AGC")):
            mine = sorted(
                (o for o in outcomes if o.batch == batch and o.clipped is clipped),
                key=lambda o: o.rate,
            )
            shown = [100 * (o.top1 or 0.0) for o in mine]
            (line,) = axes.plot([o.rate for o in mine], shown, "o-", label=name, markersize=4)
            lost = [o.rate for o in mine if o.top1 is None]
            axes.plot(lost, [0.0] * len(lost), "x", color=line.get_color(), markersize=9)
        axes.set(title=f"batch {batch}", xscale="log", xlabel="learning rate", ylim=(-3, 103))
    parts[0].set_ylabel("top-1, %   (x: diverged)")
    parts[-1].legend()
    figure.savefig(path, dpi=110)


def main(folder: Path) -> None:
    """Run what has not been run yet, and write the table and the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / "agc.json"
    done = json.loads(store.read_text(encoding="utf-8"))["outcomes"] if store.exists() else []
    outcomes = [Outcome(**entry) for entry in done]
    facts = {name: version(name) for name in ("nfspec", "keras", BACKEND)}
    wanted = [(b, r, c) for b in BATCHES for r in RATES for c in (False, True)]
    known = {(o.batch, o.rate, o.clipped) for o in outcomes}
    for number, (batch, rate, clipped) in enumerate(wanted, 1):
        if (batch, rate, clipped) not in known:
            outcome = trained(batch, rate, clipped)
            outcomes.append(outcome)
            data = {"facts": facts, "outcomes": [asdict(o) for o in outcomes]}
            write(store, json.dumps(data, indent=1) + "\n")
            typer.echo(
                f"{number} of {len(wanted)}: batch {batch}, rate {rate:g}, "
                f"{'with' if clipped else 'without'} AGC: {_cell(outcome)}",
                err=True,
            )
    text = [
        f"# {VARIANT} with and without AGC",
        "",
        "Top-1 in percent on held-out digits, over the peak learning rate: "
        f"{EPOCHS} epochs, {WARMUP} of warm-up, Nesterov momentum, no average of the weights. "
        f"Made by `make why`; {', '.join(f'{k} {v}' for k, v in facts.items())}.",
        "",
        *table(outcomes),
    ]
    write(folder / "AGC.md", "\n".join(text) + "\n")
    plot(outcomes, folder / "agc.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
