"""Values that Keras takes out of a model on JAX, and back in the model after a step that failed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import wraps
from typing import Any

import keras


class Lends:
    """A model that has its values after `fit`, `evaluate` or `predict` was interrupted.

    On JAX, Keras gives a model's values to the step and leaves None in the variables until the
    step is done (as of 3.15): after images of a wrong shape, or Ctrl-C while the first step is
    compiled, every later call would fail.
    """

    _lent: tuple[tuple[Any, Any], ...] = ()

    def _purge_model_variables(self: Any, **which: bool) -> None:  # not public, as of Keras 3.15
        optimizer = getattr(self, "optimizer", None)
        variables = [*self.variables, *self.metrics_variables]
        variables += optimizer.variables if optimizer else []
        lent = tuple((variable, variable._value) for variable in variables)
        object.__setattr__(self, "_lent", lent)  # past Keras, which would track the variables
        super()._purge_model_variables(**which)  # type: ignore[misc]  # of keras.Model

    @contextlib.contextmanager
    def _given_back(self: Any) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if keras.backend.backend() == "jax":
                self.jax_state_sync()  # what the last whole step computed
            for variable, value in self._lent:
                if variable._value is None and not value.is_deleted():
                    variable._value = value
            raise
        finally:
            object.__setattr__(self, "_lent", ())

    @wraps(keras.Model.fit)
    def fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._given_back():
            return super().fit(*args, **kwargs)  # type: ignore[misc]

    @wraps(keras.Model.evaluate)
    def evaluate(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._given_back():
            return super().evaluate(*args, **kwargs)  # type: ignore[misc]

    @wraps(keras.Model.predict)
    def predict(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._given_back():
            return super().predict(*args, **kwargs)  # type: ignore[misc]
