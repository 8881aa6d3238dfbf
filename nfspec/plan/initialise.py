"""Initial weights, the same bits in every framework.

Each parameter has a counter-based generator of its own, keyed by seed and canonical name, so the
order of drawing does not matter and a tensor can be drawn alone.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from nfspec.arguments import instance, whole
from nfspec.plan import Init, Parameter, Plan
from nfspec.plan.free_memory import require_free_memory

Params = dict[str, NDArray[np.float32]]
THREADS = min(4, os.cpu_count() or 1)


def generator(seed: int, name: str) -> np.random.Generator:
    """The random stream of one parameter: Philox keyed by sha256 of seed and name."""
    seed = whole("seed", seed, 0)
    key = hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogatepass")).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


def draw(parameter: Parameter, seed: int) -> NDArray[np.float32]:
    """Draw one parameter: float32 array of `parameter.shape`."""
    return sample(parameter.init, parameter.shape, generator(seed, parameter.name))


def sample(init: Init, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a float32 array of a distribution, from float64 draws rounded once."""
    match init.kind:
        case "constant":
            return np.full(shape, init.value, np.float32)
        case "uniform":
            return rng.uniform(-init.value, init.value, shape).astype(np.float32)
        case "normal":
            z = np.asarray(rng.standard_normal(shape))
        case "truncated_normal":
            z = np.asarray(rng.standard_normal(shape))
            while (beyond := np.abs(z) > 2.0).any():
                z[beyond] = rng.standard_normal(int(beyond.sum()))
        case _:
            assert_never(init.kind)
    z *= init.value  # in place: the largest take as much again as a twentieth of the network
    return z.astype(np.float32)


def draw_in_order(plan: Plan, seed: int = 0) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Draw all parameters one after another, in order of execution, a few ahead of the caller.

    NumPy draws without Python's lock, so that each core draws a parameter of its own.
    """
    wanted = iter(plan.parameters.values())
    with ThreadPoolExecutor(THREADS) as pool:
        ahead = deque((p.name, pool.submit(draw, p, seed)) for p in islice(wanted, 2 * THREADS))
        while ahead:
            name, drawn = ahead.popleft()
            ahead.extend((p.name, pool.submit(draw, p, seed)) for p in islice(wanted, 1))
            yield name, drawn.result()


def init(plan: Plan, seed: int = 0) -> Params:
    """Draw all parameters of a plan as training starts from them.

    Args:
        plan: The network.
        seed: At least 0.

    Returns:
        Canonical name to float32 array, in order of execution. Kernels HWIO, dense kernels IO.

    Raises:
        InputError: A seed that is no whole number from 0 on, or more parameters than the memory
            takes.
    """
    instance("plan", plan, Plan, "nfspec.resolve")
    whole("seed", seed, 0)
    require_free_memory(plan, "draw the weights of", 1)
    return dict(draw_in_order(plan, seed))
