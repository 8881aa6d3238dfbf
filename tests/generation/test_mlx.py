"""The target `mlx`: the same network, its gradients and its clipping, and its mistakes are seen."""

import subprocess
import sys

import numpy as np
import pytest

import nfspec
from nfspec.conformance.compare import distance
from nfspec.generation.native import module
from nfspec.generation.targets import target_of
from nfspec.plan import StochasticDepth
from nfspec.plan.clipping import clip_rules
from nfspec.reference.training import clip

import networks
from .mutants import Mutant, by_stage, expected, logits_differ, seed

mx = pytest.importorskip("mlx.core", reason="MLX is not installed: pip install 'mlx[cpu]'")
nn = pytest.importorskip("mlx.nn")
utils = pytest.importorskip("mlx.utils")

MLX = target_of("mlx")
TWO = "two-attentions"
LAYERS, BLOCK, NETWORK = "layers.jinja", "block.jinja", "network.py.jinja"
MUTANTS = {
    "a gamma that is left out": Mutant("expressions.jinja", "{{ times(op.gamma) }}", ""),
    "erf in place of tanh": Mutant("expressions.jinja", "nn.gelu_approx", "nn.gelu"),
    "no mean taken off": Mutant(LAYERS, "w = w - w.mean((1, 2, 3), keepdims=True)", "w = w * 1"),
    "no gain": Mutant(LAYERS, '" * " ~ gain', '""'),
    "eps that is added": Mutant(LAYERS, "mx.maximum(variance, ", "(variance + ", "flat"),
    "variance over N": Mutant(LAYERS, "(fan_in - {{ ddof }})", "fan_in", "unbiased"),
    **by_stage((BLOCK, "mid_chs, 1...)"), LAYERS, 'if self.eps_rule == "none":', "net.ws.whole"),
    "the odd pixel before": Mutant(
        LAYERS, "(total // 2, total - total // 2)", "(total - total // 2, total // 2)"
    ),
    "eps without the fan-in": Mutant(LAYERS, "fan_in * %s", "%s", "timm"),
    "a gain of attention left out": Mutant(
        LAYERS, "{{ expression.times(net.se.gain) }}", "", "attention-mid"
    ),
    "no sigmoid": Mutant(LAYERS, "mx.sigmoid(self.fc1(hidden))", "self.fc1(hidden)"),
    "taps of ECA reversed": Mutant(
        LAYERS, "self.weight[None, :, None]", "self.weight[None, ::-1, None]"
    ),
    "a shortcut of the raw input": Mutant(BLOCK, '"x" if net.raw_shortcut else "out"', '"x"'),
    "no attention": Mutant(
        BLOCK, "{% if not net.attention_last %}\n{{ attend()", "{% if False %}\n{{ attend()",
        "attention-mid",
    ),
    "an average that counts padding": Mutant(LAYERS, ', "edge")', ")"),
    "a max pool of zeros": Mutant(NETWORK, ", -mx.inf)", ")", "max-pool"),
    "beta before": Mutant(BLOCK, '"%s * act(x)" % beta', '"act(%s * x)" % beta'),
    "beta of 1": Mutant(BLOCK, "self.{{ name }} = {{ name }}", "self.{{ name }} = 1.0"),
    "no skip gain": Mutant(BLOCK, '"(%s * self.skip_gain)" % alpha', "alpha"),
    "no activation after the stem's conv": Mutant(NETWORK, '"act(x)"', '"x"', "valid-stem"),
    "hwio taken for ohwi": Mutant(NETWORK, "mx.moveaxis(values, -2, 0)", "values.T"),
    "rows taken for columns": Mutant(
        NETWORK, "mx.moveaxis(values, -2, 0)", "mx.moveaxis(values, -2, 0).swapaxes(1, 2)"
    ),
    "drop rates that reach the last": Mutant(
        NETWORK, "net.drop.steps", "net.drop.steps - 1", seen_by="drops"
    ),
    "residuals rescaled": Mutant(
        LAYERS, '" / (1 - rate)" if net.drop.rescale', '" / (1 - rate)"', seen_by="drops"
    ),
    "norms by input": Mutant(NETWORK, "range(1, p.ndim)", "range(p.ndim - 1)", seen_by="clipping"),
    "a classifier that is clipped": Mutant(
        NETWORK, "return g\n{% endif", "pass\n{% endif", seen_by="clipping"
    ),
    "eps of clipping left out": Mutant(
        NETWORK, "mx.maximum(norm, eps)", "norm", seen_by="clipping"
    ),
}  # fmt: skip


def native(plan, **options):
    return nfspec.native(plan, "mlx", params=expected(plan)[0], **options)


def canonical(tree):
    """Canonical name and layout to array, of a tree of parameters or gradients."""
    named = {}
    for name, value in utils.tree_flatten(tree):
        array = np.array(value)
        if name.endswith("weight"):
            name = f"{name.removesuffix('weight')}kernel"
            array = np.moveaxis(array, 0, -1)
        named[name] = array
    return named


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_logits_are_those_of_the_reference(name, plan_of):
    plan = plan_of(name)
    model = native(plan)
    for images, exact, bound in expected(plan)[1]:
        assert distance(MLX.logits(model, images), exact) <= bound


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_parameters_come_back_to_the_bit(name, plan_of):
    plan = plan_of(name)
    params, _ = expected(plan)
    back = canonical(native(plan).parameters())
    assert back.keys() == params.keys()
    assert all(np.array_equal(back[key], value) for key, value in params.items())


@pytest.mark.parametrize("name", [TWO, "biased", "max-pool"])
def test_gradients_are_those_of_the_reference(name, plan_of, derivatives):
    images, targets, rows = derivatives(name)
    model = native(plan_of(name)).eval()

    def loss(images, labels):
        return nn.losses.cross_entropy(model(images), labels, reduction="mean")

    _, tree = nn.value_and_grad(model, loss)(mx.array(images), mx.array(targets))
    gradients = canonical(tree)
    for key, (exact, bound) in rows.items():
        assert distance(gradients[key], exact) <= bound, key


def clipping_differs(plan):
    """True if a tensor is clipped otherwise than by the plan's rule. Half of the parameters are so
    small that eps is used."""
    model, rng = native(plan), np.random.default_rng(3)
    flat = utils.tree_flatten(model.parameters())
    small = [(name, p * (1e-5 if n % 2 else 1.0)) for n, (name, p) in enumerate(flat)]
    model.update(utils.tree_unflatten(small))
    given = [(name, mx.array(np.float32(0.03 * rng.standard_normal(p.shape)))) for name, p in flat]
    tree = utils.tree_unflatten(given)
    after = canonical(module(plan, "mlx").clip_gradients(model, tree))
    before, params = canonical(tree), canonical(model.parameters())
    for key, rule in clip_rules(plan).items():
        exact, _ = clip(before[key].astype(np.float64), params[key].astype(np.float64), rule)
        # Two norms, a quotient and a product: rounding of sums of at most 2**14 squares.
        if np.abs(after[key] - exact).max() > 2.0**-18 * np.abs(exact).max():
            return True
    return False


@pytest.mark.parametrize("name", [TWO, "timm"])
def test_clipping_is_the_plans(name, plan_of):
    assert not clipping_differs(plan_of(name))


def drops_differ(plan):
    """True if a block's rate, or what a kept residual is multiplied by, is not the plan's."""
    mx.random.seed(0)
    model, row = native(plan), plan.blocks[-1]
    blocks = [block for stage in model.stages for block in stage.blocks]
    if [block.drop_rate for block in blocks] != [row.drop_rate for row in plan.blocks]:
        return True
    one = np.random.default_rng(0).standard_normal((1, 8, 8, row.in_channels)).astype(np.float32)
    whole = np.array(blocks[-1].eval()(mx.array(one))) - one
    residuals = np.array(blocks[-1].train()(mx.array(np.repeat(one, 400, 0)))) - one
    kept = np.abs(residuals).max((1, 2, 3)) > 1e-5
    # Five standard errors of a share of 400.
    most = 5 * (row.drop_rate * (1 - row.drop_rate) / 400) ** 0.5
    if abs(np.mean(~kept) - row.drop_rate) > most:
        return True
    rescale = next(op.rescale for op in plan.ops if isinstance(op, StochasticDepth))
    factor = 1 / (1 - row.drop_rate) if rescale else 1
    return not np.allclose(residuals[kept], factor * whole, atol=1e-4)


@pytest.mark.parametrize("name", [TWO, "biased"])
def test_drops_are_the_plans(name, plan_of):
    assert not drops_differ(plan_of(name))


def test_initial_values_have_the_plans_spread(plan_of):
    plan = plan_of("biased")
    mx.random.seed(0)
    values = canonical(nfspec.native(plan, "mlx").parameters())
    for key, parameter in plan.parameters.items():
        value, init = values[key], parameter.init
        if init.kind == "constant":
            assert np.all(value == np.float32(init.value)), key
        elif value.size > 200:
            spread = {"uniform": 3**-0.5, "truncated_normal": 0.8796}.get(init.kind, 1.0)
            # The standard error of a standard deviation is 1 / sqrt(2 n); five of them.
            assert abs(value.std() / (spread * init.value) - 1) < 5 / (2 * value.size) ** 0.5, key


def test_other_classes_and_channels(plan_of):
    with pytest.warns(nfspec.weights.FitWarning):
        model = native(plan_of("plain"), classes=4, channels=1)
    assert MLX.logits(model, np.zeros((2, 33, 46, 1), np.float32)).shape == (2, 4)


def test_a_file_needs_mlx_alone(plan_of, tmp_path):
    plan = plan_of(TWO)
    params, ((images, _, _), *_) = expected(plan)
    (tmp_path / "net.py").write_text(nfspec.generate(plan, to="mlx"))
    nfspec.weights.save(tmp_path / "w.safetensors", plan, params)
    np.save(tmp_path / "x.npy", images)
    program = (
        "import sys; sys.path.insert(0, '.')\n"
        "import net, numpy, mlx.core as mx\n"
        "model = net.NFNet().eval()\n"
        "net.load_weights(model, 'w.safetensors')\n"
        "numpy.save('y.npy', model(mx.array(numpy.load('x.npy'))))\n"
        "assert not {'nfspec', 'keras', 'torch', 'safetensors'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, check=True)
    assert np.array_equal(np.load(tmp_path / "y.npy"), MLX.logits(native(plan), images))


def test_the_same_spec_gives_the_same_bytes_which_pass_ruff(plan_of, tmp_path):
    paths = []
    for name in networks.NETWORKS:
        text = nfspec.generate(plan_of(name), to="mlx")
        paths.append(tmp_path / f"{name.replace('-', '_')}.py")
        paths[-1].write_text(text)
    assert text == nfspec.generate(plan_of(name), to="mlx")
    command = ["ruff", "check", "--isolated", "--line-length", "100", "--select"]
    run = [sys.executable, "-m", *command, "E,F,I,UP,B,SIM,C4", *map(str, paths)]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


CHECKS = {
    "logits": lambda plan: logits_differ(plan, "mlx"),
    "drops": drops_differ,
    "clipping": clipping_differs,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_is_seen(name, plan_of, monkeypatch):
    mutant = MUTANTS[name]
    plan = plan_of(mutant.network)
    seed(monkeypatch, "mlx", mutant)
    module(plan, "mlx")  # it is Python
    assert CHECKS[mutant.seen_by](plan)
