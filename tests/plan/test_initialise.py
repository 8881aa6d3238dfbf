"""Initial weights: the right distributions, and the same bits everywhere."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

import nfspec
from nfspec.plan import Init, Parameter
from nfspec.plan.initialise import draw

# Draws tensors of each distribution and the last two of some networks, in an order of its own,
# beside the frameworks that are named.
PROGRAM = """
import hashlib, importlib, json, sys
for framework in sys.argv[2:]:
    importlib.import_module(framework)
import nfspec
from nfspec.plan.initialise import draw
found = {}
names = ["nfnet-f0", "nf-regnet-b0", "nf-resnet-50", "timm/eca_nfnet_l0"]
for variant in reversed(names) if sys.argv[1] == "reversed" else names:
    parameters = list(nfspec.resolve(nfspec.load(variant)).parameters.values())
    chosen = [*{p.init.kind: p for p in parameters[:-2]}.values(), *parameters[-2:]]
    for p in reversed(chosen) if sys.argv[1] == "reversed" else chosen:
        found[f"{variant}/{p.name}"] = hashlib.sha256(draw(p, 0).tobytes()).hexdigest()
print(json.dumps(found, sort_keys=True))
"""


def drawn(order: str, *frameworks: str) -> dict[str, str]:
    command = [sys.executable, "-c", PROGRAM, order, *frameworks]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def test_identical_bytes_beside_every_framework_in_any_order():
    alone = drawn("forward")
    assert len(alone) == 19  # one of each distribution that a network has, and two more
    assert drawn("reversed", "jax", "torch", "tensorflow") == alone


def test_the_bits_do_not_change_between_releases():
    plan = nfspec.resolve(nfspec.load("nfnet-f0"))
    kernel = draw(plan.parameters["stem.conv0.kernel"], 0)
    digest = hashlib.sha256(kernel.tobytes()).hexdigest()
    assert digest == "8c4c170f801884d8736fd8962c02c4c534aac983df5b8c0136cd03480a4e04f9"


def test_init_is_draw_of_every_parameter_in_order():
    plan = nfspec.resolve(nfspec.load("timm/test_nfnet"))
    params = nfspec.init(plan, seed=3)
    assert list(params) == list(plan.parameters)
    for name, parameter in plan.parameters.items():
        assert params[name].dtype == np.float32
        assert params[name].shape == parameter.shape
        assert np.array_equal(params[name], draw(parameter, 3))


@pytest.mark.parametrize(
    ("init", "std"),
    [
        (Init("normal", 0.3), 0.3),
        # A normal cut at two standard deviations has 0.87962566 of its standard deviation left.
        (Init("truncated_normal", 0.3), 0.3 * 0.87962566),
        (Init("uniform", 0.3), 0.3 / 3**0.5),
    ],
)
def test_distributions(init, std):
    value = draw(Parameter("x", (200, 500), "kernel", init), 0).astype(np.float64)
    n = value.size
    assert abs(value.mean()) < 6 * std / n**0.5  # six standard errors
    assert abs(value.std() / std - 1) < 6 / (2 * n) ** 0.5
    if init.kind != "normal":
        limit = 2 * 0.3 if init.kind == "truncated_normal" else 0.3
        assert 0.99 * limit < np.abs(value).max() <= np.float32(limit)


def test_constants():
    value = draw(Parameter("x", (), "skip_gain", Init("constant", 0.25)), 0)
    assert value.shape == ()
    assert value == np.float32(0.25)


def test_a_negative_seed_is_refused():
    plan = nfspec.resolve(nfspec.load("timm/test_nfnet"))
    with pytest.raises(
        nfspec.InputError, match="seed: expected a whole number from 0 on; found -1"
    ):
        nfspec.init(plan, seed=-1)
