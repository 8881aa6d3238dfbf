"""Faults of activations, attention, pooling, wiring and the head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from nfspec.conformance.cases.case import Arrays
from nfspec.conformance.cases.precision import truncated
from nfspec.conformance.faults.base import (
    IN_GRADIENTS,
    Fault,
    of_arrays,
    of_kind,
    of_params,
    patched,
)
from nfspec.plan import ECA, Activation, Dense, Operation, Plan, Pool, Residual, SqueezeExcite

GELUS = {"gelu_tanh": "gelu_erf", "gelu_erf": "gelu_tanh"}
WIRING = ("NET-03", "NET-01", "BLOCK-01")


def _betas(rule: Callable[[int, float], float]) -> Callable[[Plan], Plan]:
    """Betas from another rule for the variance: a block's index in its stage, and alpha."""

    def change(plan: Plan) -> Plan:
        betas = {row.name: rule(row.index, row.alpha) for row in plan.blocks}
        return replace(
            plan,
            ops=tuple(
                replace(op, beta=betas.get(plan.section(op), op.beta))
                if isinstance(op, Activation) and op.name.endswith(".act0")
                else op
                for op in plan.ops
            ),
        )

    return change


def _rewired(change: Callable[[Plan, Operation], Operation]) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, ops=tuple(change(plan, op) for op in plan.ops))


def _raw_shortcut(plan: Plan, op: Operation) -> Operation:
    """The shortcut's first operation reads the block's input, not its activation."""
    by_name = {other.name: other for other in plan.ops}
    first = op.name.endswith((".shortcut_pool", ".conv_shortcut"))
    if first and op.inputs[0].endswith(".act0"):
        return replace(op, inputs=by_name[op.inputs[0]].inputs)
    return op


def _attention_skipped(plan: Plan, op: Operation) -> Operation:
    """The readers of an attention layer read its input instead."""
    around = {o.name: o.inputs[0] for o in plan.ops if isinstance(o, SqueezeExcite | ECA)}
    return replace(op, inputs=tuple(around.get(name, name) for name in op.inputs))


def _final_activation(plan: Plan, op: Operation) -> Operation:
    if op.name == "final_act":
        assert isinstance(op, Activation)
        return replace(op, kind="identity")
    return op


def _swapped(params: Arrays) -> Arrays:
    """The two kxk convs of each block exchanged, which have kernels of the same shape."""
    swapped = dict(params)
    for name in params:
        other = name.replace(".conv1.", ".conv1b.")
        if other != name and other in params and params[name].shape == params[other].shape:
            swapped[name], swapped[other] = params[other], params[name]
    return swapped


def _counts_padding(original: Any) -> Any:
    """An average pool that divides by the window, padding or not."""

    def call(layer: Any, x: Any) -> Any:
        from keras import ops

        y = original(layer, x)
        if layer.kind != "avg":
            return y
        inside = ops.ones_like(x[:1, :, :, :1])
        total = ops.average_pool(
            ops.pad(inside, [(0, 0), (0, 1), (0, 1), (0, 0)]), layer.window, layer.strides, "valid"
        )
        return y * total[:, : y.shape[1], : y.shape[2]]

    return call


def _zero_padding(original: Any) -> Any:
    """A maximum that sees zeros in the padding."""

    def call(layer: Any, x: Any) -> Any:
        from keras import ops

        y = original(layer, x)
        if layer.kind != "max":
            return y
        # A border of the output is where windows reach beyond the image.
        edge = np.zeros((1, *y.shape[1:3], 1), np.float32)
        edge[:, -1], edge[:, :, -1] = 1.0, 1.0
        border = ops.convert_to_tensor(edge, y.dtype)
        return ops.where(border > 0, ops.maximum(y, ops.zeros_like(y)), y)

    return call


POOL = "nfspec.backends.layers.pooling:SpatialPool.call"
ACTIVATE = "nfspec.backends.kernels.plain:activate"
MEAN = "nfspec.backends.layers.pooling:SpatialMean.call"


def _cubed(finite: bool) -> Any:
    """Activations that compute a cube, which overflows; with `finite`, its slope alone does."""

    def wrap(original: Any) -> Any:
        def activate(kind: str, slope: float) -> Any:
            from keras import ops

            def function(x: Any) -> Any:
                nothing = 0.0 * (x * x * x)
                if finite:
                    nothing = ops.where(ops.abs(x) < 1e3, nothing, ops.zeros_like(x))
                return original(kind, slope)(x) + nothing

            return function

        return activate

    return patched(ACTIVATE, wrap)


def _pixel_missing(original: Any) -> Any:
    return lambda layer, x: original(layer, x[:, :-1])


def _batch_mean(original: Any) -> Any:
    def call(layer: Any, x: Any) -> Any:
        from keras import ops

        y = original(layer, x)
        return y + 1e-4 * ops.mean(y, axis=0, keepdims=True)

    return call


def _activation(name: str, what: str, *first: str, **changes: Any) -> Fault:
    alone = changes.pop("alone", "")
    return Fault(name, what, first or ("ACT-01",), alone=alone, op=of_kind(Activation, **changes))


NETWORKS = (
    _activation("act-gelu-kind", "the other GELU", "ACT-01", "ACT-02",
                kind=lambda op: GELUS.get(op.kind, op.kind)),
    _activation("act-gamma-digits", "gamma to four digits, such as 1.788 for 1.78813",
                gamma=lambda op: float(f"{op.gamma:.4g}")),
    _activation("act-no-gamma", "gamma left out", gamma=lambda op: 1.0),
    _activation("act-slope", "leaky_relu's slope 0.2", slope=lambda op: 0.2,
                alone="no built-in network has a leaky_relu"),
    _activation("act-no-beta", "beta left out", "ACT-01", beta=lambda op: 1.0),
    _activation("act-beta-place", "beta on the other side of the activation",
                beta_at=lambda op: "after" if op.beta_at == "before" else "before"),
    Fault("act-overflow", "a cube that is multiplied by 0 overflows",
          ("ACT-01", "ACT-02"), patch=_cubed(False),
          alone="numbers of networks are not so large"),
    Fault("act-slope-overflow", "a cube that overflows in the slope alone", ("ACT-02",),
          patch=_cubed(True), alone=IN_GRADIENTS),
    Fault("block-alpha", "alpha 0.2002 for 0.2", ("RES-01",),
          op=of_kind(Residual, alpha=lambda op: op.alpha * 1.001)),
    Fault("block-no-skip-gain", "the skip gain left out", ("RES-01",),
          arrays=of_arrays(Residual, lambda op, call: {
              "skip_gain": np.ones(())} if "skip_gain" in call else {})),
    Fault("block-no-reset", "expected variance not reset by a stage's first block", WIRING,
          of_plan=_betas(lambda i, alpha: (1.0 + alpha**2 * (i + 1)) ** -0.5)),
    Fault("block-late-variance", "expected variance one block behind after the reset", WIRING,
          of_plan=_betas(lambda i, alpha: (1.0 + alpha**2 * max(0, i - 1)) ** -0.5)),
    Fault("block-raw-shortcut", "the shortcut reads the block's input", WIRING,
          of_plan=_rewired(_raw_shortcut)),
    Fault("block-weights-swapped", "the two kxk convs exchanged", WIRING, params=_swapped),
    Fault("block-no-attention", "the attention layer skipped", WIRING,
          of_plan=_rewired(_attention_skipped)),
    Fault("se-gain", "squeeze-and-excitation without its factor of 2", ("SE-01", "SE-02"),
          op=of_kind(SqueezeExcite, gain=lambda op: 0.5 * op.gain)),
    Fault("se-activation", "another activation within squeeze-and-excitation", ("SE-01",),
          op=of_kind(SqueezeExcite, activation=lambda op: "gelu_tanh")),
    Fault("se-no-bias", "squeeze-and-excitation without its second bias", ("SE-01",),
          arrays=of_arrays(SqueezeExcite, lambda op, call: {
              "fc1.bias": np.zeros_like(call["fc1.bias"])})),
    Fault("eca-flipped", "ECA's taps in reverse", ("ECA-01",),
          arrays=of_arrays(ECA, lambda op, call: {"kernel": call["kernel"][::-1]})),
    Fault("eca-gain", "ECA without its factor of 2", ("ECA-01", "ECA-02"),
          op=of_kind(ECA, gain=lambda op: 0.5 * op.gain)),
    Fault("pool-counts-padding", "an average that counts padding",
          ("EXACT-03", "POOL-01", "POOL-02"),
          patch=patched(POOL, _counts_padding)),
    Fault("pool-cut-short", "zeros left out of an average that counts them",
          ("EXACT-03", "POOL-01", "POOL-02"), op=of_kind(Pool, counted=lambda op: False)),
    Fault("pool-zero-padding", "a maximum that sees zeros beyond the image",
          ("EXACT-03", "POOL-01"), patch=patched(POOL, _zero_padding)),
    Fault("pool-padding", "symmetric padding for same, or the reverse", ("EXACT-03", "POOL-01"),
          op=of_kind(Pool, padding=lambda op: "same" if op.padding == "symmetric"
                     or op.kind == "avg" else "symmetric")),
    Fault("mean-pixel-missing", "the last row left out of the global mean", ("MEAN-01",),
          patch=patched(MEAN, _pixel_missing)),
    Fault("head-no-activation", "no activation after the final conv", WIRING,
          of_plan=_rewired(_final_activation)),
    Fault("head-no-bias", "the classifier without its bias", ("FC-01",),
          arrays=of_arrays(Dense, lambda op, call: {"bias": np.zeros_like(call["bias"])})),
    Fault("head-bf16", "the classifier's kernel rounded to bfloat16", ("FC-01", "FC-02"),
          arrays=of_arrays(Dense, lambda op, call: {"kernel": truncated(call["kernel"], 7)})),
    Fault("head-batch-mean", "1e-4 of the batch's mean added to each image", ("NET-02",),
          patch=patched(MEAN, _batch_mean)),
    Fault("weights-f16", "kernels stored in half precision", ("WEIGHTS-01",),
          params=of_params(".kernel", lambda value: value.astype(np.float16))),
)  # fmt: skip
