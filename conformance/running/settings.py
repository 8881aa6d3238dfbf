"""The settings of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nfspec.arguments import MAX_SEED, MAX_TIMEOUT, MOST_EXAMPLES, number, one_of, whole
from nfspec.conformance.cases import precision
from nfspec.conformance.cases.results import COMPILER
from nfspec.conformance.subjects import METHODS
from nfspec.errors import InputError, suggest

MODES = tuple(precision.MODES)
DEVICES = ("cpu", "gpu", "tpu")


@dataclass(frozen=True)
class Settings:
    """The settings of a run, which its results record.

    Attributes:
        source: Name or path of a spec, and what is changed in it: `nfnet-f0 --set head.classes=10`;
            None for a general grid of shapes.
        subjects: Names that `nfspec.conformance.subjects` knows; the name of a framework is nfspec
            on it.
        device: cpu, gpu, tpu, or tpu-compiler: each program of JAX is compiled for a TPU, by the
            TPU's own compiler, and runs on the CPU; nothing is said of numbers on a TPU.
        modes: Modes of the arithmetic, some of f32, tf32, bf16, f16.
        examples: Number of cases to draw for each property, besides the essential ones; a property
            for which no more cases are worth drawing has the essential ones alone.
        seed: Random seed of the cases.
        properties: Ids of the properties to test; all if empty.
        timeout: Seconds to wait for one reply.
        must_offer: Names of the methods of a subject, such as `ws_conv`, that every subject has to
            offer, of those that `nfspec.conformance.subjects.METHODS` has.

    Raises:
        InputError: A value that cannot be used.
    """

    source: str | None = None
    subjects: tuple[str, ...] = ("jax", "torch", "tensorflow")
    device: str = "cpu"
    modes: tuple[str, ...] = ("f32",)
    examples: int = 25
    seed: int = 0
    properties: tuple[str, ...] = ()
    timeout: float = 600.0
    must_offer: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        one_of("device", self.device, (*DEVICES, COMPILER))
        for name, texts in (("subjects", self.subjects), ("modes", self.modes)):
            _names(name, texts)
            if not texts:
                raise InputError(f"{name}: expected at least one; found none")
        _names("properties", self.properties)
        _names("must_offer", self.must_offer)
        for method in self.must_offer:
            if method not in METHODS:
                raise InputError(
                    f"must_offer: expected methods of a subject, of {', '.join(METHODS)}; found "
                    f'"{method}"{suggest(method, METHODS)}'
                )
        for mode in self.modes:
            one_of("modes", mode, MODES)
        if whole("examples", self.examples, 0) > MOST_EXAMPLES:
            raise InputError(f"examples: expected at most {MOST_EXAMPLES:,}; found {self.examples}")
        if whole("seed", self.seed, 0) > MAX_SEED:
            raise InputError(f"seed: expected at most {MAX_SEED}; found {self.seed}")
        number("timeout", self.timeout, 0.0, MAX_TIMEOUT, above=True)


def _names(name: str, value: Sequence[object]) -> None:
    """Require a tuple of texts; a text alone would be taken for its letters."""
    if not isinstance(value, tuple) or not all(isinstance(text, str) for text in value):
        raise InputError(f"{name}: expected a tuple of names; found {value!r}")
    if len(set(value)) < len(value):
        raise InputError(f"{name}: expected each name once; found {value!r}")
