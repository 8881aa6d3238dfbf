"""Weights that were trained with another number of classes or of input channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nfspec.errors import NfspecWarning, WeightError
from nfspec.plan import Plan, WSConv
from nfspec.plan.initialise import Params, draw
from nfspec.weights.checking import (
    CLASSIFIER,
    Float32,
    check,
    ends_of,
    first_convs,
    header,
    own_shapes_of,
    require,
    shapes,
    text_names,
)


class FitWarning(NfspecWarning):
    """A change of weights by `fit`, where nothing else says it."""


@dataclass(frozen=True)
class Fitted:
    """Weights that fit a plan.

    Attributes:
        params: Canonical name to float32 array, in the plan's order.
        changes: A sentence for each change; none if the weights fitted as they were.
    """

    params: Params
    changes: tuple[str, ...]


def fit(params: Mapping[str, Float32], plan: Plan, *, seed: int = 0, source: str = "") -> Fitted:
    """Make weights of another number of classes or of input channels fit a plan.

    The classifier is drawn anew, as `nfspec.init` draws it, where it is missing or has another
    number of classes.

    Of other input channels, those are paired whose numbers are equal modulo the smaller count.
    Where the plan has more channels, each is a copy of its partner, divided by the number of
    copies; where it has fewer, each is the sum of its partners. Gains are multiplied so that weight
    standardisation, which divides a kernel by its scale, does not undo this. So the network
    computes what it computed before for every image in which partners are alike once mean and std
    are applied. Grey images are such images: from three channels to one, nothing changes for them
    but the rounding of kernels and gains.

    timm's rule (`adapt_input_conv`, timm 1.0.31) repeats channels in the same order, but leaves
    the gains as they are, and multiplies all copies by old count / new count.

    Args:
        params: Canonical name to float32 array, such as a reader returns with `own_shapes=True`.
        plan: The network that they are to fit.
        seed: Seed of the draws.
        source: The file's name, put before error messages.

    Raises:
        WeightError: They do not fit for another reason.
    """
    if not isinstance(params, Mapping):
        raise WeightError(f"expected a dict of arrays, found {type(params).__name__}")
    values = text_names(params, source)
    headers = {name: header(value) for name, value in values.items()}
    expected, ends = shapes(plan), ends_of(plan)
    own = own_shapes_of(expected, headers, ends)
    require(own, headers, plan.name, source, ends)
    changes = []
    for op in first_convs(plan):
        name = f"{op.name}.kernel"
        if own[name] != expected[name]:
            gain = np.asarray(values[_gain(op)]) if op.gained else None
            values |= _with_channels(op, np.asarray(values[name]), gain)
            changes.append(_about_channels(op, own[name][2]))
    head = [name for name in ends.classifier if own.get(name) != expected[name]]
    if head:
        values |= {name: draw(plan.parameters[name], seed) for name in ends.classifier}
        changes.append(_about_head(own.get(CLASSIFIER[1]), expected[CLASSIFIER[1]][0], seed))
    return Fitted(check(plan, values, source), tuple(changes))


def _gain(op: WSConv) -> str:
    return f"{op.name}.gain"


def _with_channels(op: WSConv, kernel: Float32, gain: Float32 | None) -> Params:
    """Kernel and gain of a conv for its own number of channels, from those for another.

    Raises:
        WeightError: The scale of a kernel would change, and there is no gain to keep it.
    """
    # The scale of weight standardisation is defined there alone.
    from nfspec.reference.operations import divisor

    count = kernel.shape[2]
    old = kernel.astype(np.float64)
    standardised = op.eps_rule != "none"
    if standardised and old[..., 0].size == 1:
        raise WeightError(f"{op.name}: kernels of one weight, which standardisation turns into 0")
    if standardised and gain is None:
        raise WeightError(
            f"{op.name}: has no gain (ws.gain = false), which would keep the scale where a kernel "
            "is made for another number of input channels"
        )
    mean = old.mean(axis=(0, 1, 2))
    share = _shares(count, op.in_channels)
    # Weight standardisation takes the mean away, so it may be spread evenly over the channels.
    # Each channel without its share of the mean would be shifted by another constant.
    rest = count / op.in_channels - share.sum(axis=1)
    new = np.einsum("dc,hwco->hwdo", share, old) + standardised * rest[:, None] * mean
    rounded = new.astype(np.float32)
    if gain is None:
        return {f"{op.name}.kernel": rounded}
    before = divisor(replace(op, in_channels=count), old)
    after = divisor(op, rounded.astype(np.float64))
    scaled = gain.astype(np.float64) * (after / before)
    return {f"{op.name}.kernel": rounded, _gain(op): scaled.astype(np.float32)}


def _shares(old: int, new: int) -> NDArray[np.float64]:
    """The share of each old channel in each new one, (new, old); each column's sum is 1."""
    fewer = min(old, new)
    pairs = np.arange(new)[:, None] % fewer == np.arange(old) % fewer
    return pairs / pairs.sum(axis=0)


def _about_channels(op: WSConv, count: int) -> str:
    new = op.in_channels
    text = f"{op.name}: weights for {count} become weights for "
    text += _counted(new, "input channel", "input channels")
    how = "kernels are summed" if new < count else "kernels are copied and divided"
    return f"{text}: {how}, and gains keep the scale; grey images give the same output"


def _counted(count: int, one: str, several: str) -> str:
    return f"1 {one}" if count == 1 else f"{count} {several}"


def _about_head(old: tuple[int, ...] | None, classes: int, seed: int) -> str:
    instead = "" if old is None else f", in place of one of {_counted(old[0], 'class', 'classes')}"
    new = _counted(classes, "class", "classes")
    return f"head.fc: a new classifier of {new}, drawn from seed {seed}{instead}"
