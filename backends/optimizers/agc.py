"""Adaptive gradient clipping around any Keras optimizer (Brock et al. 2021, arXiv:2102.06171)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from nfspec.backends.kernels import kernels
from nfspec.backends.optimizers.wrapper import OptimizerWrapper
from nfspec.backends.roles import TreatedAs, identify
from nfspec.language.tables import AGC as Table
from nfspec.plan.clipping import ClipRule, clip_rule


@keras.saving.register_keras_serializable(package="nfspec")
class AGC(OptimizerWrapper):
    """Clips each unit's gradient to a multiple of its parameters' norm, then lets `inner` step.

    Norms are in float32 at least, of gradients that are unscaled, accumulated and reduced over
    devices. `nfspec.agc` makes one from a plan.

    Args:
        inner: Any Keras optimizer.
        agc: The `[agc]` table of a spec.
        treat_as: For variables of other layers, a pattern of their paths to the name and role of
            the parameter that each is clipped like, or to None for not at all.
        plain: Use the plain kernels, as a network compiled with `plain=True` does.
    """

    def __init__(
        self,
        inner: keras.optimizers.Optimizer,
        agc: Table,
        treat_as: TreatedAs | None = None,
        plain: bool = False,
        name: str | None = None,
    ):
        super().__init__(inner, name=name)
        self.agc = agc
        self.treat_as = dict(treat_as or {})
        self.plain = plain

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        parts = identify(variables, self.treat_as)
        super().build(variables)
        # Under the variable's key, which TensorFlow's bare variables have too.
        self._rules: dict[Any, ClipRule] = {}
        self._fractions: dict[Any, keras.Variable] = {}
        self._names: dict[Any, str] = {}
        for variable, part in zip(variables, parts, strict=True):
            if part is None:
                continue
            rule = clip_rule(self.agc, *part, tuple(variable.shape))
            if rule.clipping is None:
                continue
            name = getattr(variable, "canonical", variable.path)
            key = self.stepper._var_key(variable)
            self._rules[key] = rule
            self._names[key] = name
            self._fractions[key] = self.stepper.add_variable(
                (),
                "zeros",
                "float32",
                name=f"{name.replace('.', '_').replace('/', '_')}_clip_fraction",
            )

    def before(self, gradients: list[Any], variables: Sequence[Any]) -> list[Any]:
        keys = [self.stepper._var_key(variable) for variable in variables]
        places = [i for i, key in enumerate(keys) if key in self._rules]
        clipped, fractions = kernels(self.plain).clip_all(
            [gradients[i] for i in places],
            [variables[i] for i in places],
            [self._rules[keys[i]] for i in places],
        )
        for i, gradient in zip(places, clipped, strict=True):
            gradients[i] = gradient
        kept = [self._fractions[keys[i]] for i in places]
        kernels(self.plain).assign_all(self.stepper, kept, fractions)
        return gradients

    def clip_fractions(self) -> dict[str, tuple[float, int]]:
        """Clipping in the last step: name of each parameter that AGC may clip to the fraction of
        its units that were clipped, and the number of its units."""
        if not self._fractions:
            return {}
        # All at once: each copy to the host waits for the device.
        fractions = ops.convert_to_numpy(ops.stack([f.value for f in self._fractions.values()]))
        return {
            self._names[key]: (float(fraction), self._rules[key].units)
            for key, fraction in zip(self._fractions, fractions, strict=True)
        }

    def get_config(self) -> dict[str, Any]:
        treat_as = {path: part and list(part) for path, part in self.treat_as.items()}
        agc = self.agc.model_dump(mode="json")
        return {**super().get_config(), "agc": agc, "treat_as": treat_as, "plain": self.plain}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> OptimizerWrapper:
        config["agc"] = Table.model_validate_json(json.dumps(config["agc"]))
        config["treat_as"] = {
            path: part and tuple(part) for path, part in config["treat_as"].items()
        }
        return super().from_config(config, custom_objects)
