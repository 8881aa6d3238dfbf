"""The requests that a worker's process answers, and the reply that says why there is no answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nfspec.conformance.cases.case import Arrays, Case

FailureKind = Literal[
    "error",  # the subject raised
    "not offered",  # the subject has no counterpart of what is asked about
    "no method",  # the subject lacks the method that would answer
    "missing",  # its framework is not installed, or has no such device or mode
    "unusable",  # there is no such subject
    "crashed",  # its process died
    "hung",  # no answer in time
    "refused",  # the reply is to another request
]


@dataclass(frozen=True)
class FactsRequest:
    """Asks for versions, device and switches of the process."""


@dataclass(frozen=True)
class CaseRequest:
    """Asks for the outputs of a case.

    Attributes:
        case: The case.
        fault: Name of a fault to inject; empty for none.
        arrays: The case's arrays, where making them takes the reference; None to make them there.
    """

    case: Case
    fault: str = ""
    arrays: list[Arrays] | None = None


@dataclass(frozen=True)
class BuildRequest:
    """Asks to build a model with taps.

    Attributes:
        spec: The spec's fields.
        seed: Random seed of the weights, where no file is given.
        weights: Path of a safetensors file of canonical names.
    """

    spec: dict[str, Any]
    seed: int
    weights: str | None


@dataclass(frozen=True)
class ForwardRequest:
    """Asks to evaluate the model that was built last.

    Attributes:
        images: (N, H, W, C), float32.
        repeats: Number of timed evaluations after the first one, which compiles.
    """

    images: NDArray[np.float32]
    repeats: int


Request = FactsRequest | CaseRequest | BuildRequest | ForwardRequest


@dataclass(frozen=True)
class Failure:
    """The reply to a request that could not be answered.

    Attributes:
        kind: The sort of failure.
        message: A sentence, or a traceback; it names the subject.
    """

    kind: FailureKind
    message: str
