"""The explorer's facts about a network, as data for its page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfspec.console import cut
from nfspec.cost.accelerators import Accelerator
from nfspec.design.candidates import Candidate, Training, candidate, published
from nfspec.design.explorer.operations import drawn
from nfspec.design.reading import read
from nfspec.design.signal import expected_variance, measure, noise, with_skip_gain
from nfspec.errors import InputError
from nfspec.language.differences import meanings, spec_fields
from nfspec.language.spec import Spec
from nfspec.language.template import path_text, resolved, value_text
from nfspec.plan import Plan
from nfspec.plan.clipping import ClipRule, clip_rules
from nfspec.plan.counting import count
from nfspec.plan.initialise import init
from nfspec.plan.resolver import resolve
from nfspec.wording import printable

Data = dict[str, Any]
LAYOUT = "HWIO"  # the axes of a conv kernel; those of a dense kernel are the last two
SIDE, IMAGES = 64, 2  # px, and number, of the images of noise on which a signal is measured
# Numbers of a block that the page shows.
OF_BLOCK = (
    "stage", "index", "in_channels", "mid_channels", "out_channels", "groups", "kernel",
    "second_kernel", "stride", "first_dilation", "alpha", "beta", "attention", "attention_size",
    "drop_rate", "shortcut",
)  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """A network of the page.

    Attributes:
        name: A name that no other network of the page has.
        spec: Its spec.
        own: False if it is a built-in one.
        run: Its training, if it is shown for that.
    """

    name: str
    spec: Spec
    own: bool = False
    run: Training | None = None


class Networks:
    """Data of networks. What several share, such as a block's operations, is there once.

    Args:
        devices: Accelerators whose steps are estimated.
        batch: Images in a step.
        precision: Dtype of a step.
    """

    def __init__(self, devices: Sequence[Accelerator], batch: int, precision: str):
        self.devices, self.batch, self.precision = devices, batch, precision
        self.parts: list[list[list[str]]] = []
        self._known: dict[Any, int] = {}
        self._of_spec: dict[tuple[str, bool], Data] = {}

    def data(self, shown: Shown) -> Data:
        """The facts of a network on the page."""
        spec = shown.spec
        text = spec.model_dump_json()
        if (text, shown.own) not in self._of_spec:
            self._of_spec[text, shown.own] = self._data(spec, shown.own)
        data = self._of_spec[text, shown.own] | {"name": shown.name}
        if shown.run is None:
            return data
        facts = shown.run.facts
        return data | {
            "top1": shown.run.top1,
            "top1_source": "the highest in the log of this training",
            "of": cut(Path(facts.data).name, 60) if shown.run.top1 is not None else None,
            "trained": f"on {cut(facts.data, 200)}, by {facts.backend}, from seed {facts.seed}",
        }

    def _data(self, spec: Spec, own: bool) -> Data:
        plan = resolve(spec)
        row = candidate(spec, self.devices, self.batch, self.precision)
        counted = count(plan)
        variances = expected_variance(plan)
        parts = {part: self._part(ops) for part, ops in drawn(plan).items()}
        rows = {each.name: each for each in counted.blocks}

        def cost(part: str) -> Data:
            of = rows[part]
            costs = {"macs": of.macs, "parameters": of.parameters, "bytes": of.activation_bytes}
            return {"shape": of.shape, **costs, "operations": parts[part]}

        return {
            **_facts(spec, plan, row),
            "own": own,
            "stem": {**cost("stem"), "variance": variances["stem"]},
            "head": cost("head"),
            "blocks": [
                {key: getattr(block, key) for key in OF_BLOCK}
                | {"input_variance": block.expected_variance, "variance": variances[block.name]}
                | cost(block.name)
                for block in plan.blocks
            ],
            "measured": _measured(plan) if own else None,
            "groups": _groups(plan),
            "fields": {
                path_text(path): value_text(value)
                for path, value in meanings(spec_fields(spec)).items()
                if value != {}
            },
            "toml": "\n".join(resolved(spec, places=False)) + "\n",
        }

    def _part(self, ops: Sequence[Any]) -> int:
        """The number of a list of operations among those of all networks."""
        if ops not in self._known:
            self._known[ops] = len(self.parts)
            self.parts.append([[op.name, op.kind, op.text, op.lane] for op in ops])
        return self._known[ops]


def _facts(spec: Spec, plan: Plan, row: Candidate) -> Data:
    weights = published(spec)
    return {
        "source": printable(spec.source),
        "family": plan.family,
        "digest": plan.digest,
        "train": plan.train_size,
        "test": plan.test_size,
        "channels": plan.channels,
        "parameters": row.parameters,
        "macs": row.macs,
        "bytes": row.activation_bytes,
        "top1": row.top1,
        "top1_source": weights.source if weights else "",
        "of": "ImageNet" if row.top1 is not None else None,
        "trained": "",
        "seconds": {name: each and each.seconds for name, each in row.on.items()},
    }


def _measured(plan: Plan) -> Data | None:
    """The signal of fresh weights on noise, as `nfspec signal` measures it; None where the memory
    does not take it."""
    side = min(SIDE, plan.train_size)
    try:
        params = with_skip_gain(plan, init(plan), 1.0)
        signal = measure(plan, params, noise(plan, IMAGES, side))
    except InputError:
        return None
    reading = read(signal, params)
    variances = [row.avg_var for row in signal.signals]
    return {
        "variances": [value if math.isfinite(value) else None for value in variances],
        "as_expected": reading.as_expected,
        "sentences": list(map(printable, (*reading.faults, *reading.notes))),
        "images": IMAGES,
        "side": side,
    }


def _groups(plan: Plan) -> list[Data]:
    """Parameters that clipping and weight decay treat alike."""
    rules, recipe = clip_rules(plan), plan.recipe
    found: dict[tuple[Any, ...], Data] = {}
    for parameter in plan.parameters.values():
        rule = rules[parameter.name]
        decay = recipe.decay_of(parameter.role) if recipe else None
        norm = _norm(rule, len(parameter.shape))
        key = (parameter.role, norm, rule.clipping, decay)
        group = found.setdefault(
            key,
            {
                "role": parameter.role,
                "norm": norm,
                "clipping": rule.clipping,
                "eps": rule.eps,
                "decay": decay,
                "tensors": 0,
                "units": 0,
                "numbers": 0,
                "example": parameter.name,
            },
        )
        group["tensors"] += 1
        group["units"] += rule.units
        group["numbers"] += parameter.size
    return list(found.values())


def _norm(rule: ClipRule, rank: int) -> str:
    """The axes that one norm is taken over, in words."""
    if rule.axes is None:
        return "the whole tensor"
    letters = " ".join(LAYOUT[-rank:][axis] for axis in rule.axes)
    return f"the axes {letters}" if letters else "each number"
