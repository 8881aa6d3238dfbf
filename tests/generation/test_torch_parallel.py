"""A generated PyTorch network in several processes: DDP and FSDP2 on the CPU."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nfspec
from nfspec.conformance.compare import distance
from nfspec.plan.clipping import clip_rules
from nfspec.reference.training import clip

import networks
from .mutants import expected
from .torch_models import named, ours

TWO = "two-attentions"
PROGRAM = Path(__file__).with_name("two_processes.py")

pytestmark = pytest.mark.slow  # each process imports PyTorch's distributed part


@pytest.fixture(scope="module")
def stepped(plan_of, derivatives, tmp_path_factory):
    """A function of `ddp` or `fsdp`, which returns the loss, gradients and clipped gradients."""
    folder = tmp_path_factory.mktemp("two")
    plan = plan_of(TWO)
    images, targets, _ = derivatives(TWO)
    (folder / "net.py").write_text(nfspec.generate(plan, to="torch"))
    nfspec.weights.save(folder / "w.safetensors", plan, networks.drawn(plan)[0])
    np.save(folder / "x.npy", images)
    np.save(folder / "targets.npy", targets)
    ranks = [
        subprocess.Popen([sys.executable, str(PROGRAM), str(folder), str(rank)]) for rank in (0, 1)
    ]
    assert [rank.wait(300) for rank in ranks] == [0, 0]

    def read(way):
        values = {
            name: ours(name, np.array(v)) for name, v in np.load(folder / f"{way}.npz").items()
        }
        loss = values.pop("loss")
        clipped = {n.removeprefix("clipped/"): v for n, v in values.items() if "clipped/" in n}
        return loss, named({n: v for n, v in values.items() if "/" not in n}), named(clipped)

    return read


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_loss_and_gradients_are_those_of_one_process(way, stepped, plan_of, derivatives):
    plan = plan_of(TWO)
    _, targets, rows = derivatives(TWO)
    loss, gradients, _ = stepped(way)
    _, logits, bound = expected(plan)[1][0]
    exact = -(targets * (logits - np.log(np.exp(logits).sum(1, keepdims=True)))).sum(1).mean()
    # A logit's error changes the loss by at most twice as much; and the loss itself is rounded.
    assert abs(loss - exact) <= 2 * bound * np.linalg.norm(logits) + 2.0**-21 * abs(exact)
    assert gradients.keys() == plan.parameters.keys()
    for key, (value, most) in rows.items():
        assert distance(gradients[key], value) <= most, key


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_clipping_is_the_plans(way, stepped, plan_of):
    plan = plan_of(TWO)
    params = networks.drawn(plan)[0]
    _, gradients, clipped = stepped(way)
    for key, rule in clip_rules(plan).items():
        exact, _ = clip(gradients[key].astype(np.float64), params[key].astype(np.float64), rule)
        # Two norms, a quotient and a product: rounding of sums of at most 2**14 squares.
        assert np.abs(clipped[key] - exact).max() <= 2.0**-18 * np.abs(exact).max(), key
