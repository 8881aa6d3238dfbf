"""The door to the frameworks: nothing here imports one until a model is asked for."""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from nfspec import weights
from nfspec.arguments import flag, instance, number, one_of, refuse
from nfspec.errors import BackendError, InputError, suggest
from nfspec.language.spec import Spec
from nfspec.plan import Plan
from nfspec.plan.clipping import TreatAs, require_agc
from nfspec.plan.initialise import Params
from nfspec.plan.remat import DEPTHS
from nfspec.plan.resolver import resolve
from nfspec.rewrites import folding
from nfspec.rewrites.cutting import cut
from nfspec.rewrites.folding import Folded
from nfspec.wording import printable

if TYPE_CHECKING:
    import keras

Backend = Literal["jax", "torch", "tensorflow"]
BACKENDS: tuple[Backend, ...] = ("jax", "torch", "tensorflow")


def missing(backend: str) -> str | None:
    """The message that names packages to install for a backend; None if all are installed."""
    absent = [name for name in ("keras", backend) if importlib.util.find_spec(name) is None]
    if not absent:
        return None
    return f"{' and '.join(absent)} not installed; run: pip install {' '.join(absent)}"


def default_backend() -> str:
    """`KERAS_BACKEND`, or else the first framework that is installed.

    Raises:
        BackendError: None is.
    """
    if chosen := os.environ.get("KERAS_BACKEND"):
        return chosen
    for backend in BACKENDS:
        if missing(backend) is None:
            return backend
    raise BackendError(f"no framework is installed; run: pip install keras {BACKENDS[1]}")


def select(backend: str) -> None:
    """Make Keras run on a backend in this process, or say why it cannot.

    Raises:
        BackendError: Unknown, not installed, or Keras cannot be imported or runs on another one.
    """
    if backend not in BACKENDS:
        choices = ", ".join(BACKENDS)
        raise BackendError(
            f'no backend "{backend}"; expected one of {choices}{suggest(str(backend), BACKENDS)}'
        )
    if (message := missing(backend)) is not None:
        raise BackendError(f"{backend}: {message}")
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = backend
    try:
        import keras
    except (ImportError, OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        home = os.environ.get("KERAS_HOME") or "~/.keras"
        raise BackendError(
            f"Keras cannot be imported on {backend}: {error}. Its settings are {home}/keras.json "
            "and the environment variables KERAS_...; fix them, or delete that file"
        ) from None

    if (running := keras.backend.backend()) != backend:
        raise BackendError(
            f"Keras already runs on {running} in this process, and cannot change to {backend}. "
            f'Use backend="{running}", or start a new process and call nfspec.compile before '
            f"anything imports keras, or with KERAS_BACKEND={backend} set"
        )


def compile(
    spec: Spec | Plan,
    backend: Backend,
    params: Params | None = None,
    *,
    taps: bool | Sequence[str] = False,
    features: bool = False,
    top: bool = True,
    data_format: Literal["channels_last", "channels_first"] = "channels_last",
    dtype: str | None = None,
    folded: bool = False,
    plain: bool = False,
    fit: bool = False,
    remat: Literal["none", "block", "stage"] = "none",
) -> keras.Model:
    """Compile a spec or a plan to a Keras model on one framework.

    Args:
        spec: The spec that `nfspec.load` returned, or the plan that `nfspec.resolve` made of it.
        backend: The framework. Keras runs on one in a process; the first call decides.
        params: Canonical name to float32 array; `nfspec.init(plan)` if not given.
        taps: Return a dict of named taps (stem, each block, features, pool, logits) instead of the
            logits; of all, or of those that are named, as in `["stages.2.blocks.5", "pool"]`.
        features: Return a list, the feature pyramid: the taps of `plan.features`, in that order.
        top: False to return the embedding before the classifier, (N, channels), the tap `pool`.
            Of these three, one is given. What no output needs is left out of the network: it has
            no layers for that, and `params` may have no values for it.
        data_format: Layout of the images, (N, H, W, C) or (N, C, H, W). Parameters do not change.
        dtype: A Keras dtype policy, such as "mixed_bfloat16". If not given, that of
            `keras.config.set_dtype_policy`, or else float32: Keras's floatx, epsilon and
            image_data_format change nothing here. Pooling and classifier are in float32 under any
            policy but a float64 one. With "mixed_float16" the loss is scaled when the model is
            compiled with an optimizer; a model of your own around this one needs that policy
            itself.
        folded: For inference alone: plain convs, their kernels standardised once. See `fold`.
        plain: Keras's own operations, with every scalar where the spec has it: the same network,
            slower, to compare with.
        fit: Take `params` of another number of classes or input channels, or without a classifier,
            and change them as `nfspec.weights.fit` does; a FitWarning says each change.
        remat: Keep the inputs of each block, or of each stage, for the backward pass, and compute
            the rest again then: less memory, and their forward pass twice. Values and gradients
            are the same, and what is dropped at random is, too. XLA undoes it on CPUs, so that it
            saves nothing on JAX there. Files of a model do not say it.

    Returns:
        A functional model of images of any size. `model.plan` is the network as it was written,
        `model.executed_plan` what the layers do after the scalars were moved. On PyTorch `train()`
        and `eval()` say whether it drops at random where `training=` is not given, and it starts
        in `eval()` mode.

    Raises:
        BackendError: The framework is missing, Keras cannot be imported or runs on another one.
        InputError: An argument has a wrong type or value, or the parameters do not fit the memory.
        WeightError: `params` do not fit the spec.
    """
    if not isinstance(spec, Spec | Plan):
        raise refuse("spec", "what nfspec.load or nfspec.resolve returns", spec)
    one_of("data_format", data_format, ("channels_last", "channels_first"))
    one_of("remat", remat, tuple(DEPTHS))
    for name, value in {"folded": folded, "plain": plain, "fit": fit, "features": features}.items():
        flag(name, value)
    outputs = _outputs(spec, taps, features, top)
    select(backend)
    if fit and params is not None:
        params = _fitted(spec, params)
    if outputs:
        whole = resolve(spec) if isinstance(spec, Spec) else spec
        spec = cut(whole, outputs)
        if params is not None:
            left_out = whole.parameters.keys() - spec.parameters.keys()
            params = {name: value for name, value in params.items() if name not in left_out}
    from nfspec.backends import compiler

    model = compiler.build(
        spec, params, taps=bool(taps), listed=features, data_format=data_format, dtype=dtype,
        folded=folded, plain=plain,
    )  # fmt: skip
    model.compute_again(remat)
    return model


def _outputs(
    spec: Spec | Plan, taps: bool | Sequence[str], features: bool, top: bool
) -> tuple[str, ...]:
    """Names of the outputs where they are some of the taps; empty for all taps or the logits.

    Raises:
        InputError: An argument has a wrong type, names no tap, or excludes another.
    """
    flag("top", top)
    if not isinstance(taps, bool) and (isinstance(taps, str) or not isinstance(taps, Sequence)):
        raise refuse("taps", "True, False, or a list of names", taps)
    if not isinstance(taps, bool) and not taps:
        raise refuse("taps", "one name or more", taps)
    if bool(taps) + features + (not top) > 1:
        raise InputError("taps, features and top=False: give one of them")
    if not (features or not top or not isinstance(taps, bool)):
        return ()
    plan = resolve(spec) if isinstance(spec, Spec) else spec
    if features:
        return tuple(feature.name for feature in plan.features)
    names = ("pool",) if not top else tuple(dict.fromkeys(taps))  # type: ignore[arg-type]
    for name in names:
        if name not in plan.taps:
            known = ", ".join(plan.taps)
            raise InputError(
                f"taps: expected some of {known}; found {name!r}{suggest(str(name), plan.taps)}"
            )
    return names


def _fitted(spec: Spec | Plan, params: Params) -> Params:
    """Parameters that fit, with a warning for each change."""
    fitted = weights.fit(params, resolve(spec) if isinstance(spec, Spec) else spec)
    for change in fitted.changes:
        warnings.warn(change, weights.FitWarning, stacklevel=3)
    return fitted.params


@overload
def fold(plan_or_model: Plan, params: Params) -> Folded: ...
@overload
def fold(plan_or_model: keras.Model) -> keras.Model: ...
def fold(plan_or_model: Any, params: Params | None = None) -> Any:
    """The network for inference, of plain convs: `nfspec.rewrites.folding` says what goes where.

    Outputs are those of the network but for rounding, and so are its taps. Dropout and stochastic
    depth are gone.

    Args:
        plan_or_model: A plan that `resolve` returned, or a model that `compile` returned.
        params: Parameters of the plan; for a model, its own are taken as they are now.

    Returns:
        For a plan, a `Folded` plan with its parameters. For a model, another model, on the same
        framework, in the same layout and dtype.

    Raises:
        InputError: The model was not returned by `compile`.
        WeightError: `params` do not fit the plan.
    """
    if isinstance(plan_or_model, Plan):
        if params is None:
            raise InputError("fold: a plan has no parameters; give them: fold(plan, params)")
        return folding.fold(plan_or_model, params)
    if params is not None:
        raise InputError("fold: a model has parameters of its own; give the model alone")
    from nfspec.backends import compiler

    return compiler.fold(plan_or_model)


def unfold(folded: Any) -> tuple[Plan, Params]:
    """The plan and the parameters that something was folded from, as they were.

    Args:
        folded: The model or network that `fold` returned, or `compile` with `folded`.

    Raises:
        InputError: Something else.
    """
    held = getattr(folded, "folded", None) or folded  # a model's, if it was folded
    if not isinstance(held, Folded):
        raise InputError(f"unfold: expected what nfspec.fold returned; found {type(held).__name__}")
    return held.unfold()


def load_model(path: str | Path, backend: Backend | None = None) -> keras.Model:
    """Load a model that was saved with `model.save("x.keras")`, optimizer included.

    `keras.saving.load_model` does the same once `nfspec.backends.register` is imported.

    Args:
        path: The .keras file.
        backend: The framework, which need not be the one that it was saved on. If not given, the
            one that Keras runs on, or else `KERAS_BACKEND`, or the first that is installed.

    Raises:
        BackendError: The framework is missing, Keras cannot be imported or runs on another one.
        InputError: There is no such file, or Keras cannot load it.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{printable(str(path))}: there is no such file")
    if backend is None and "keras" in sys.modules:
        backend = sys.modules["keras"].backend.backend()
    select(backend or default_backend())
    import keras

    from nfspec.backends import register  # noqa: F401  (it acts as it is imported)

    try:
        return keras.saving.load_model(file)
    except Exception as error:  # Keras raises whatever what is in the file leads to
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"{printable(str(path))}: Keras cannot load it: {reason}") from error


def names_of(model: Any) -> list[str]:
    """Canonical names of `model.trainable_variables`, in their order.

    Args:
        model: A model that `compile` returned, or a Keras model of such layers alone.

    Raises:
        WeightError: A variable belongs to another layer.
    """
    from nfspec.backends import compiler

    return compiler.names_of(model)


def params_of(model: Any, *, average: bool = False) -> Params:
    """Read the parameters out of a live model.

    Args:
        model: A model that `compile` returned, or a Keras model with such layers in it.
        average: The moving averages that the model's optimizer keeps, instead; parameters that it
            does not train are as they are.

    Returns:
        Canonical name to float32 array.

    Raises:
        WeightError: The model has no nfspec layers, or its optimizer keeps no averages.
    """
    from nfspec.backends import compiler

    return compiler.params_of(model, flag("average", average))


def agc(
    plan: Plan,
    optimizer: keras.optimizers.Optimizer,
    treat_as: TreatAs | None = None,
    *,
    plain: bool = False,
) -> keras.optimizers.Optimizer:
    """Put adaptive gradient clipping, as a plan's `[agc]` says, around a Keras optimizer.

    Gradients are clipped where the optimizer takes its step: once for each, unscaled, accumulated
    and reduced over devices. For training without Keras's loop, see `nfspec.backends.jax`, `.torch`
    and `.tensorflow`.

    Args:
        plan: The network that the optimizer trains.
        optimizer: Any Keras optimizer but a LossScaleOptimizer, which goes outside.
        treat_as: For variables of other layers, their path to the name of the plan's parameter
            that each is clipped like, or to None for those that are not clipped. A `*` stands for
            any characters, and the longest pattern counts: `{"decoder/*": "head.fc.kernel",
            "decoder/*bias": None}`. The last axis of a kernel is its outputs.
        plain: Use the plain kernels, as a network compiled with `plain=True` does.

    Raises:
        InputError: The spec says that it trains without AGC, or a name is not known.
    """
    from nfspec.backends.optimizers import AGC
    from nfspec.backends.roles import treated_as

    require_agc(plan)
    import keras

    instance("optimizer", optimizer, keras.optimizers.Optimizer, "a class of keras.optimizers")
    return AGC(optimizer, plan.agc, treated_as(plan, treat_as), plain)


def sam(model: keras.Model, rho: float = 0.05, fraction: float = 1.0) -> keras.Model:
    """A model that trains the same parameters with sharpness-aware minimisation.

    Args:
        model: A model that `compile` returned, without taps. Compile the new model, not this one.
        rho: Length of the ascent (Foret et al. 2021, arXiv:2010.01412, eq. 2).
        fraction: Share of each batch that the ascent is computed on, above 0 and up to 1.

    Raises:
        InputError: An argument has a wrong type or value.
    """
    number("rho", rho, 0.0)
    number("fraction", fraction, 0.0, 1.0, above=True)
    from nfspec.backends.compiler import require_layer
    from nfspec.backends.sam import SharpnessAware

    require_layer(model)
    return SharpnessAware(model, rho, fraction)
