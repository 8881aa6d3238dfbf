"""The resolver's numbers against the papers' formulas and the original's numbers."""

import math

import pytest

from nfspec.language.loader import load
from nfspec.plan import (
    ECA,
    Activation,
    Dropout,
    Pool,
    Residual,
    SqueezeExcite,
    StochasticDepth,
    WSConv,
)
from nfspec.plan.activations import DEEPMIND_GAMMA, exact_gamma
from nfspec.plan.resolver import resolve


def planned(name):
    return resolve(load(name))


def by_name(plan):
    return {op.name: op for op in plan.ops}


def ops(plan, kind):
    return [op for op in plan.ops if isinstance(op, kind)]


def column(plan, field):
    return [getattr(block, field) for block in plan.blocks]


# betas


def test_betas_start_again_at_the_second_block_of_a_stage():
    plan = planned("nfnet-f0")
    after = [1 / math.sqrt(1 + 0.04 * n) for n in range(7)]
    first = [1.0]  # the image's stem has variance 1
    second = [after[1], after[1]]  # stage 0 has 1 block, so its output has variance 1.04
    third = [after[2], *after[1:6]]
    fourth = [after[6], *after[1:3]]
    assert column(plan, "beta") == pytest.approx([*first, *second, *third, *fourth], rel=1e-15)
    assert plan.blocks[1].beta == pytest.approx(0.98058067569, abs=5e-12)
    assert plan.blocks[3].beta == pytest.approx(0.96225044865, abs=5e-12)
    assert column(plan, "expected_variance") == pytest.approx(
        [1, 1.04, 1.04, 1.08, 1.04, 1.08, 1.12, 1.16, 1.2, 1.24, 1.04, 1.08]
    )


def test_every_stage_has_its_own_alpha(written):
    plan = written("[stages]\nalpha = [0.5, 0.1, 0.2, 1.0]\n")
    assert column(plan, "alpha") == [0.5, *[0.1] * 2, *[0.2] * 6, *[1.0] * 3]
    assert column(plan, "expected_variance") == pytest.approx(
        [1, 1.25, 1.01, 1.02, 1.04, 1.08, 1.12, 1.16, 1.2, 1.24, 2, 3]
    )
    assert [op.alpha for op in ops(plan, Residual)] == column(plan, "alpha")


def test_betas_may_be_given_for_all_for_stages_and_for_blocks(written):
    assert set(column(written("[stages]\nbeta = 0.5\n"), "beta")) == {0.5}
    betas = "[1, 0.5, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.7, 0.8, 0.9]]"
    plan = written(f"[stages]\nbeta = {betas}\n")
    expected = [1, 0.5, 0.5, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert column(plan, "beta") == expected
    activations = by_name(plan)
    assert [activations[f"{b.name}.act0"].beta for b in plan.blocks] == expected
    # what a network is built with does not change what is expected of it
    assert column(plan, "expected_variance") == column(planned("nfnet-f0"), "expected_variance")


def test_beta_is_of_each_blocks_first_activation_alone(written):
    plan = written("[stages]\nbeta = 0.5\n[activation]\nbeta_at = 'before'\n")
    betas = {op.name.rpartition(".")[2]: op.beta for op in ops(plan, Activation)}
    assert {name: beta for name, beta in betas.items() if beta != 1} == {"act0": 0.5}
    assert {op.beta_at for op in ops(plan, Activation)} == {"before"}


# gammas


def test_gamma_multiplies_activations():
    plan = planned("nfnet-f0")
    assert {op.gamma for op in ops(plan, Activation)} == {DEEPMIND_GAMMA["gelu_tanh"]}
    assert {op.gamma for op in ops(plan, WSConv)} == {1.0}
    assert {op.gamma for op in ops(plan, SqueezeExcite)} == {1.0}


def test_gamma_at_the_weight_multiplies_every_kernel_and_no_activation():
    plan = planned("timm/nfnet_f0")
    assert {op.gamma for op in ops(plan, Activation)} == {1.0}
    assert {op.gamma for op in ops(plan, WSConv)} == {DEEPMIND_GAMMA["gelu_erf"]}


def test_gamma_may_be_exact_or_a_number(written):
    kind = "[activation]\nkind = 'leaky_relu'\nslope = 0.2\n"
    exact = written(f"{kind}gamma = 'exact'\n[se]\ngamma = 'exact'\nactivation = 'tanh'\n")
    assert {op.gamma for op in ops(exact, Activation)} == {exact_gamma("leaky_relu", 0.2)}
    assert {op.gamma for op in ops(exact, SqueezeExcite)} == {exact_gamma("tanh")}
    assert {op.gamma for op in ops(written(f"{kind}gamma = 1.5\n"), Activation)} == {1.5}


# attention


def test_the_taps_of_eca_come_from_the_channels():
    assert [b.attention_size for b in planned("timm/eca_nfnet_l0").blocks] == [5] * 12
    sizes = {b.out_channels: b.attention_size for b in planned("timm/nf_ecaresnet50").blocks}
    assert sizes == {256: 5, 512: 5, 1024: 5, 2048: 7}


def test_the_taps_of_eca_may_be_given(written):
    plan = written("[stages]\nattention = ['eca', 'none', 'eca', 'se']\n[eca]\nkernel = 9\n")
    assert {op.kernel for op in ops(plan, ECA)} == {9}
    assert column(plan, "attention_size") == [9, 0, 0, *[9] * 6, *[768] * 3]
    assert column(plan, "attention") == ["eca", *["none"] * 2, *["eca"] * 6, *["se"] * 3]


def test_hidden_widths_of_squeeze_and_excite():
    assert column(planned("nfnet-f0"), "attention_size") == [128, *[256] * 2, *[768] * 9]
    sizes = {b.out_channels: b.attention_size for b in planned("timm/nf_seresnet50").blocks}
    assert sizes == {256: 16, 512: 32, 1024: 64, 2048: 128}
    assert planned("nf-regnet-b0").blocks[0].attention_size == 16
    assert planned("timm/nf_regnet_b0").blocks[0].attention_size == 24


def test_attention_stands_after_the_last_conv_or_in_the_middle():
    last, mid = by_name(planned("nfnet-f0")), by_name(planned("nf-regnet-b0"))
    assert last["stages.0.blocks.0.se"].inputs == ("stages.0.blocks.0.conv2",)
    assert mid["stages.0.blocks.0.se"].inputs == ("stages.0.blocks.0.conv1",)
    assert mid["stages.0.blocks.0.act2"].inputs == ("stages.0.blocks.0.se",)


# stochastic depth


def test_drop_rates_of_both_schedules(written):
    text = "[stochastic_depth]\nrate = 0.6\nrescale = true\nschedule = "
    exclusive, inclusive = written(f"{text}'exclusive'"), written(f"{text}'inclusive'")
    assert column(exclusive, "drop_rate") == pytest.approx([0.6 * i / 12 for i in range(12)])
    assert column(inclusive, "drop_rate") == pytest.approx([0.6 * i / 11 for i in range(12)])
    dropped = ops(inclusive, StochasticDepth)
    assert [op.rate for op in dropped] == column(inclusive, "drop_rate")[1:]
    assert all(op.rescale for op in dropped)
    assert ops(written("[stochastic_depth]\nrate = 0.0\n"), StochasticDepth) == []


def test_the_one_block_of_a_network_is_kept(written):
    text = "[stages]\ndepth = [1]\nwidth = [256]\nstride = 2\n[stochastic_depth]\nrate = 0.5\n"
    for schedule in ("exclusive", "inclusive"):
        assert column(written(f"{text}schedule = '{schedule}'\n"), "drop_rate") == [0.0]


# wiring


def test_a_shortcut_pools_then_projects_or_strides():
    pooled, strided = by_name(planned("nfnet-f0")), by_name(planned("nf-resnet-50"))
    block = "stages.1.blocks.0"
    assert pooled[f"{block}.shortcut_pool"] == Pool(
        f"{block}.shortcut_pool", (f"{block}.act0",), "avg", 2, 2, "same"
    )
    assert pooled[f"{block}.conv_shortcut"].inputs == (f"{block}.shortcut_pool",)
    assert pooled[f"{block}.conv_shortcut"].stride == 1
    assert strided[f"{block}.conv_shortcut"].inputs == (f"{block}.act0",)
    assert strided[f"{block}.conv_shortcut"].stride == 2
    assert f"{block}.shortcut_pool" not in strided


def test_a_shortcut_is_the_input_where_nothing_changes():
    actual = by_name(planned("nfnet-f0"))
    assert "stages.0.blocks.0.shortcut_pool" not in actual  # other channels, same size
    assert actual["stages.0.blocks.0.add"].inputs[1] == "stages.0.blocks.0.conv_shortcut"
    assert actual["stages.1.blocks.1.add"].inputs == (
        "stages.1.blocks.1.stochastic_depth",
        "stages.1.blocks.0.add",
    )


def test_a_shortcut_may_read_the_raw_input(written):
    actual = by_name(written("[block]\nshortcut_input = 'raw'\n"))
    assert actual["stages.1.blocks.0.shortcut_pool"].inputs == ("stages.0.blocks.0.add",)
    assert actual["stages.0.blocks.0.conv_shortcut"].inputs == ("stem.conv3",)


def test_a_block_strides_in_its_first_grouped_conv():
    actual = by_name(planned("nfnet-f0"))
    convs = [actual[f"stages.1.blocks.0.conv{n}"] for n in ("0", "1", "1b", "2")]
    assert [(c.kernel, c.stride, c.groups) for c in convs] == [
        (1, 1, 1),
        (3, 2, 2),
        (3, 1, 2),
        (1, 1, 1),
    ]
    assert actual["stages.1.blocks.1.conv1"].stride == 1
    assert "stages.1.blocks.0.conv1b" not in by_name(planned("nf-resnet-50"))


def test_the_stem_activates_between_its_convs_and_pools_after_them():
    assert [op.name for op in planned("nfnet-f0").ops[:7]] == [
        *("stem.conv0", "stem.act0", "stem.conv1", "stem.act1"),
        *("stem.conv2", "stem.act2", "stem.conv3"),
    ]
    assert [op.stride for op in ops(planned("nfnet-f0"), WSConv)[:4]] == [2, 1, 1, 2]
    deepmind, timm = planned("nf-resnet-50"), planned("timm/nf_resnet50")
    assert by_name(deepmind)["stem.pool"] == Pool("stem.pool", ("stem.conv0",), "max", 3, 2, "same")
    assert by_name(timm)["stem.pool"].padding == "symmetric"
    assert deepmind.taps["stem"] == "stem.pool"


def test_the_head(written):
    assert [op.name for op in planned("nfnet-f0").ops[-5:]] == [
        *("final_conv", "final_act", "pool", "head.dropout", "head.fc")
    ]
    plain = written("[head]\nconv = 'none'\ndropout = 0.0\nclasses = 7\ninit_std = 0.0\n")
    assert [op.name for op in plain.ops[-3:]] == ["final_act", "pool", "head.fc"]
    assert (plain.ops[-1].in_features, plain.ops[-1].out_features) == (1536, 7)
    assert plain.parameters["head.fc.kernel"].init.value == 0.0
    assert ops(plain, Dropout) == []


# parameters


@pytest.mark.parametrize("name", ["nfnet-f0", "nf-regnet-b0", "timm/nf_ecaresnet26"])
def test_parameters_have_the_role_their_name_says(name):
    parameters = planned(name).parameters
    for key, parameter in parameters.items():
        last = key.rpartition(".")[2]
        assert parameter.name == key
        assert parameter.role == ("head" if key == "head.fc.kernel" else last)
    roles = {parameter.role for parameter in parameters.values()}
    skip = set() if name.startswith("timm/") else {"skip_gain"}
    assert roles == {"kernel", "gain", "bias", "head"} | skip


def test_shapes_and_initial_values_of_parameters():
    actual = planned("nfnet-f0").parameters
    shapes = {
        "stem.conv0.kernel": (3, 3, 3, 16),
        "stem.conv0.gain": (16,),
        "stages.1.blocks.0.conv1.kernel": (3, 3, 128, 256),
        "stages.1.blocks.0.conv1.bias": (256,),
        "stages.1.blocks.0.se.fc0.kernel": (512, 256),
        "stages.1.blocks.0.se.fc1.bias": (512,),
        "stages.1.blocks.0.skip_gain": (),
        "final_conv.kernel": (1, 1, 1536, 3072),
        "head.fc.kernel": (3072, 1000),
    }
    assert {name: actual[name].shape for name in shapes} == shapes
    assert actual["stages.1.blocks.0.conv1.kernel"].init.value == pytest.approx((9 * 128) ** -0.5)
    assert actual["stages.1.blocks.0.se.fc0.kernel"].init.kind == "truncated_normal"
    assert actual["stages.1.blocks.0.se.fc0.kernel"].init.value == pytest.approx(512**-0.5)
    assert actual["stages.1.blocks.0.skip_gain"].init.value == 0.0
    assert actual["stages.1.blocks.0.conv2.gain"].init.value == 1.0
    assert actual["head.fc.kernel"].init.value == 0.01


def test_timms_residuals_start_at_zero_by_the_last_gain():
    actual = planned("timm/nfnet_f0").parameters
    gains = {name: p.init.value for name, p in actual.items() if p.role == "gain"}
    assert {name for name, value in gains.items() if value == 0.0} == {
        name for name in gains if name.endswith(".conv2.gain") and name.startswith("stages")
    }
    assert not any(p.role == "skip_gain" for p in actual.values())


# dilation, kernels of two sizes


def test_a_stages_first_conv_has_the_dilation_of_the_stage_before(written):
    plan = written("[stages]\nstride = [1, 2, 1, 1]\ndilation = [1, 1, 2, 4]\n")
    convs = by_name(plan)
    found = {
        block: tuple(convs[f"stages.{block}.{conv}"].dilation for conv in ("conv1", "conv1b"))
        for block in ("1.blocks.1", "2.blocks.0", "2.blocks.1", "3.blocks.0", "3.blocks.1")
    }
    assert found == {
        "1.blocks.1": (1, 1),
        "2.blocks.0": (1, 2),
        "2.blocks.1": (2, 2),
        "3.blocks.0": (2, 4),
        "3.blocks.1": (4, 4),
    }
    assert {op.dilation for op in ops(plan, WSConv) if op.kernel == 1} == {1}
    assert column(plan, "dilation") == [1, 1, 1, *[2] * 6, *[4] * 3]
    assert column(plan, "first_dilation") == [1, 1, 1, 1, *[2] * 5, 2, 4, 4]


def test_a_conv_with_a_stride_is_not_dilated(written):
    plan = written("[stages]\ndilation = 2\n")
    assert not [op for op in ops(plan, WSConv) if op.dilation > 1 and op.stride > 1]
    assert column(plan, "first_dilation") == [1, 1, 2, 1, *[2] * 5, 1, 2, 2]


def test_a_shortcut_that_lost_its_stride_keeps_its_conv_and_a_pool_that_counts_zeros(written):
    """Also where the channels stay the same, as in the last stage."""
    plan = written("[stages]\nstride = [1, 2, 2, 1]\ndilation = [1, 1, 1, 2]\n")
    pools = [(op.name, op.window, op.stride, op.padding, op.counted) for op in ops(plan, Pool)]
    assert pools == [
        ("stages.1.blocks.0.shortcut_pool", 2, 2, "same", False),
        ("stages.2.blocks.0.shortcut_pool", 2, 2, "same", False),
        ("stages.3.blocks.0.shortcut_pool", 2, 1, "same", True),
    ]
    assert column(plan, "shortcut")[-3:] == ["pool_conv", "identity", "identity"]


def test_a_strided_shortcut_that_lost_its_stride_is_a_conv(written):
    text = "[stages]\nstride = [1, 2, 2, 1]\ndilation = [1, 1, 1, 2]\n"
    plan = written(text, parent="nf-resnet-50")
    assert by_name(plan)["stages.3.blocks.0.conv_shortcut"].stride == 1
    assert "shortcut_pool" not in str([op.name for op in plan.ops])


def test_the_two_convs_of_a_block_may_have_kernels_of_two_sizes(written):
    plan = written("[stages]\nkernel = [3, [3, 5], [7, 1], 5]\n")
    convs = by_name(plan)
    for stage, sides in enumerate([(3, 3), (3, 5), (7, 1), (5, 5)]):
        names = (f"stages.{stage}.blocks.0.{conv}" for conv in ("conv1", "conv1b"))
        assert tuple(convs[name].kernel for name in names) == sides
    assert [(b.kernel, b.second_kernel) for b in plan.blocks][1] == (3, 5)


@pytest.mark.parametrize("text", ["dilation = 1", 'groups = "none"', "dilation = [1, 1, 1, 1]"])
def test_what_says_nothing_leaves_the_digest(text, written):
    assert written(f"[stages]\n{text}\n").digest == planned("nfnet-f0").digest
    assert '"dilation"' not in planned("nfnet-f0").canonical


# weight standardisation


def test_weight_standardisation_is_that_of_a_stage_and_the_ends_have_the_nearest(written):
    plan = written(
        '[ws]\neps = [1e-4, 1e-5, 1e-6, 1e-7]\neps_rule = ["max", "none", "add", "add_to_std"]\n'
        "ddof = [0, 0, 1, 1]\n"
    )
    wanted = [(1e-4, "max", 0), (1e-5, "none", 0), (1e-6, "add", 1), (1e-7, "add_to_std", 1)]
    for conv in ops(plan, WSConv):
        part = conv.name.split(".")
        stage = int(part[1]) if part[0] == "stages" else 0 if part[0] == "stem" else 3
        assert (conv.eps, conv.eps_rule, conv.ddof) == wanted[stage], conv.name
    assert ops(plan, WSConv)[-1].name == "final_conv"


def test_a_conv_of_one_weight_is_allowed_where_it_is_not_standardised(written):
    text = "[input]\nchannels = 1\nmean = [0.5]\nstd = [0.25]\n[stem]\nkernel = [1, 3, 3, 3]\n"
    plan = written(f'{text}[ws]\neps_rule = ["none", "max", "max", "max"]\n')
    assert ops(plan, WSConv)[0].fan_in == 1


def test_a_stage_without_gains_has_no_such_parameters(written):
    plan = written("[ws]\ngain = [true, false, true, true]\n")
    without = {f"{op.name}.gain" for op in ops(plan, WSConv) if not op.gained}
    assert without and all(name.startswith("stages.1.") for name in without)
    everywhere = planned("nfnet-f0").parameters
    assert list(plan.parameters) == [name for name in everywhere if name not in without]
