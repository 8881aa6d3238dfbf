"""Signal propagation: the variance each block should see, and what it does see.

Brock et al. 2021 (arXiv:2101.08692 §2 and §3.1); the statistics are those of
deepmind-research/nfnets/base.py, `signal_metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nfspec import compilation, reference
from nfspec.arguments import flag, instance, number, whole
from nfspec.compilation import Backend
from nfspec.design.statistics import Ratio, Statistics
from nfspec.plan import Operation, Parameter, Plan, Residual
from nfspec.plan.counting import count
from nfspec.plan.free_memory import require_free_memory_for_images
from nfspec.plan.initialise import Params
from nfspec.reference.inputs import as_images, checked_params
from nfspec.rewrites.folding import fold

Images = NDArray[np.floating]
Exact = NDArray[np.float64]
AT_ONCE = 2**28  # bytes of activations, float32, of the images that a framework takes at once


@dataclass(frozen=True)
class Signal:
    """Statistics of one activation, channels taken one by one over batch, height and width.

    Attributes:
        tap: `stem`, or a block's name.
        expected_variance: Variance that the plan expects at initialisation, for its skip gains.
        avg_sq_mean: Mean over channels of the squared channel mean.
        avg_var: Mean over channels of the channel variance.
        res_avg_var: avg_var of the residual branch before stochastic depth and gains; None at the
            stem, and in a folded network, which has the gains in its kernels.
    """

    tap: str
    expected_variance: float
    avg_sq_mean: float
    avg_var: float
    res_avg_var: float | None


@dataclass(frozen=True)
class Propagation:
    """The signal of a network.

    Attributes:
        plan: The network.
        size: Height and width of the images, px.
        image_power: Mean square of the images.
        signals: The statistics after the stem and after each block.
        convs: Mean square of each conv's output over that of a fresh conv on the same input.
        gates: Mean gate of each channel attention, gain included, which is 1 in a fresh network.
        pools: Operation name of each average pool to the share of the variance that it leaves.
        first_not_finite: The first operation whose output is not finite; empty if there is none.
    """

    plan: Plan
    size: tuple[int, int]
    image_power: float
    signals: tuple[Signal, ...]
    convs: tuple[Ratio, ...]
    gates: tuple[Ratio, ...]
    pools: dict[str, float]
    first_not_finite: str


def expected_variance(plan: Plan, gains: Mapping[str, float] | None = None) -> dict[str, float]:
    """Expected variance of the outputs of stem and blocks, for residuals of unit variance.

    Args:
        plan: The network.
        gains: Name of each block to its skip gain; 1 for those that are not given.
    """
    instance("plan", plan, Plan, "nfspec.resolve")
    variances = {"stem": 1.0}
    variance = 1.0
    for block in plan.blocks:
        start = 1.0 if block.index == 0 else variance
        gain = (gains or {}).get(block.name, 1.0)
        variance = variances[block.name] = start + (gain * block.alpha) ** 2
    return variances


def skip_gains(plan: Plan, params: Params) -> dict[str, float]:
    """Name of each block to its skip gain, or to what its last conv's gain is on average where that
    gain starts from 0 in place of one; blocks without either are left out."""
    return {
        _block_of(parameter.name): float(np.mean(params[parameter.name]))
        for parameter in _gains(plan)
    }


def _gains(plan: Plan) -> Iterator[Parameter]:
    for op in plan.ops:
        for parameter in op.parameters:
            starts_at_zero = parameter.role == "gain" and parameter.init.value == 0.0
            if parameter.role == "skip_gain" or starts_at_zero:
                yield parameter


def _block_of(name: str) -> str:
    return ".".join(name.split(".")[:4])


def with_skip_gain(plan: Plan, params: Params, value: float) -> Params:
    """Parameters with every skip gain at a value.

    Where a network has no skip gains, and the gain of each block's last conv starts from 0 in place
    of one, that gain is set.

    Args:
        plan: The network.
        params: Canonical name to array.
        value: The gain: 1 as the paper measures its networks, 0 as their training starts.
    """
    number("skip_gain", value)
    new = {each.name: np.full(each.shape, value, np.float32) for each in _gains(plan)}
    return {**params, **new}


def noise(
    plan: Plan, images: int = 8, size: int | None = None, seed: int = 0
) -> NDArray[np.float32]:
    """Images of independent standard normal numbers, (N, size, size, channels), float32.

    Args:
        plan: The network.
        images: Number of images.
        size: Side in px; the plan's training size if not given.
        seed: At least 0.

    Raises:
        InputError: An argument has another type or value, or the memory does not take the images.
    """
    instance("plan", plan, Plan, "nfspec.resolve")
    side = plan.train_size if size is None else whole("size", size, 1, "px")
    shape = (whole("images", images, 1), side, side, plan.channels)
    require_free_memory_for_images(plan, shape)  # before they are drawn, or nobody could refuse
    rng = np.random.default_rng(whole("seed", seed, 0))
    return rng.standard_normal(shape).astype(np.float32)


def measure(
    plan: Plan,
    params: Params,
    x: ArrayLike,
    *,
    backend: Backend | None = None,
    folded: bool = False,
    step: Callable[[int], None] = lambda done: None,
) -> Propagation:
    """Measure the signal of a network: the statistics after the stem and after each block.

    Dropout and stochastic depth are off.

    Args:
        plan: The network.
        params: Canonical name to array.
        x: Images, (N, H, W, channels).
        backend: Framework that computes the network, in float32; the float64 reference if not
            given.
        folded: Measure the folded network.
        step: Called with the number of images that are done since its last call.

    Raises:
        InputError: The images are none of the network's, or the memory does not take them.
        WeightError: `params` are not the plan's.
        BackendError: As of `nfspec.compile`.
    """
    images = as_images(plan, x)
    own = checked_params(plan, params)
    expected = expected_variance(plan, skip_gains(plan, own))
    if flag("folded", folded):
        network = fold(plan, own)
        plan, own = network.plan, network.params
    statistics = Statistics(plan)
    run = _reference(plan, own) if backend is None else _framework(plan, own, backend)
    height, width = images.shape[1:3]
    some = max(1, AT_ONCE // count(plan, (height, width)).activation_bytes)
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, len(images), some):
            run(images[first : first + some], statistics)
            step(len(images[first : first + some]))
    return _summary(plan, images, expected, statistics, folded)


Run = Callable[[Images, Statistics], None]


def _reference(plan: Plan, params: Params) -> Run:
    def run(images: Images, statistics: Statistics) -> None:
        def record(op: Operation, x: Exact, out: Exact) -> Exact:
            statistics.add(op, x, out)
            return out

        reference.forward(plan, params, images, change=record)

    return run


def _framework(plan: Plan, params: Params, backend: Backend) -> Run:
    every = {**plan.taps, **{op.name: op.name for op in plan.ops}}
    model = compilation.compile(replace(plan, taps=every), backend, dict(params), taps=True)

    def run(images: Images, statistics: Statistics) -> None:
        outputs = model.predict_on_batch(images.astype(np.float32))
        for op in plan.ops:
            statistics.add(op, outputs.get(op.inputs[0], images), outputs[op.name])

    return run


def _summary(
    plan: Plan,
    images: Images,
    expected: Mapping[str, float],
    statistics: Statistics,
    folded: bool,
) -> Propagation:
    sums = statistics.of
    # Folding moves alpha into the kernels of branches, which then have another variance.
    alphas = {op.block: op.alpha for op in plan.ops if isinstance(op, Residual)}
    whole = [] if folded else [b for b in plan.blocks if alphas[b.name] == b.alpha]
    residuals = {block.name: block.residual for block in whole}
    signals = []
    for tap, variance in expected.items():
        out, residual = sums[plan.taps[tap]], sums.get(residuals.get(tap, ""))
        branch = None if residual is None else residual.variance
        signals.append(Signal(tap, variance, out.sq_mean, out.variance, branch))
    strange = (op.name for op in plan.ops if op.name in sums and not sums[op.name].finite)
    return Propagation(
        plan,
        (images.shape[1], images.shape[2]),
        float(np.mean(images**2)),
        tuple(signals),
        statistics.convs(),
        statistics.gates(),
        statistics.pools(),
        next(strange, ""),
    )
