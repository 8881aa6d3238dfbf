"""Faults of the kit itself, between a subject and its judge."""

from __future__ import annotations

from typing import Any

import numpy as np

from nfspec.conformance.faults.base import Fault

Reply = dict[str, Any]


def _outputs(change: Any) -> Any:
    """A change of a reply's first output."""

    def changed(reply: Reply) -> Reply:
        outputs = dict(reply["outputs"])
        name = next(iter(outputs))
        new = change(np.array(outputs[name]))
        if new is None:
            del outputs[name]
        else:
            outputs[name] = new
        return {**reply, "outputs": outputs}

    return changed


def _nan(array: Any) -> Any:
    array = array.astype(np.float32)
    array.flat[-1] = np.nan
    return array


_before: list[Reply] = []


def _stale(reply: Reply) -> Reply:
    """The reply to the request before, as of a pipe that is one message behind."""
    _before.append(reply)
    return _before[-2] if len(_before) > 1 else {**reply, "case": "none yet"}


HARNESS = (
    Fault("reply-nan", "one output is NaN", reply=_outputs(_nan)),
    Fault("reply-missing", "an output left out", reply=_outputs(lambda array: None)),
    Fault("reply-shape", "an output without its last axis", reply=_outputs(lambda a: a[..., 0])),
    Fault("reply-zeros", "outputs of zeros, as if never written", reply=_outputs(np.zeros_like)),
    Fault("reply-stale", "the reply to another case", reply=_stale),
    Fault("reply-other-inputs", "a worker that drew other arrays",
          reply=lambda reply: {**reply, "inputs": "0" * 64}),
    Fault("reply-other-subject", "a reply under another worker's label",
          reply=lambda reply: {**reply, "pid": 0}),
)  # fmt: skip
