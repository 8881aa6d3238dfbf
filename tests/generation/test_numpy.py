"""The target `numpy`: the same network, in float32 and in float64, and its mistakes are seen."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest

import nfspec
from nfspec.conformance.compare import distance
from nfspec.generation.native import module

import networks
from .mutants import Mutant, by_stage, expected, logits_differ, seed

LAYERS, BLOCK, NETWORK = "layers.jinja", "block.jinja", "network.py.jinja"
MUTANTS = {
    "a gamma that is left out": Mutant("expressions.jinja", "{{ times(op.gamma) }}", ""),
    "a gamma of weights that is left out": Mutant(
        LAYERS, 'net.ws.factors("gain")', '"gain * "', "timm"
    ),
    "no mean taken off": Mutant(LAYERS, " - kernel.mean((0, 1, 2))", ""),
    "eps that is added": Mutant(LAYERS, "np.maximum(variance, ", "(variance + ", "flat"),
    "eps without the fan-in": Mutant(LAYERS, "fan_in * %s", "%s", "timm"),
    "variance over N": Mutant(LAYERS, "(fan_in - {{ ddof }})", "fan_in", "unbiased"),
    **by_stage((BLOCK, "..."), LAYERS, 'if eps_rule == "none":'),
    "padding decided by an even side": Mutant(LAYERS, "((side - 1) // stride)", "(side // stride)"),
    "the odd pixel before": Mutant(
        LAYERS, "(total // 2, total - total // 2)", "(total - total // 2, total // 2)"
    ),
    "groups side by side": Mutant(
        LAYERS, "reshape(-1, groups, inputs * size * size).swapaxes(0, 1)",
        "reshape(-1, inputs * size * size, groups).transpose(2, 0, 1)",
    ),
    "columns in the order of rows": Mutant(
        LAYERS, "kernel.transpose(2, 0, 1, 3)", "kernel.transpose(2, 1, 0, 3)"
    ),
    "an average that counts padding": Mutant(LAYERS, ', "edge")', ")"),
    "a max pool of zeros": Mutant(LAYERS, ", -np.inf)", ")", "max-pool"),
    "a gain of attention left out": Mutant(LAYERS, "{{ expression.times(net.se.gain) }}", ""),
    "no gain": Mutant(LAYERS, 'net.ws.factors("gain")', '"1 * "', "flat"),
    "a gate that is not padded alike": Mutant(
        LAYERS, "[(0, 0), (kernel.size // 2, kernel.size // 2)]", "[(0, 0), (kernel.size - 1, 0)]"
    ),
    "taps of ECA reversed": Mutant(LAYERS, "@ kernel)", "@ kernel[::-1])"),
    "no sigmoid": Mutant(
        LAYERS, 'sigmoid(dense(params, f"{name}.fc1", hidden))',
        'dense(params, f"{name}.fc1", hidden)',
    ),
    "no activation before conv2": Mutant(BLOCK, '"conv2", "act(out)"', '"conv2", "out"'),
    "a shortcut of the raw input": Mutant(BLOCK, '"x" if net.raw_shortcut else "out"', '"x"'),
    "beta before": Mutant(BLOCK, '"%s * act(x)" % beta', '"act(%s * x)" % beta'),
    "attention twice": Mutant(BLOCK, "not net.attention_last", "net.attention_last"),
    "no skip gain": Mutant(
        BLOCK, "if net.residual.skip_gain else alpha }} *", "if 0 else alpha }} *"
    ),
    "numbers of another block": Mutant(
        NETWORK, "{{ name }}={{ blocks.values[row.name][name]",
        "{{ name }}={{ blocks.values[blocks.rows[row.index - 1].name][name]",
    ),
    "no activation after the stem's conv": Mutant(NETWORK, '"act(x)"', '"x"', "valid-stem"),
    "no final activation": Mutant(NETWORK, "}}act(x)", "}}x"),
}  # fmt: skip


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_logits_are_those_of_the_reference(name, plan_of):
    plan = plan_of(name)
    params, cases = expected(plan)
    network = nfspec.native(plan, "numpy", params=params)
    wide = {key: value.astype(np.float64) for key, value in params.items()}
    exactly = partial(module(plan, "numpy").forward, wide)
    for images, exact, bound in cases:
        logits = network(images)
        assert logits.dtype == np.float32
        assert distance(logits, exact) <= bound
        # The same sums with a rounding that is 2**29 times finer.
        assert distance(exactly(images.astype(np.float64)), exact) <= bound * 2.0**-29


def test_parameters_come_back_to_the_bit(plan_of):
    plan = plan_of("two-attentions")
    params, _ = expected(plan)
    (back,) = nfspec.native(plan, "numpy", params=params).args
    assert back.keys() == params.keys()
    assert all(np.array_equal(back[key], value) for key, value in params.items())


def test_a_gate_that_is_nearly_shut_keeps_its_digits(plan_of):
    x = np.array([-1e4, -80, -20, -1, 0, 20, 1e4], np.float32)
    exact = 1 / (1 + np.exp(-x.astype(np.float64).clip(-700)))
    gate = module(plan_of("two-attentions"), "numpy").sigmoid(x)
    assert gate.dtype == np.float32
    # An exponential, within two units of the last place, a sum and a quotient.
    assert np.all(np.abs(gate - exact) <= 2.0**-24 * 6 * exact + np.finfo(np.float32).tiny)


def test_other_classes_and_channels_by_the_weights(plan_of):
    plan = plan_of("plain")
    params, _ = expected(plan)
    with pytest.warns(nfspec.weights.FitWarning):
        network = nfspec.native(plan, "numpy", params=params, classes=4, channels=1)
    assert network(np.zeros((2, 33, 46, 1), np.float32)).shape == (2, 4)


def test_weights_and_nothing_else_must_be_given(plan_of):
    plan = plan_of("plain")
    with pytest.raises(nfspec.InputError, match=r"numpy: a network in NumPy draws no weights"):
        nfspec.native(plan, "numpy")
    with pytest.raises(nfspec.InputError, match="numpy: a network in NumPy has no option drop"):
        nfspec.native(plan, "numpy", params=expected(plan)[0], drop=0.5)


def test_the_same_spec_gives_the_same_bytes(plan_of):
    plan = plan_of("two-attentions")
    assert nfspec.generate(plan, to="numpy") == nfspec.generate(plan, to="numpy")


def test_a_file_needs_numpy_alone(plan_of, tmp_path):
    plan = plan_of("two-attentions")
    params, ((images, _, _), *_) = expected(plan)
    (tmp_path / "net.py").write_text(nfspec.generate(plan, to="numpy"))
    nfspec.weights.save(tmp_path / "w.safetensors", plan, params)
    np.save(tmp_path / "x.npy", images)
    program = (
        "import sys; sys.path.insert(0, '.')\n"
        "import net, numpy\n"
        "params = net.load_weights('w.safetensors')\n"
        "numpy.save('y.npy', net.forward(params, numpy.load('x.npy')))\n"
        "assert not {'nfspec', 'keras', 'torch', 'safetensors'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, check=True)
    network = nfspec.native(plan, "numpy", params=params)
    assert np.array_equal(np.load(tmp_path / "y.npy"), network(images))


def test_files_pass_ruff_and_mypy(plan_of, tmp_path):
    paths = []
    for name in ("two-attentions", "timm", "mixed-padding", "unbiased", "biased", "max-pool"):
        paths.append(str(tmp_path / f"{name.replace('-', '_')}.py"))
        (tmp_path / paths[-1]).write_text(nfspec.generate(plan_of(name), to="numpy"))
    ruff = ["ruff", "check", "--isolated", "--line-length", "100", "--select", "E,F,I,UP,B,SIM,C4"]
    for command in (ruff, ["mypy", "--config-file", "", "--follow-imports", "skip"]):
        run = [sys.executable, "-m", *command, *paths]
        done = subprocess.run(run, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_is_seen(name, plan_of, monkeypatch):
    plan = plan_of(MUTANTS[name].network)
    seed(monkeypatch, "numpy", MUTANTS[name])
    module(plan, "numpy")  # it is Python
    assert logits_differ(plan, "numpy")
