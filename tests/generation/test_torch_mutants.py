"""Mistakes in PyTorch's templates, each of which is seen."""

import sys

import numpy as np
import pytest
import torch

import nfspec
from nfspec.plan.clipping import clip_rules
from nfspec.reference.training import clip

import networks
from .mutants import Mutant, by_stage, logits_differ, seed

LAYERS, BLOCK, NETWORK, TRAINING = (
    "layers.jinja",
    "block.jinja",
    "network.py.jinja",
    "training.jinja",
)
MUTANTS = {
    "a gamma that is left out": Mutant("expressions.jinja", "{{ times(op.gamma) }}", ""),
    "erf in place of tanh": Mutant("expressions.jinja", ', approximate="tanh"', "", "plain"),
    "a gamma of weights that is left out": Mutant(
        LAYERS, "({{ expression.times(conv.gamma) }}w * scale)", "(w * scale)", "timm"
    ),
    "no mean taken off": Mutant(LAYERS, " - w.mean((1, 2, 3), keepdim=True)", ""),
    "no gain": Mutant(LAYERS, '" * " ~ gain', '""'),
    "eps that is added": Mutant(LAYERS, "variance.clamp(min=", "(variance +", "flat"),
    "eps without the fan-in": Mutant(LAYERS, "fan_in * %s", "%s", "timm"),
    "variance over N": Mutant(LAYERS, "(fan_in - {{ ddof }})", "fan_in", "unbiased"),
    **by_stage((BLOCK, "mid_chs, 1...)"), LAYERS, 'if self.eps_rule == "none":', "net.ws.whole"),
    "padding decided by an even side": Mutant(LAYERS, "((side - 1) // stride)", "(side // stride)"),
    "the odd pixel before": Mutant(
        LAYERS, "[total // 2, total - total // 2]", "[total - total // 2, total // 2]"
    ),
    "height taken for width": Mutant(
        LAYERS, "(x.shape[3], x.shape[2])", "(x.shape[2], x.shape[3])"
    ),
    "symmetric padding where it is same": Mutant(
        LAYERS, '"kernel // 2" }} if stride == 1 else 0', '"kernel // 2" }}'
    ),
    "no groups": Mutant(BLOCK, '", groups=" ~ groups if groups != "1"', '"" if groups'),
    "an average that counts padding": Mutant(
        BLOCK, "nn.AvgPool2d(2, ceil_mode=True)", "nn.AvgPool2d(2, ceil_mode=False)"
    ),
    "a shortcut of the raw input": Mutant(BLOCK, '"x" if net.raw_shortcut else "out"', '"x"'),
    "beta before": Mutant(BLOCK, '"%s * act(x)" % beta', '"act(%s * x)" % beta'),
    "beta of 1": Mutant(BLOCK, "self.{{ name }} = {{ name }}", "self.{{ name }} = 1.0"),
    "no skip gain": Mutant(BLOCK, '"(%s * self.skip_gain)" % alpha', "alpha"),
    "alpha on the shortcut, too": Mutant(BLOCK, "out + {{", "out + 0.2 * {{"),
    "an activation left out": Mutant(
        BLOCK, "self.conv1(act(self.conv0(out)))\"", "self.conv1(self.conv0(out))\"", "timm"
    ),
    "no attention": Mutant(
        BLOCK, "{% if not net.attention_last %}\n{{ attend()", "{% if False %}\n{{ attend()",
        "attention-mid",
    ),
    "a gain of attention left out": Mutant(LAYERS, "{{ expression.times(net.se.gain) }}", ""),
    "no sigmoid": Mutant(LAYERS, "torch.sigmoid(self.fc1(hidden))", "self.fc1(hidden)"),
    "taps of ECA reversed": Mutant(
        LAYERS, "self.weight[None, None]", "self.weight.flip(0)[None, None]"
    ),
    "no activation after the stem's conv": Mutant(NETWORK, '"act(x)"', '"x"', "valid-stem"),
    "a max pool of zeros": Mutant(NETWORK, ", -torch.inf)", ", 0.0)", "max-pool"),
    "no final activation": Mutant(NETWORK, "}}act(x), chosen)", "}}x, chosen)"),
    "hwio taken for oihw": Mutant(
        TRAINING, "values.movedim((-1, -2), (0, 1))", "values.movedim((-1, -2), (1, 0))"
    ),
    "drop rates that reach the last": Mutant(
        NETWORK, "net.drop.steps", "net.drop.steps - 1", seen_by="drops"
    ),
    "residuals rescaled": Mutant(
        LAYERS, '" / (1 - rate)" if net.drop.rescale', '" / (1 - rate)"', seen_by="drops"
    ),
    "dropout in inference": Mutant(
        NETWORK, "self.drop_rate, self.training", "self.drop_rate, True", "final-conv"
    ),
    "norms by input": Mutant(TRAINING, "range(1, p.ndim)", "range(p.ndim - 1)", seen_by="clipping"),
    "a classifier that is clipped": Mutant(
        TRAINING, '" or " ~ exempt if names', '"" if names', seen_by="clipping"
    ),
    "eps of clipping left out": Mutant(TRAINING, ".clamp(min=eps)", "", seen_by="clipping"),
}  # fmt: skip


def drops_differ(plan):
    """True if a block's rate, or what a kept residual is multiplied by, is not the plan's."""
    torch.manual_seed(0)
    model = nfspec.native(plan, "torch", params=networks.drawn(plan)[0])
    blocks = [block for stage in model.stages for block in stage.blocks]
    if [block.drop_rate for block in blocks] != [row.drop_rate for row in plan.blocks]:
        return True
    x = torch.randn(1, 24, 8, 8).repeat(64, 1, 1, 1)
    residuals = blocks[-1].train()(x) - x
    kept = residuals[residuals.abs().amax((1, 2, 3)) > 0][0]
    return not torch.allclose(kept, blocks[-1].eval()(x[:1])[0] - x[0], rtol=1e-3)


def clipping_differs(plan):
    """True if a tensor is clipped otherwise than by the plan's rule. One row of each parameter is
    so small that eps is used."""
    params, _ = networks.drawn(plan)
    params = {name: value * np.float32(1e-5) for name, value in params.items()}
    model = nfspec.native(plan, "torch", params=params)
    rng = np.random.default_rng(3)
    given = {}
    for name, p in model.named_parameters():
        p.grad = torch.tensor(1e-4 * rng.standard_normal(p.shape), dtype=torch.float32)
        given[name] = p.grad.clone()
    sys.modules[type(model).__module__].clip_gradients_(model)
    for name, p in model.named_parameters():
        key = f"{name.removesuffix('weight')}kernel" if name.endswith("weight") else name
        gradient, parameter, after = (
            value.detach().double().numpy() for value in (given[name], p, p.grad)
        )
        if gradient.ndim > 1:
            axes = (2, 3, 1, 0) if gradient.ndim == 4 else (1, 0)
            gradient, parameter, after = (
                value.transpose(axes) for value in (gradient, parameter, after)
            )
        exact, _ = clip(gradient, parameter, clip_rules(plan)[key])
        if not np.allclose(after, exact, rtol=1e-4, atol=1e-12):
            return True
    return False


CHECKS = {
    "logits": lambda plan: logits_differ(plan, "torch"),
    "drops": drops_differ,
    "clipping": clipping_differs,
}


@pytest.mark.parametrize("check", ["drops", "clipping"])
def test_the_templates_as_they_are_pass_each_check(check, plan_of):
    assert not CHECKS[check](plan_of("two-attentions"))


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_is_seen(name, plan_of, monkeypatch):
    mutant = MUTANTS[name]
    seed(monkeypatch, "torch", mutant)
    assert CHECKS[mutant.seen_by](plan_of(mutant.network))
