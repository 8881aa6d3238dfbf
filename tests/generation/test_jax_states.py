"""Parameters of the target `jax` as its users keep them: split over devices, and in checkpoints."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import nfspec
from nfspec import reference
from nfspec.conformance.compare import distance
from nfspec.reference.rounding import Rounding

import networks
from .mutants import expected

TWO = "two-attentions"
# Each process has four devices. A parameter is split on its output channels where four divide them.
PROGRAM = """\
import sys; sys.path.insert(0, '.')
import net, numpy, jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

mesh = Mesh(jax.devices(), ("channels",))

def split(value):
    divides = value.ndim > 0 and value.shape[-1] % 4 == 0
    parts = P(*[None] * (value.ndim - 1), "channels") if divides else P()
    return jax.device_put(value, NamedSharding(mesh, parts))

params = jax.tree.map(split, net.load_weights("w.safetensors"))
x = jax.device_put(numpy.load("x.npy"), NamedSharding(mesh, P()))
targets = numpy.load("targets.npy")

def loss(params):
    logits = net.apply(params, x)
    return -(targets * jax.nn.log_softmax(logits)).sum(1).mean(), logits

(_, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
kept = gradients["stages.0.blocks.0.conv0.kernel"].sharding
assert len(kept.device_set) == 4 and not kept.is_fully_replicated
numpy.savez("out.npz", logits=logits, **gradients)
"""


@pytest.mark.slow
def test_split_over_channels(tmp_path):
    networks.network(TWO, tmp_path)
    # Four groups: XLA's partitioner aborts in the gradient of a conv whose groups devices cut.
    spec = nfspec.load(tmp_path / f"{TWO}.toml", {"stages.group_width": [2, 3]})
    plan = nfspec.resolve(spec)
    params, (images, exact, bound) = expected(plan)[0], expected(plan)[1][0]
    targets = np.eye(3, dtype=np.float32)[[0, 2]]
    (tmp_path / "net.py").write_text(nfspec.generate(plan, to="jax"))
    nfspec.weights.save(tmp_path / "w.safetensors", plan, params)
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "targets.npy", targets)
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    run = [sys.executable, "-I", "-c", PROGRAM]
    subprocess.run(run, cwd=tmp_path, check=True, env={**os.environ, "XLA_FLAGS": flags})
    values = dict(np.load(tmp_path / "out.npz"))
    assert distance(values.pop("logits"), exact) <= bound
    slopes, *rounded = (
        reference.loss_and_gradients(plan, params, images, targets, rounding).of_parameters
        for rounding in (None, Rounding(0), Rounding(1), Rounding(2))
    )
    assert values.keys() == slopes.keys()
    for key, value in slopes.items():
        gaps = [distance(np.asarray(each[key]), value) for each in rounded]
        assert distance(values[key], value) <= 3 * np.sqrt(np.mean(np.square(gaps))), key


@pytest.mark.slow
@pytest.mark.parametrize("nested", [False, True])
def test_a_checkpoint_of_orbax(nested, plan_of, tmp_path):
    orbax = pytest.importorskip("orbax.checkpoint", reason="orbax comes with Flax")
    flax = pytest.importorskip("flax")
    plan = plan_of(TWO)
    _, params = nfspec.native(plan, "jax", params=networks.drawn(plan)[0])
    tree = flax.traverse_util.unflatten_dict(params, sep=".") if nested else params
    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", tree)
        checkpointer.wait_until_finished()
        back = checkpointer.restore(tmp_path / "state", jax.eval_shape(lambda: tree))
    if nested:
        back = flax.traverse_util.flatten_dict(back, sep=".")
    assert back.keys() == params.keys()
    assert all(np.array_equal(back[key], value) for key, value in params.items())
