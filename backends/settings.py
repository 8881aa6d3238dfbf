"""Keep Keras's settings, which a user may have changed, from changing a network."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras

from nfspec.arguments import one_of

POLICIES = (
    "float32", "float64", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16",
)  # fmt: skip


def policy_of(dtype: str | None) -> keras.DTypePolicy:
    """The dtype policy asked for, or else the one that the user set in Keras.

    Keras takes its `floatx` for a policy if none was set. This function warns and takes float32
    instead: a user has one keras.json for all programs, and has to ask for a network in float16.

    Raises:
        InputError: `dtype` is not one of POLICIES.
    """
    if dtype is not None:
        return keras.DTypePolicy(one_of("dtype", dtype, POLICIES))
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    if floatx == "float32" or policy.name != floatx:
        return policy
    warnings.warn(
        f"Keras is set to floatx {floatx}, by keras.config.set_floatx or in keras.json. The "
        f'network is compiled in float32 all the same; for another one, give dtype="{floatx}"',
        stacklevel=5,
    )
    return keras.DTypePolicy("float32")


@contextlib.contextmanager
def float32_data() -> Iterator[None]:
    """Set floatx to float32 within a block: Keras rounds arrays, losses and rates to it.

    Keras has no argument for that dtype (keras/src/trainers/data_adapters/array_slicing.py, as of
    3.15).
    """
    users = keras.config.floatx()
    keras.config.set_floatx("float32")
    try:
        yield
    finally:
        keras.config.set_floatx(users)


def _on_float32(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def on_float32(self: Any, *args: Any, **kwargs: Any) -> Any:
        with float32_data():
            return method(self, *args, **kwargs)

    return on_float32


class Float32Data:
    """A model whose `fit`, `evaluate` and `predict` take data in float32 for any floatx."""

    fit = _on_float32(keras.Model.fit)
    evaluate = _on_float32(keras.Model.evaluate)
    predict = _on_float32(keras.Model.predict)
    train_on_batch = _on_float32(keras.Model.train_on_batch)
    test_on_batch = _on_float32(keras.Model.test_on_batch)
    predict_on_batch = _on_float32(keras.Model.predict_on_batch)
