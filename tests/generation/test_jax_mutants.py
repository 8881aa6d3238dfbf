"""Mistakes in the templates of JAX, each of which is seen."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nfspec
from nfspec.plan.clipping import clip_rules
from nfspec.reference.training import clip

import networks
from .mutants import Mutant, by_stage, logits_differ, seed

EXPRESSIONS, LAYERS, CONV, NETWORK, PARAMETERS = (
    "expressions.jinja",
    "layers.jinja",
    "conv.jinja",
    "network.py.jinja",
    "parameters.jinja",
)
ROW = "blocks.numbers(row, columns)"
BEFORE = "blocks.numbers(blocks.rows[loop.index0 - 1], "
MUTANTS = {
    "a gamma that is left out": Mutant(EXPRESSIONS, "{{ times(op.gamma) }}", "", "flat"),
    "betas of the block before": Mutant(
        NETWORK, ROW, f"blocks.numbers(row, columns[:-1]) }}}}, {{{{ {BEFORE}columns[-1:])"
    ),
    "alphas of the block before": Mutant(
        NETWORK, ROW,
        f"blocks.numbers(row, columns[:-2]) }}}}, {{{{ {BEFORE}columns[-2:-1]) "
        "}}, {{ blocks.numbers(row, columns[-1:])",
    ),
    "the odd pixel before": Mutant(
        LAYERS, "(total // 2, total - total // 2, 0)", "(total - total // 2, total // 2, 0)",
        "mixed-padding",
    ),
    "an average that counts padding": Mutant(
        LAYERS, "lax.add, *window) / count", "lax.add, *window) / 4", "flat"
    ),
    "a max pool of zeros": Mutant(LAYERS, ", -jnp.inf)", ", 0.0)", "max-pool"),
    "no mean taken off": Mutant(CONV, "w -= w.mean((0, 1, 2))", "w -= 0.0", "flat"),
    "eps that is added": Mutant(CONV, "jnp.maximum(variance, ", "(variance + ", "flat"),
    "variance over N": Mutant(
        CONV, '" * (fan_in / (fan_in - %s))" % ddof', '""', "unbiased"
    ),
    **by_stage((NETWORK, 'conv0", out...'), CONV, 'if {{ own }}eps_rule == "none":'),
    "height taken for width in kernels": Mutant(CONV, '"HWIO"', '"WHIO"', "flat"),
    "attention elsewhere": Mutant(
        NETWORK, "net.attention_last", "(not net.attention_last)", "attention-mid"
    ),
    "no activation in the stem": Mutant(NETWORK, 'else "act(x)"', 'else "x"', "flat"),
    "no final activation": Mutant(
        NETWORK, "act(features(", "(features(", "no-shortcut-conv"
    ),
    "no skip gain": Mutant(
        NETWORK, """'(%s * p[f"{name}.skip_gain"]).astype(x.dtype)' % alpha if""", "alpha if",
        "no-shortcut-conv",
    ),
    "a shortcut of the raw input": Mutant(
        NETWORK, '"x" if net.raw_shortcut else "out"', '"x"', "flat"
    ),
    "a gain of attention left out": Mutant(
        NETWORK, "{{ expression.times(net.se.gain) }}", "", "attention-mid"
    ),
    "no sigmoid": Mutant(
        NETWORK, 'jax.nn.sigmoid(dense(p, f"{name}.fc1", hidden))',
        'dense(p, f"{name}.fc1", hidden)', "attention-mid",
    ),
    "axes of a file reversed": Mutant(
        PARAMETERS, '.reshape(header[n]["shape"])', '.reshape(header[n]["shape"][::-1]).T', "flat"
    ),
    "taps of ECA reversed": Mutant(NETWORK, "kernel[None, None]", "kernel[None, None, ::-1]"),
    "drop rates that reach the last": Mutant(
        NETWORK, "{{ net.drop.steps }}", "{{ net.drop.steps - 1 }}", seen_by="rates"
    ),
    "residuals rescaled": Mutant(
        NETWORK, '" / (1 - rate)" if net.drop.rescale', '" / (1 - rate)"', seen_by="drops"
    ),
    "kernels of a wider spread": Mutant(
        PARAMETERS, '"fan_in**-0.5" if', '"shape[3]**-0.5" if', "no-shortcut-conv", "initial"
    ),
    "norms by input": Mutant(
        PARAMETERS, "range(w.ndim - 1)", "range(1, w.ndim)", seen_by="clipping"
    ),
    "a classifier that is clipped": Mutant(
        PARAMETERS, '% (names[0], names[0]) if names else', '% (names[0], names[0]) if false else',
        seen_by="clipping",
    ),
    "eps of clipping left out": Mutant(
        PARAMETERS, "jnp.maximum(norm, {{ clip.eps | number }})", "norm", seen_by="clipping"
    ),
    "a pool without a gradient": Mutant(
        LAYERS, "(x, 0.0, lax.add,", "(x, 0.0, lambda a, b: a + b,", seen_by="gradient"
    ),
}  # fmt: skip


def network_of(plan):
    return nfspec.native(plan, "jax", params=networks.drawn(plan)[0])


def rates_differ(plan):
    file, params = network_of(plan)
    block, rates = file.block, []

    def spy(p, x, key, rate, *numbers):
        rates.append(rate)
        return block(p, x, key, rate, *numbers)

    file.block = spy
    jax.eval_shape(file.apply, params, jnp.zeros((1, 32, 32, 3)), jax.random.key(0))
    file.block = block
    return rates != [row.drop_rate for row in plan.blocks]


def drops_differ(plan):
    """True if a kept residual is not what it is in inference."""
    file, params = network_of(plan)
    name, (*_, alpha, beta) = list(file.BLOCKS.items())[-1]
    x = jnp.repeat(jax.random.normal(jax.random.key(1), (1, 2, 2, 24)), 64, 0)

    @jax.jit
    def residuals(key):
        return file.block(params, x, key, 0.5, name, 1, 0, 1, alpha, beta) - x

    dropped, kept = np.asarray(residuals(jax.random.key(2))), np.asarray(residuals(None))
    here = np.abs(dropped).max((1, 2, 3)) > 0
    return not np.allclose(dropped[here], kept[here], rtol=1e-3)


def clipping_differs(plan):
    """True if a tensor is clipped otherwise than by the plan's rule. Parameters are so small that
    eps is used for some."""
    file, params = network_of(plan)
    params = {key: value * 1e-5 for key, value in params.items()}
    rng = np.random.default_rng(3)
    given = {
        key: np.asarray(1e-4 * rng.standard_normal(value.shape), np.float32)
        for key, value in params.items()
    }
    after = jax.jit(file.clip_gradients)(given, params)
    for key, rule in clip_rules(plan).items():
        gradient, parameter = (np.asarray(each[key], np.float64) for each in (given, params))
        if not np.allclose(after[key], clip(gradient, parameter, rule)[0], rtol=1e-4, atol=1e-12):
            return True
    return False


def initial_differs(plan):
    file, _ = network_of(plan)
    values = jax.jit(file.init)(jax.random.key(0, impl="rbg"))
    spreads = {key: parameter.init for key, parameter in plan.parameters.items()}
    return any(
        abs(np.std(values[key]) / init.value - 1) > 5 / (2 * values[key].size) ** 0.5
        for key, init in spreads.items()
        if init.kind == "normal" and values[key].size > 200
    )


def gradient_is_missing(plan):
    file, params = network_of(plan)
    images = jnp.zeros((1, 32, 32, 3))
    try:
        jax.eval_shape(jax.grad(lambda params: file.apply(params, images).sum()), params)
    except Exception:  # a mistake may be of any kind
        return True
    return False


CHECKS = {
    "logits": partial(logits_differ, to="jax"),
    "rates": rates_differ,
    "drops": drops_differ,
    "clipping": clipping_differs,
    "initial": initial_differs,
    "gradient": gradient_is_missing,
}


@pytest.mark.parametrize("check", [name for name in CHECKS if name != "logits"])
def test_the_templates_as_they_are_pass_each_check(check, plan_of):
    network = "no-shortcut-conv" if check == "initial" else "two-attentions"
    assert not CHECKS[check](plan_of(network))


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_is_seen(name, plan_of, monkeypatch):
    mutant = MUTANTS[name]
    seed(monkeypatch, "jax", mutant)
    assert CHECKS[mutant.seen_by](plan_of(mutant.network))
