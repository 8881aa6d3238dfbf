"""The reading of a measured signal, in sentences.

A fault is named by its cause. Numbers of the plan (gamma, beta, alpha, resets) are compared with
those that keep the variance; what weights and code do is measured, and compared within the bound of
chance. Nothing is a fault that the images explain: borders, average pools, what channels share.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nfspec.data.preprocessing import input_of
from nfspec.design.signal import Propagation, skip_gains
from nfspec.design.statistics import Ratio, kept_by_eps
from nfspec.plan import (
    ECA,
    Activation,
    Block,
    Conv,
    Plan,
    Pool,
    Residual,
    SqueezeExcite,
    WSConv,
)
from nfspec.plan.activations import exact_gamma, plain_gamma
from nfspec.plan.counting import shapes
from nfspec.plan.initialise import Params
from nfspec.reference.operations import centred
from nfspec.wording import few

DIGITS = 1e-3  # the original's published gammas are up to 9e-4 away from the integral
WORTH_SAYING = 0.01  # a share of the variance: less is not seen in two digits


@dataclass(frozen=True)
class Reading:
    """The reading of a signal.

    Attributes:
        as_expected: True if there is no fault.
        faults: A sentence for each fault, the one that explains most of the others first.
        notes: Sentences on what is as it should be, and on what images do to the variance.
    """

    as_expected: bool
    faults: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The one sentence that matters most."""
        return (self.faults or self.notes)[0]


def read(signal: Propagation, params: Params, trained: bool = False) -> Reading:
    """Say what to make of the signal of a network.

    Args:
        signal: What `measure` returned.
        params: The parameters that it was measured with.
        trained: True if they are trained, and what they do is no fault.
    """
    plan = signal.plan
    if signal.first_not_finite:
        fault = f"{signal.first_not_finite}: its output is not finite; so is all that reads it"
        return Reading(False, (fault,), ())
    if trained or any(isinstance(op, Conv) for op in plan.ops):
        return Reading(True, (), (_range(signal),))
    faults = (
        *_images(signal),
        *_gammas(plan),
        *_convs(signal, params),
        *_gates(signal),
        *_betas(signal),
        *_alphas(plan, params),
        *_resets(plan),
        *_gammas_alone(plan),
    )
    grown = () if faults else (_growth(signal, params),)
    notes = (*grown, *_means(signal), *_pools(signal), *_eps(plan), *_borders(signal))
    return Reading(not faults, faults, notes)


def _images(signal: Propagation) -> Iterator[str]:
    how = input_of(signal.plan)
    pairs = zip(how.mean, how.std, strict=True)
    most = float(np.mean([(max(mean, 1.0 - mean) / std) ** 2 for mean, std in pairs]))
    most = max(most, 2.0)  # noise has 1
    if signal.image_power > most:
        yield (
            f"the images are not normalised: their mean square is {signal.image_power:.3g}, and no "
            f"image in 0..1 less input.mean over input.std has more than {most:.3g}"
        )


def _activation_of(plan: Plan, conv: WSConv) -> Activation | None:
    """The activation that a conv reads, through average pools, too."""
    by_name = {op.name: op for op in plan.ops}
    op = by_name.get(conv.inputs[0])
    while isinstance(op, Pool) and op.kind == "avg":
        op = by_name.get(op.inputs[0])
    return op if isinstance(op, Activation) else None


def _gammas(plan: Plan) -> Iterator[str]:
    """Compare the gamma of each pair of an activation and a conv with the one that it needs."""
    wrong: dict[tuple[str, float, float], list[str]] = {}
    for conv in (op for op in plan.ops if isinstance(op, WSConv)):
        if act := _activation_of(plan, conv):
            found, needed = act.gamma * conv.gamma, exact_gamma(act.kind, act.slope)
            if plain := conv.eps_rule == "none":
                found *= math.sqrt(kept_by_eps(conv))
                needed = plain_gamma(act.kind, act.slope)
            if abs(found / needed - 1.0) > DIGITS:
                kind = f"{act.kind} before a conv that is not standardised" if plain else act.kind
                wrong.setdefault((kind, found, needed), []).append(conv.name)
    for (kind, found, needed), names in wrong.items():
        wrongness = "gamma is missing" if found == 1.0 else f"gamma is {found:.4g}"
        yield (
            f"{wrongness}: {kind} needs {needed:.4g}, so that each activation with the conv after "
            f"it makes {(found / needed) ** 2:.2f} times the variance ({len(names)} convs)"
        )


def _gammas_alone(plan: Plan) -> Iterator[str]:
    """Name the convs that multiply by gamma where no activation comes before them."""
    convs = [op for op in plan.ops if isinstance(op, WSConv)]
    alone = [op for op in convs if op.gamma != 1.0 and _activation_of(plan, op) is None]
    if alone:
        yield (
            f"{few([op.name for op in alone], 3)}: multiplied by gamma, {alone[0].gamma:.4g}, "
            f"though no activation comes before: {alone[0].gamma ** 2:.2f} times the variance"
        )


def _convs(signal: Propagation, params: Params) -> Iterator[str]:
    """Name each conv whose output has another variance than chance explains, with its cause."""
    ops = {op.name: op for op in signal.plan.ops}
    for ratio in signal.convs:
        if not ratio.good:
            conv = ops[ratio.op]
            assert isinstance(conv, WSConv)
            yield _conv_fault(conv, ratio, params)


def _conv_fault(conv: WSConv, ratio: Ratio, params: Params) -> str:
    kernel, *own, bias = (np.asarray(params[p.name], np.float64) for p in conv.parameters)
    around, by = centred(conv, kernel)
    length = float(np.mean(np.sum((around / by) ** 2, axis=(0, 1, 2)))) / kept_by_eps(conv)
    first = conv.gain_init or 1.0
    gains = float(np.mean(own[0] ** 2)) / first**2 if own else 1.0
    said = f"{conv.name}: makes {ratio.value:.3g} times the variance that a fresh conv would"
    if ratio.value < 1e-6:
        said = f"no signal passes {conv.name}"
    if bias.any():
        return f"{said}: its biases are not 0 (their mean square is {np.mean(bias**2):.3g})"
    if abs(gains - 1.0) > WORTH_SAYING:
        size = math.sqrt(gains) * first
        return f"{said}: its gains are {size:.3g} on average, and start from {first:.3g}"
    if abs(length - 1.0) > WORTH_SAYING and conv.eps_rule != "none":
        return (
            f"{said}: weight standardisation leaves {length:.3g} of its kernel, whose weights are "
            "too much alike"
        )
    return f"{said}: its kernel is not drawn as its spec says, or its input is not random"


def _gates(signal: Propagation) -> Iterator[str]:
    bad = [ratio for ratio in signal.gates if not ratio.good]
    if not bad:
        return
    gains = {op.gain for op in signal.plan.ops if isinstance(op, SqueezeExcite | ECA)}
    low, high = min(each.value for each in bad), max(each.value for each in bad)
    values = f"{low:.3g}" if high - low < WORTH_SAYING else f"{low:.3g} to {high:.3g}"
    what = f"it multiplies branches by {values} ({few([each.op for each in bad], 3)})"
    if gains != {2.0}:
        yield f"attention.gain is {max(gains):g}: a gate is a half on average, and needs 2; {what}"
    else:
        yield f"attention does not begin with a gate of a half, times 2: {what}"


def _betas(signal: Propagation) -> Iterator[str]:
    """Name the stages whose betas are off by more than half of what one block adds."""
    plan = signal.plan
    betas = {op.name: op.beta for op in plan.ops if isinstance(op, Activation)}
    wrong: dict[int, list[tuple[Block, float]]] = {}
    for block in plan.blocks:
        beta = betas[f"{block.name}.act0"]
        if abs(beta**2 * block.expected_variance - 1.0) > block.alpha**2 / 2 + 1e-6:
            wrong.setdefault(block.stage, []).append((block, beta))
    for stage, blocks in wrong.items():
        first, beta = blocks[0]
        growth = _factor(signal, stage)
        grows = f"; variance grows by a factor of {growth:.2f} a block there" if growth else ""
        yield (
            f"stage {stage}: beta is wrong in {len(blocks)} of its blocks: {first.name} has "
            f"{beta:.4g}, and the variance of its input, {first.expected_variance:.4g}, needs "
            f"{1 / math.sqrt(first.expected_variance):.4g}{grows}"
        )


def _factor(signal: Propagation, stage: int) -> float:
    """The mean factor by which variance grows from block to block of a stage; 0 if it has one."""
    names = [block.name for block in signal.plan.blocks if block.stage == stage]
    power = [each.avg_sq_mean + each.avg_var for each in signal.signals if each.tap in names]
    if len(power) < 2 or power[0] <= 0:
        return 0.0
    return float((power[-1] / power[0]) ** (1 / (len(power) - 1)))


def _alphas(plan: Plan, params: Params) -> Iterator[str]:
    sums = {op.block: op for op in plan.ops if isinstance(op, Residual)}
    for block in plan.blocks:
        found = sums[block.name].alpha
        if abs(found - block.alpha) > 1e-6 * abs(block.alpha):
            yield (
                f"{block.name}: adds its branch times {found:.4g}, where alpha is "
                f"{block.alpha:.4g}: {(found / block.alpha) ** 2 if block.alpha else math.inf:.3g} "
                "times the variance that the betas after it expect"
            )
    if silent := sorted({block.stage for block in plan.blocks if block.alpha == 0.0}):
        yield f"alpha is 0 in stage {few(map(str, silent))}: its branches add nothing"
    gains = skip_gains(plan, params)
    usual = float(np.median(list(gains.values()))) if gains else 0.0
    for name, gain in gains.items():
        if abs(gain - usual) > 1e-6:
            yield f"{name}: its skip gain is {gain:.4g}, and that of the others {usual:.4g}"


def _resets(plan: Plan) -> Iterator[str]:
    """Name the stages whose first block does not bring the variance back to 1."""
    ops, variance = {op.name: op for op in plan.ops}, 1.0
    for block in plan.blocks:
        start, variance = variance, (1.0 if block.index == 0 else variance) + block.alpha**2
        if block.index or abs(start - 1.0) <= block.alpha**2 / 2:
            continue
        said = f"stage {block.stage} is not reset: "
        if block.shortcut == "identity":
            yield (
                f"{said}the shortcut of {block.name} is its input, of variance {start:.4g}, since "
                "neither width nor size change; betas expect 1 there"
            )
            continue
        conv = ops[f"{block.name}.conv_shortcut"]
        assert isinstance(conv, WSConv)
        if _activation_of(plan, conv) is None:
            yield (
                f"{said}the shortcut conv of {block.name} reads its input as it is, of variance "
                f'{start:.4g}, where block.shortcut_input = "activated" gives 1'
            )


def _growth(signal: Propagation, params: Params) -> str:
    """The sentence on a network without faults."""
    plan, gains = signal.plan, skip_gains(signal.plan, params)
    if gains and not any(gains.values()):
        return (
            "skip gains are 0, so that no branch adds to its shortcut: variance stays as each "
            "stage's first block makes it, as expected"
        )
    added = sorted({(gains.get(block.name, 1.0) * block.alpha) ** 2 for block in plan.blocks})
    steps = f"{added[0]:.3g}" if len(added) == 1 else f"{added[0]:.3g} to {added[-1]:.3g}"
    stages = len({block.stage for block in plan.blocks})
    reset = " and is reset at each stage" if stages > 1 else ""
    blocks = signal.signals[1:]
    ratios = [(each.avg_var + each.avg_sq_mean) / each.expected_variance for each in blocks]
    low, high = (f"{value:.2g}" for value in (min(ratios), max(ratios)))
    return (
        f"variance grows by {steps} a block{reset}, as expected; on these images it is {low} to "
        f"{high} times that"
    )


def _means(signal: Propagation) -> Iterator[str]:
    """Say how far means are shifted by convs that are not standardised."""
    convs = [op for op in signal.plan.ops if isinstance(op, WSConv)]
    plain = sum(op.eps_rule == "none" for op in convs)
    share, tap = _shift(signal)
    if plain and share > 0.1:
        which = "the convs are" if plain == len(convs) else f"{plain} of {len(convs)} convs are"
        yield (
            f"{which} not standardised, and pass the mean of their inputs on: the squared means of "
            f"channels are {share:.0%} of the mean square in {tap}, and variance is the rest"
        )


def _shift(signal: Propagation) -> tuple[float, str]:
    """The largest share of squared means of channels in the mean square, and its tap."""
    return max(
        (each.avg_sq_mean / max(each.avg_sq_mean + each.avg_var, 1e-300), each.tap)
        for each in signal.signals
    )


def _pools(signal: Propagation) -> Iterator[str]:
    if not signal.pools:
        return
    low, high = min(signal.pools.values()), max(signal.pools.values())
    values = f"{low:.2f}" if high - low < 0.01 else f"{low:.2f} to {high:.2f}"
    yield (
        f"each average pool on a shortcut leaves {values} of the variance: the mean of 4 pixels "
        "has a quarter of it where pixels are independent, as in noise, and nearly all of it "
        "where neighbours are alike, as in photographs; no beta counts on that"
    )


def _eps(plan: Plan) -> Iterator[str]:
    convs = [op for op in plan.ops if isinstance(op, WSConv) and op.eps_rule != "none"]
    if not convs:
        return
    kept = {op.name: kept_by_eps(op) for op in convs}
    name = min(kept, key=lambda each: kept[each])
    if kept[name] < 1.0 - WORTH_SAYING:
        yield (
            f"eps of weight standardisation (ws.eps) leaves {kept[name]:.2f} of the variance in "
            f"{name}, and more elsewhere"
        )


def _borders(signal: Propagation) -> Iterator[str]:
    """Say what zero padding does where images are smallest."""
    plan = signal.plan
    outputs, least = shapes(plan, *signal.size), (1.0, "")
    for op in plan.ops:
        if isinstance(op, WSConv) and op.stride == 1 and op.kernel > 1 and op.padding != "valid":
            inside = [_inside(side, op) for side in outputs[op.name][:2]]
            least = min(least, (inside[0] * inside[1], op.name))
    if least[0] < 0.9:
        yield (
            f"zeros beyond the borders take {1 - least[0]:.0%} of the inputs of {least[1]} "
            f"({outputs[least[1]][0]} x {outputs[least[1]][1]} px), and about as much variance"
        )


def _inside(side: int, op: WSConv) -> float:
    """The share of a kernel's taps that are inside, mean over positions."""
    half = op.kernel // 2
    away = (op.dilation * abs(tap) for tap in range(-half, half + 1))
    return sum(max(side - far, 0) for far in away) / (side * op.kernel)


def _range(signal: Propagation) -> str:
    """The sentence on trained and folded networks."""
    power = {each.tap: each.avg_sq_mean + each.avg_var for each in signal.signals}
    low, high = min(power, key=lambda tap: power[tap]), max(power, key=lambda tap: power[tap])
    share, tap = _shift(signal)
    return (
        f"mean square runs from {power[low]:.3g} ({low}) to {power[high]:.3g} ({high}); the "
        f"channels' means are {share:.0%} of it at most ({tap})"
    )
