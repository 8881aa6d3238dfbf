"""The inputs of the contestants: the same for each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec.benchmarks.works import Setup
from nfspec.conformance.cases.weights import trial_params
from nfspec.language.loader import load
from nfspec.language.overrides import ON_COMMAND_LINE, overriding, parsed
from nfspec.language.reading import Layer
from nfspec.language.spec import Spec
from nfspec.plan import Plan
from nfspec.plan.initialise import Params
from nfspec.plan.resolver import resolve


def changes_of(setup: Setup) -> list[Layer]:
    return overriding(parsed(setup.changes), ON_COMMAND_LINE)


def spec_of(setup: Setup) -> Spec:
    return load(setup.variant, changes_of(setup))


def plan_of(setup: Setup) -> Plan:
    return resolve(spec_of(setup))


def clipped_whole(plan: Plan) -> Plan:
    """A plan that clips every parameter, as timm's and optax's clipping do."""
    return replace(plan, agc=plan.agc.model_copy(update={"exclude": ()}))


def params_of(plan: Plan) -> Params:
    """Weights of which none is zero."""
    return trial_params(plan, 0)


def images(setup: Setup) -> NDArray[np.float32]:
    shape = (setup.batch, setup.size, setup.size, plan_of(setup).channels)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def images_nchw(setup: Setup) -> NDArray[np.float32]:
    return np.ascontiguousarray(images(setup).transpose(0, 3, 1, 2))


def labels(setup: Setup, classes: int) -> NDArray[np.int64]:
    return np.random.default_rng(1).integers(0, classes, setup.batch)


def classes_of(plan: Plan) -> int:
    return int(plan.parameters["head.fc.bias"].shape[0])


def gradients(plan: Plan) -> dict[str, Any]:
    """Gradients of the parameters' size, so that AGC clips each unit."""
    rng = np.random.default_rng(2)
    return {name: rng.standard_normal(p.shape, np.float32) for name, p in plan.parameters.items()}
