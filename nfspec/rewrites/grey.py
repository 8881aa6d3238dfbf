"""Weights for images of one channel, made from weights for images of several channels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nfspec.errors import WeightError
from nfspec.plan import INPUT, Plan, WSConv
from nfspec.plan.initialise import Params
from nfspec.reference.operations import divisor
from nfspec.weights import check


def to_grey(plan: Plan, params: Params, grey: Plan) -> Params:
    """Turn weights for images of several channels into weights for grey images, of one channel.

    The new network has the same logits on a grey image as the old one on an image in which every
    channel is a copy of it.

    The kernels that read the image are summed over its channels. Weight standardisation divides a
    kernel W by a scale s(W), and so would undo the change of size; therefore each gain is
    multiplied by s(sum of W) / s(W). Logits are the same up to the rounding of kernels and gains to
    float32, for images whose channels are alike once they are normalised by mean and std.

    Args:
        plan: The network that the weights are of, such as one of RGB images.
        params: Its parameters: canonical name to float32 array.
        grey: The same network with `input.channels = 1`.

    Returns:
        Parameters of `grey`.

    Raises:
        WeightError: `params` do not fit `plan`, or the two networks differ in more than the
            channels.
    """
    arrays = check(plan, params)
    first = {op.name: op for op in grey.ops if isinstance(op, WSConv) and op.inputs == (INPUT,)}
    adapted = tuple(
        replace(op, in_channels=1, kernel_init=first[op.name].kernel_init)
        if isinstance(op, WSConv) and op.name in first
        else op
        for op in plan.ops
    )
    if grey.channels != 1 or adapted != grey.ops:
        raise WeightError(
            f"{plan.name} and {grey.name}: expected the same network, with several channels and "
            "with one; they differ in more than input.channels"
        )
    for op in plan.ops:
        if isinstance(op, WSConv) and op.name in first:
            kernel = np.asarray(arrays[f"{op.name}.kernel"], np.float64)
            gain = np.asarray(arrays[f"{op.name}.gain"], np.float64)
            total = kernel.sum(axis=2, keepdims=True).astype(np.float32)
            scale = divisor(first[op.name], total.astype(np.float64)) / divisor(op, kernel)
            arrays[f"{op.name}.kernel"] = total
            arrays[f"{op.name}.gain"] = (gain * scale).astype(np.float32)
    return check(grey, arrays)
