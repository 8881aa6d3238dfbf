"""Small networks that between them have every branch that a template can take."""

import numpy as np

import nfspec
from nfspec.language.loader import load

BASE = """\
schema = "nfspec/1"
name = "{name}"
source = "a test"
extends = "{parent}"
[input]
train = 32
test = 32
[stages]
depth = [1, 2]
width = [16, 24]
stride = [1, 2]
group_width = 4
expansion = 0.5
[head]
conv = "none"
classes = 3
"""
# Name to parent and the lines that follow.
NETWORKS = {
    "plain": ("nfnet-nano", ""),
    "short-kernels": ("nfnet-nano", "[stages]\nstride = [1, 5]\nkernel = [5, 3]\n[block]\n"
                      'shortcut = "strided_conv"\n[stem]\nwidth = [8, 8]\nkernel = [3, 1]\n'
                      "stride = [4, 2]\n"),
    "strided": ("nfnet-nano", '[block]\nshortcut = "strided_conv"\nshortcut_input = "raw"\n'
                "[stages]\nstride = [2, 3]\n"),
    "mixed-padding": ("timm/nf_resnet26", '[stem]\npadding = "same"\n'),
    "valid-stem": ("nfnet-nano", '[stem]\npadding = "valid"\nwidth = [8, 8]\nkernel = [3, 3]\n'
                   "stride = [2, 1]\n[ws]\ngain = false\n"),
    "max-pool": ("nf-resnet-50", '[activation]\nkind = "silu"\n'),
    "timm": ("timm/nf_seresnet26", ""),
    "two-attentions": ("nfnet-f0", '[stages]\nattention = ["eca", "se"]\nalpha = [0.2, 0.3]\n'),
    "attention-mid": ("nf-regnet-b0", '[stages]\nattention = ["none", "se"]\n'
                      "beta = [[0.9], [0.8, 1.2]]\n"),
    "flat": ("nfnet-nano", "[ws]\neps = 0.1\n"),
    "unbiased": ("timm/eca_nfnet_l0", '[ws]\nddof = 1\neps = 1e-3\neps_rule = "add_to_std"\n'
                 '[activation]\nkind = "leaky_relu"\nslope = 0.3\n'
                 'gamma = "exact"\nbeta_at = "before"\n'),
    "biased": ("nfnet-f0", '[ws]\nddof = 1\neps_rule = "add"\n[activation]\nkind = "soft_sign"\n'
               'gamma_at = "weight"\n[stochastic_depth]\nrescale = true\nschedule = "inclusive"\n'
               'rate = 0.5\n[se]\nactivation = "silu"\ngamma = 1.5\n[conv]\ninit_scale = 2.0\n'
               "[block]\nskip_gain_init = 0.5\nconv2_gain_init = 0.25\n"),
    "ws-by-stage": ("nfnet-f0", "[stages]\ndepth = [1, 2, 1]\nwidth = [16, 24, 24]\n"
                    'stride = [1, 2, 1]\n[head]\nconv = "width"\nconv_width = 20\n'
                    '[ws]\neps = [0.01, 0.1, 0.02]\neps_rule = ["max", "add_to_std", "none"]\n'
                    "ddof = [0, 1, 0]\ngain = [true, false, true]\n"),
    "no-shortcut-conv": ("nfnet-nano", "[stages]\ndepth = [2]\nwidth = [8]\nstride = [1]\n"
                         "[stem]\nwidth = [8]\nkernel = 3\nstride = [2]\n"
                         "[block]\nfirst_expansion = 1\n"),
    "final-conv": ("nfnet-f0", '[head]\nconv = "width"\nconv_width = 20\ndropout = 0.5\n'),
    # Strides that became dilation: with and without a second conv, by a pool and by a conv alone.
    "dilated": ("nfnet-nano", "[stages]\ndepth = [1, 2, 2]\nwidth = [16, 16, 24]\n"
                "stride = [2, 1, 1]\ndilation = [1, 2, 4]\n"),
    "dilated-timm": ("timm/nf_ecaresnet26", "[stages]\nstride = [1, 1]\ndilation = [1, 2]\n"),
    "dilated-inside": ("nf-resnet-50", "[stages]\ndepth = [2, 2, 1]\nwidth = [16, 16, 16]\n"
                       "stride = [1, 2, 1]\ndilation = [3, 2, 1]\n"),
    "two-kernels": ("nfnet-nano", "[stages]\nkernel = [[3, 5], 3]\n"),
    # None of its convs is standardised, either.
    "one-channel": ("timm/dm_nfnet_f0", "[input]\nchannels = 1\nmean = [0.5]\nstd = [0.25]\n"
                    '[ws]\neps_rule = "none"\n'),
}  # fmt: skip


def network(name, folder):
    """The spec of one of the networks, written into a folder."""
    parent, lines = NETWORKS[name]
    path = folder / f"{name}.toml"
    path.write_text(merged(BASE.format(name=name, parent=parent), lines))
    return load(path)


def merged(base, lines):
    """TOML in which the keys of the second text replace those of the first, table by table."""
    tables = {}
    for text in (base, lines):
        table = ""
        for line in text.splitlines():
            if line.startswith("["):
                table = line
            elif line:
                tables.setdefault(table, {})[line.partition(" =")[0]] = line
    parts = [
        "\n".join([*([table] if table else []), *keys.values()]) for table, keys in tables.items()
    ]
    return "\n".join(parts) + "\n"


def drawn(plan, seed=0):
    """Parameters away from their initial values, so that no skip gain is 0, and images of odd and
    even sides, not square."""
    rng = np.random.default_rng(seed)
    params = {
        name: (value + 0.1 * rng.standard_normal(value.shape)).astype(np.float32)
        for name, value in nfspec.init(plan, seed=seed).items()
    }
    # A channel that is negative everywhere: a max pool that pads by zeros shows there.
    last = [name for name in params if name.startswith("stem.") and name.endswith(".bias")][-1]
    params[last][0] -= 10
    sizes = ((33, 46), (64, 35), (48, 48))
    images = [rng.standard_normal((2, *size, plan.channels)).astype(np.float32) for size in sizes]
    return params, images
