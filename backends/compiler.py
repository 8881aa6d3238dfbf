"""Plan to Keras functional model: one layer for each operation, in order."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from nfspec import plan as p
from nfspec.arguments import refuse
from nfspec.backends import layers
from nfspec.backends.layers.base import NFLayer
from nfspec.backends.network import Network, executed, spec_of
from nfspec.backends.optimizers import EMA
from nfspec.backends.optimizers.wrapper import first_of_kind
from nfspec.backends.settings import policy_of
from nfspec.backends.values import array_of
from nfspec.errors import InputError, WeightError
from nfspec.language.spec import Spec
from nfspec.plan.free_memory import require_free_memory
from nfspec.plan.initialise import Params, draw_in_order, init
from nfspec.plan.resolver import resolve
from nfspec.rewrites import folding
from nfspec.weights import check


def layer_of(
    op: p.Operation, data_format: str, dtype: Any, plain: bool = False
) -> keras.layers.Layer:
    """The Keras layer of an operation, not yet built.

    Args:
        op: Operation of a plan.
        data_format: `channels_last` or `channels_first`.
        dtype: A Keras dtype policy.
        plain: True to use the plain kernels.
    """
    name = op.name.replace(".", "_")
    common: dict[str, Any] = {"name": name, "dtype": dtype, "canonical": op.name, "plain": plain}
    image = {**common, "data_format": data_format}
    match op:
        case p.WSConv():
            return _ws_conv(op, image)
        case p.Conv():
            return layers.Conv2D(
                op.out_channels,
                op.kernel,
                kind=op.activation,
                slope=op.slope,
                **_geometry(op, image),
            )
        case p.Activation():
            return layers.ScaledActivation(
                op.kind,
                gamma=op.gamma,
                beta=op.beta,
                beta_at=op.beta_at,
                slope=op.slope,
                **common,
            )
        case p.Pool():
            return layers.SpatialPool(
                op.kind,
                op.window,
                strides=op.stride,
                padding=op.padding,
                counted=op.counted,
                **image,
            )
        case p.SqueezeExcite():
            return _squeeze_excite(op, image)
        case p.ECA():
            return layers.EfficientChannelAttention(
                op.kernel, gain=op.gain, gate_only=op.gate_only, **image
            )
        case p.StochasticDepth():
            return layers.StochasticDepth(op.rate, rescale=op.rescale, **common)
        case p.Residual():
            image["canonical"] = op.block
            return layers.Residual(
                op.alpha, skip_gain=op.skip_gain, skip_gain_init=op.skip_gain_init, **image
            )
        case p.GlobalPool():
            return layers.SpatialMean(scale=op.scale, **image)
        case p.Dropout():
            return layers.Dropout(op.rate, **common)
        case p.Dense():
            return layers.Classifier(op.out_features, init_std=op.init_std, **common)
        case _:
            raise p.unknown_operation(op, "nfspec.compile")


def _geometry(op: p.Convolution, common: dict[str, Any]) -> dict[str, Any]:
    steps = {"strides": op.stride, "dilation": op.dilation}
    return {**steps, "groups": op.groups, "padding": op.padding, **common}


def _ws_conv(op: p.WSConv, common: dict[str, Any]) -> keras.layers.Layer:
    return layers.WSConv2D(
        op.out_channels,
        op.kernel,
        eps=op.eps,
        eps_rule=op.eps_rule,
        ddof=op.ddof,
        gamma=op.gamma,
        init_scale=op.kernel_init.value**2 * op.fan_in,
        gain_init=op.gain_init,
        ws_dtype=op.dtype,
        **_geometry(op, common),
    )


def _squeeze_excite(op: p.SqueezeExcite, common: dict[str, Any]) -> keras.layers.Layer:
    return layers.SqueezeExcite(
        op.hidden,
        gain=op.gain,
        kind=op.activation,
        gamma=op.gamma,
        slope=op.slope,
        init=op.init,
        gate_only=op.gate_only,
        **common,
    )


def _head_policy(policy: keras.DTypePolicy) -> keras.DTypePolicy:
    """float32 for pooling and classifier where the rest computes in less."""
    narrow = policy.compute_dtype in ("float16", "bfloat16")
    return keras.DTypePolicy("float32") if narrow else policy


def build(
    network: Spec | p.Plan,
    params: Params | None,
    *,
    taps: bool,
    listed: bool,
    data_format: str,
    dtype: str | None,
    folded: bool,
    plain: bool,
) -> keras.Model:
    """See `nfspec.compile`; Keras already runs on the wanted framework."""
    spec = network.model_dump_json(by_alias=True) if isinstance(network, Spec) else ""
    plan = resolve(network) if isinstance(network, Spec) else network
    require_free_memory(plan, "compile", 1 if not folded else 2 if params is not None else 3)
    how: dict[str, Any] = {"taps": taps, "listed": listed, "plain": plain}
    how |= {"data_format": data_format, "dtype": dtype}
    if not folded:
        return assemble(plan, params, spec=spec, **how)
    params = init(plan) if params is None else params
    return _assemble_folded(folding.fold(plan, params), spec=spec, **how)


def _assemble_folded(folded: folding.Folded, *, spec: str, **how: Any) -> Network:
    spec = spec or spec_of(folded.original)
    model = assemble(folded.plan, folded.params, spec=spec, **how)
    model.folded = folded
    return model


def fold(model: keras.Model) -> keras.Model:
    """See `nfspec.fold`."""
    require_layer(model)
    plan = model.plan if isinstance(model, Network) else None
    if plan is None:
        raise InputError(
            f"{model.name} has no plan, since it is neither a model that nfspec.compile returned "
            "nor a copy of one; use nfspec.compile(spec, backend, nfspec.params_of(model), "
            "folded=True)"
        )
    first = next(layer for layer in model.layers if hasattr(layer, "data_format"))
    return _assemble_folded(
        folding.fold(plan, params_of(model, average=False)),
        taps=isinstance(model.output, dict),
        listed=isinstance(model.output, list),
        data_format=first.data_format,
        dtype=first.dtype_policy.name,
        plain=first.plain,
        spec=first.spec,
    )


def assemble(
    plan: p.Plan,
    params: Params | None,
    *,
    taps: bool,
    listed: bool = False,
    data_format: str,
    dtype: str | None,
    plain: bool = False,
    spec: str = "",
) -> Network:
    """The model of a plan, which may be a part of a network; arguments as of `nfspec.compile`.

    Its scalars are moved, unless it is to be plain.

    Args:
        spec: The spec that the plan was resolved from, as JSON, for copies and files of the model.
            If it is empty, they get one that is made from the plan.
    """
    written, plan = plan, executed(plan, taps=taps or listed, plain=plain)
    # Drawn one by one where they are built into the model, so that there is never a second copy.
    weights = draw_in_order(plan) if params is None else iter(check(plan, params).items())
    policy = policy_of(dtype)
    head = _head_policy(policy)

    sides = (None, None)
    shape = (*sides, plan.channels) if data_format == "channels_last" else (plan.channels, *sides)
    values = {p.INPUT: keras.Input(shape, name="image", dtype="float32")}
    for op in plan.ops:
        at_head = isinstance(op, p.GlobalPool | p.Dropout | p.Dense)
        layer = layer_of(op, data_format, head if at_head else policy, plain)
        if isinstance(layer, NFLayer):
            prefix = f"{layer.canonical}."
            own = dict(next(weights) for _ in op.parameters)
            layer.given = {name.removeprefix(prefix): value for name, value in own.items()}
            layer.spec, spec = spec, ""
        inputs = [values[name] for name in op.inputs]
        values[op.name] = layer(inputs if len(inputs) > 1 else inputs[0])
    tapped = {tap: values[name] for tap, name in plan.taps.items()}
    name = "".join(c if c.isalnum() else "_" for c in plan.name)
    outputs: Any = tapped if taps else [*tapped.values()]
    if not taps and not listed:
        outputs = tapped.get("logits", outputs[-1])
    model = Network(values[p.INPUT], outputs, name=name)
    model.keep_plan(written)
    return model


def require_layer(model: object) -> None:
    """Require a Keras model or layer.

    Raises:
        InputError: It is something else.
    """
    if not isinstance(model, keras.layers.Layer):
        raise refuse("model", "a Keras model, such as nfspec.compile returns", model)


def names_of(model: keras.Model) -> list[str]:
    """See `nfspec.names_of`."""
    require_layer(model)
    strangers = [v for v in model.trainable_variables if not hasattr(v, "canonical")]
    if strangers:
        listed = ", ".join(f"{v.path} {tuple(v.shape)}" for v in strangers)
        raise WeightError(f"{model.name}: these variables are in no layer of nfspec: {listed}")
    return [v.canonical for v in model.trainable_variables]


def _averages(model: keras.Model) -> dict[int, keras.Variable]:
    """Identity of each trained variable to its moving average."""
    optimizer = first_of_kind(getattr(model, "optimizer", None), EMA)
    if optimizer is None:
        raise WeightError(f"{model.name}: its optimizer keeps no averages")
    if not optimizer.built or int(keras.ops.convert_to_numpy(optimizer.iterations)) == 0:
        raise WeightError(f"{model.name}: no averages before the first training step")
    return {id(v): average for v, average in optimizer.averages}


def params_of(model: keras.Model, average: bool) -> Params:
    """See `nfspec.params_of`."""
    require_layer(model)
    averages = _averages(model) if average else {}
    params = {}
    for layer in model._flatten_layers():
        if isinstance(layer, NFLayer):
            for name, variable in layer.canonical_variables.items():
                value = averages.get(id(variable), variable)
                params[name] = np.array(array_of(value), np.float32)
    if not params:
        raise WeightError(f"{model.name}: no layer of this model was made by nfspec")
    # Keras's order is by depth, and rewrites change that.
    plan = model.plan if isinstance(model, Network) else None
    return {name: params[name] for name in plan.parameters} if plan else params
