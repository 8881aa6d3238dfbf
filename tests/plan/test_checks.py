"""Fields that do not agree, each with the whole line it is told in and the place it is told for."""

import pytest

from nfspec import load, resolve, variants
from nfspec.plan.clipping import clip_rules

from specs import HEAD, complaints, write

LENGTH, GROUPS = "[SPEC-LENGTH]", "[SPEC-GROUPS]"
DEAD = (
    "would have one weight for each output (fan-in 1), which weight standardisation turns into "
    "zero; use more channels or a larger kernel [SPEC-FAN-IN]"
)
POOL = (
    "at most 2 where an average pool makes the shortcut; found 3; "
    'block.shortcut = "strided_conv" takes any [SPEC-STRIDE]'
)
SLOPE = (
    'activation.gamma: the "deepmind" table has leaky_relu of slope 0.01, this one is of 0.2; '
    'use gamma = "exact" [SPEC-GAMMA]'
)
NOTHING = "where * stands for any run of characters"
LIKE = 'names are like "head.fc.kernel" [SPEC-AGC]'

# What stands from line 5 on, and the lines of errors after `x.toml:`. nfnet-f0 is the parent: a
# problem of a value of its is told at the line of x.toml that caused it.
FIELDS = {
    "[stages]\nwidth = [256, 512]": [
        f"6:1: stages.width: has 2 entries, but the length of stages.depth is 4 {LENGTH}"
    ],
    "[stages]\ndepth = [1, 2]": [
        f"6:1: stages.width: has 4 entries, but the length of stages.depth is 2 {LENGTH}",
        f"6:1: stages.stride: has 4 entries, but the length of stages.depth is 2 {LENGTH}",
    ],
    "[ws]\neps = [1e-4, 1e-5, 1e-6]": [
        "6:1: ws.eps: has 3 entries, but it is one value for all, or one for each stage, and the "
        f"length of stages.depth is 4 {LENGTH}"
    ],
    "[stages]\nalpha = [0.2]": [
        f"6:1: stages.alpha: has 1 entry, but the length of stages.depth is 4 {LENGTH}"
    ],
    "[stages]\nbeta = [[1], [1, 1], [1, 1, 1], 0.5]": [
        f"6:22: stages.beta[2]: has 3 entries, but stages.depth[2] is 6 {LENGTH}"
    ],
    "[stages]\ngroups = 8": [
        "6:1: stages.groups: 8 groups, and 128 channels in each by stages.group_width (stage 0): "
        f'one of the two has to be "none" {GROUPS}'
    ],
    '[stages]\ngroups = [1, 1, 1, 5]\ngroup_width = "none"\n[rounding]\ngroups = "exact"': [
        "6:20: stages.groups[3]: 5 groups do not divide the bottleneck of 768 (stage 3, block 0); "
        f'rounding.groups = "floor" makes it 765 {GROUPS}'
    ],
    '[stages]\ngroups = 500\ngroup_width = "none"': [
        "6:1: stages.groups: 500 groups are more than the channels of the bottleneck of 128 "
        f"(stage 0, block 0) {GROUPS}"
    ],
    "[stages]\nkernel = [3, [3, 5], 3, 3]\n[block]\nconvs = 1": [
        "6:14: stages.kernel[1]: a pair is for two convs, and block.convs is 1; found [3, 5] "
        + LENGTH
    ],
    "[stages]\nkernel = [3, [3, 4], 3, 3]": [
        "6:18: stages.kernel[1][1]: must be odd; found 4 [SPEC-KERNEL]"
    ],
    "[stages]\nbeta = [1, 1]": [
        f"6:1: stages.beta: has 2 entries, but the length of stages.depth is 4 {LENGTH}"
    ],
    "[stem]\nwidth = [64]": [
        f"6:1: stem.stride: has 4 entries, but the length of stem.width is 1 {LENGTH}"
    ],
    "[input]\nchannels = 1": [
        f"6:1: input.mean: has 3 entries, but input.channels is 1 {LENGTH}",
        f"6:1: input.std: has 3 entries, but input.channels is 1 {LENGTH}",
    ],
    "[stages]\ndepth = [2000, 2000, 2000, 2000]": [
        "6:1: stages.depth: 8000 blocks in all, more than the limit of 2000 [SPEC-LIMIT]"
    ],
    "[stages]\nwidth = [65536, 65536, 65536, 65536]\nwidth_factor = 9.0": [
        "6:1: stages.width: 9.9e+12 parameters in all, more than the limit of 1e+11 [SPEC-LIMIT]"
    ],
    "[se]\nratio = 1e3\n[stages]\ndepth = [5, 10, 30, 15]": [
        "7:1: stages.width: 2.2e+11 parameters in all, more than the limit of 1e+11 [SPEC-LIMIT]"
    ],
    "[stages]\nkernel = [3, 3, 2, 4]\n[stem]\nkernel = 2\n[eca]\nkernel = 4": [
        "6:17: stages.kernel[2]: must be odd; found 2 [SPEC-KERNEL]",
        "6:20: stages.kernel[3]: must be odd; found 4 [SPEC-KERNEL]",
        "8:1: stem.kernel: must be odd; found 2 [SPEC-KERNEL]",
        "10:1: eca.kernel: must be odd; found 4 [SPEC-KERNEL]",
    ],
    "[stages]\ngroup_width = 129": [
        "6:1: stages.group_width: 129 is wider than the bottleneck of 128 (stage 0, block 0); "
        "nearest that works: stages.group_width = 128, or stages.width_factor = 1.008 " + GROUPS
    ],
    "[stages]\nwidth = [256, 254, 1536, 254]": [
        "6:1: stages.group_width: 128 is wider than the bottleneck of 127 (stage 1, block 0); "
        "nearest that works: stages.group_width = 127, or stages.width_factor = 1.008 " + GROUPS
    ],
    "[stages]\ngroup_width = [192, 1, 769, 96]\n[rounding]\ngroups = 'exact'": [
        "6:16: stages.group_width[0]: 192 is wider than the bottleneck of 128 (stage 0, block 0); "
        "nearest that works: stages.group_width[0] = 128, or stages.width_factor = 1.5 " + GROUPS,
        "6:24: stages.group_width[2]: 769 is wider than the bottleneck of 768 (stage 2, block 0); "
        "nearest that works: stages.group_width[2] = 768, or stages.width_factor = 1.002 " + GROUPS,
    ],
    "[rounding]\ngroups = 'exact'\n[stages]\nwidth = [384, 512, 1536, 1536]": [
        "8:1: stages.group_width: 128 does not divide the bottleneck of 192 (stage 0, block 0); "
        "nearest that works: stages.group_width = 64, or stages.width_factor = 2; or "
        f'rounding.groups = "floor" for 128 {GROUPS}'
    ],
    "[stages]\nkernel = 1\ngroup_width = [128, 1, 128, 1]": [
        f"7:21: stages.group_width[1]: stages.1.blocks.0.conv1 {DEAD}",
        f"7:29: stages.group_width[3]: stages.3.blocks.0.conv1 {DEAD}",
    ],
    "[stem]\nwidth = [1, 32, 64, 128]\nkernel = 1": [f"6:13: stem.width[1]: stem.conv1 {DEAD}"],
    "[stages]\nstride = [1, 3, 2, 2]": [f"6:14: stages.stride[1]: {POOL}"],
    "[stages]\nstride = 3": [f"6:1: stages.stride: {POOL}"],
    "[activation]\nkind = 'leaky_relu'\nslope = 0.2": [f"7:1: {SLOPE}"],
    "[activation]\nslope = 0.2\ngamma = 'deepmind'\nkind = 'leaky_relu'": [f"7:1: {SLOPE}"],
    "[head]\nconv = 'width'": [
        "6:1: head.conv_width: leaves the final conv no channels; "
        'for no such conv, head.conv = "none" [SPEC-WIDTH]'
    ],
    "[head]\nconv_ratio = 1e-5": [
        "6:1: head.conv_ratio: leaves the final conv no channels; "
        'for no such conv, head.conv = "none" [SPEC-WIDTH]'
    ],
    "[rounding]\ndivisor = 512": [
        "6:1: stages.width[0]: 256, times stages.width_factor and rounded down to a multiple of "
        "512, is 0 channels [SPEC-WIDTH]",
        "6:1: stages.expansion: 0.5 of 256 channels is no bottleneck (stage 0, block 0) "
        "[SPEC-WIDTH]",
    ],
    "[stages]\nexpansion = 5e-4\ngroup_width = 'none'": [
        "6:1: stages.expansion: 0.0005 of 256 channels is no bottleneck (stage 0, block 0) "
        "[SPEC-WIDTH]",
    ],
    "[block]\nfirst_expansion = 1e-3": [
        "6:1: block.first_expansion: 0.001 of 256 channels is no bottleneck (stage 0, block 0) "
        "[SPEC-WIDTH]",
    ],
    "[agc]\nexclude = ['head.fc.*', 'head.fc.kernal']": [
        f'6:25: agc.exclude[1]: no parameter is called "head.fc.kernal", {NOTHING}; did you mean '
        '"head.fc.kernel"? [SPEC-AGC]'
    ],
    "[agc.names]\n'*' = 1\n'stages.*.gian' = 1\nfc = 1\n'head.kernel' = 1": [
        f'7:1: agc.names."stages.*.gian": no parameter is called "stages.*.gian", {NOTHING}; did '
        'you mean "stages.*.gain"? [SPEC-AGC]',
        f'8:1: agc.names.fc: no parameter is called "fc", {NOTHING}; {LIKE}',
        f'9:1: agc.names."head.kernel": no parameter is called "head.kernel", {NOTHING}; did you '
        'mean "head.fc.kernel"? [SPEC-AGC]',
    ],
    "[agc]\nexclude = ['stem.conv?.*', 'stem.[ac]*.gain', 'HEAD.*', 'fc.*', '*.fc']": [
        f'6:12: agc.exclude[0]: no parameter is called "stem.conv?.*", {NOTHING}; did you '
        'mean "stem.conv3.*"? [SPEC-AGC]',
        f'6:28: agc.exclude[1]: no parameter is called "stem.[ac]*.gain", {NOTHING}; did you '
        'mean "stem.conv3.gain"? [SPEC-AGC]',
        f'6:47: agc.exclude[2]: no parameter is called "HEAD.*", {NOTHING}; {LIKE}',
        f'6:57: agc.exclude[3]: no parameter is called "fc.*", {NOTHING}; {LIKE}',
        f'6:65: agc.exclude[4]: no parameter is called "*.fc", {NOTHING}; {LIKE}',
    ],
    "[stages]\ngroup_width = 129\n[agc]\nexclude = ['head']": [
        "6:1: stages.group_width: 129 is wider than the bottleneck of 128 (stage 0, block 0); "
        "nearest that works: stages.group_width = 128, or stages.width_factor = 1.008 " + GROUPS,
        f'8:12: agc.exclude[0]: no parameter is called "head", {NOTHING}; {LIKE}',
    ],
    "[agc]\nenabled = false\nexclude = ['head']": [
        f'7:12: agc.exclude[0]: no parameter is called "head", {NOTHING}; {LIKE}'
    ],
}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("text", FIELDS, ids=[text[:40] for text in FIELDS])
def test_fields_that_do_not_agree(text):
    assert complaints(write(f"{HEAD}{text}\n")) == [f"x.toml:{line}" for line in FIELDS[text]]


def test_what_no_file_of_the_author_caused_is_told_where_it_is():
    write('schema = "nfspec/1"\nname = "b"\nsource = "own"\nextends = "nfnet-f0"\n', "b.toml")
    write(HEAD.replace("nfnet-f0", "b.toml"))
    write(f"{HEAD}stages.kernel = 2\n", "b.toml")
    assert complaints("x.toml") == ["b.toml:5:1: stages.kernel: must be odd; found 2 [SPEC-KERNEL]"]


def test_a_bad_value_is_not_blamed_for_what_stands_in_for_it():
    text = "[stages]\ndepth = [1, 0, 1]\nwidth = [256, 512, 512]\nstride = 1\nkernel = 4"
    assert complaints(write(f"{HEAD}{text}\n")) == [
        "x.toml:6:13: stages.depth[1]: must be at least 1; found 0 [SPEC-VALUE]",
        "x.toml:9:1: stages.kernel: must be odd; found 4 [SPEC-KERNEL]",
    ]


# Patterns of a parent, each with what the author of x.toml changed so that it matches nothing, and
# the line of that.
TAKEN_AWAY = {
    "final_conv.*": ("[head]\nconv = 'none'", 6),
    "*.skip_gain": ("[block]\nskip_gain = false", 6),
    "*.conv1b.gain": ("[block]\nconvs = 1", 6),
    "*.se.fc0.kernel": ("[stages]\nkernel = 5\nattention = 'none'", 7),
    "stages.3.*": ("[stages]\ndepth = [1, 2, 6]\nwidth = [256, 512, 1536]\nstride = 2", 6),
    "stages.2.blocks.5.*": ("[stages]\ndepth = [1, 2, 5, 3]", 6),
    "stages.0.*shortcut*": ("[stages]\nwidth = [128, 512, 1536, 1536]\nexpansion = 1", 6),
    "stem.conv3.kernel": ("[stem]\nwidth = [16, 32, 64]\nstride = [2, 1, 1]", 6),
}


@pytest.mark.parametrize("pattern", TAKEN_AWAY)
def test_a_parents_pattern_is_told_at_what_took_its_parameters_away(pattern):
    text, line = TAKEN_AWAY[pattern]
    write(f"{HEAD}agc.names = {{'{pattern}' = 0.1}}\n", "b.toml")
    assert complaints("b.toml") == []
    complained = complaints(write(HEAD.replace("nfnet-f0", "b.toml") + text))
    assert [actual.split(" no parameter")[0] for actual in complained] == [
        f'x.toml:{line}:1: agc.names."{pattern}":'
    ]


def test_a_parents_slip_is_told_where_it_is():
    write(f"{HEAD}agc.exclude = ['head.fc.kernal']\n", "b.toml")
    text = "[head]\nconv = 'none'\n[stages]\ndepth = [1, 1, 1, 1]\n"
    (line,) = complaints(write(HEAD.replace("nfnet-f0", "b.toml") + text))
    assert line.startswith("b.toml:5:16: agc.exclude[0]: no parameter is called")


def test_a_pattern_is_not_blamed_for_what_a_bad_value_took_away():
    text = "agc.names = {'*.eca.*' = 1}\nstages.attention = 'eac'\n"
    (line,) = complaints(write(HEAD + text))
    assert line.startswith("x.toml:6:1: stages.attention: expected")


def test_of_many_patterns_that_match_nothing_20_are_told():
    write(HEAD + "[agc.names]\n" + "".join(f"a{n} = 1\n" for n in range(21)))
    first, *lines = complaints("x.toml")
    assert first == (
        "x.toml:5:1: agc: more patterns than the 20 listed are the name of no parameter [SPEC-AGC]"
    )
    assert [line.split()[1] for line in lines] == [f"agc.names.a{n}:" for n in range(20)]
    write(HEAD + "[agc.names]\n" + "".join(f"a{n} = 1\n" for n in range(20)))
    assert complaints("x.toml") == [*lines]


def test_patterns_times_parameters_are_limited():
    write(f"{HEAD}agc.exclude = {['*'] * 430}\n")  # 233 * 430 = 100,190
    assert complaints("x.toml") == [
        "x.toml:5:1: agc: 430 patterns with a * for 233 parameters are too many to try; the one "
        "times the other may be 100000 [SPEC-LIMIT]"
    ]
    write(f"{HEAD}agc.exclude = {['*'] * 429 + ['head.fc.kernel']}\n")
    assert complaints("x.toml") == []


def test_a_star_is_any_run_of_characters_an_empty_one_too():
    write(f"{HEAD}agc.exclude = ['*stem.conv*.*kernel', 'head.*']\n")
    spared = [
        name for name, rule in clip_rules(resolve(load("x.toml"))).items() if not rule.clipping
    ]
    stem = [f"stem.conv{i}.kernel" for i in range(4)]
    assert spared == [*stem, "head.fc.kernel", "head.fc.bias"]


@pytest.mark.parametrize("name", variants())
def test_the_head_of_every_network_is_kept_from_clipping(name):
    plan = resolve(load(name))
    assert clip_rules(plan)["head.fc.kernel"].clipping is None
