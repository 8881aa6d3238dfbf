import numpy as np
import pytest

from nfspec.weights import check


def without(name):
    return lambda params: {k: v for k, v in params.items() if k != name}


def with_(name, value):
    return lambda params: params | {name: value}


def renamed(old, new):
    return lambda params: {new if k == old else k: v for k, v in params.items()}


BAD = [
    (without("stem.conv0.gain"), "  stem.conv0.gain: missing, expected shape (16,)"),
    (
        with_("stem.conv0.kernel", np.zeros((3, 3, 16, 3), np.float32)),
        "  stem.conv0.kernel: shape (3, 3, 16, 3), expected (3, 3, 3, 16)",
    ),
    (
        with_("stages.0.blocks.0.skip_gain", np.zeros(1, np.float32)),
        "  stages.0.blocks.0.skip_gain: shape (1,), expected ()",
    ),
    (with_("head.fc.bias", np.zeros(10)), "  head.fc.bias: float64, expected float32"),
    (with_("head.fc.bias", np.full(10, None)), "  head.fc.bias: object, expected float32"),
    (
        with_("head.fc.bias", np.zeros(9, np.float16)),
        "  head.fc.bias: shape (9,), expected (10,); float16, expected float32",
    ),
    (with_("head.fc.bias", [0.0] * 10), "  head.fc.bias: list, expected a NumPy array"),
    (with_("ema", np.zeros((2, 3), np.float32)), "  ema: not in this network, found shape (2, 3)"),
    (with_("ema", 1.0), "  ema: not in this network"),
    (
        with_("a\x1b[2Jb\n", np.zeros(2)),
        "  a\\x1b[2Jb\\n: not in this network, found shape (2,)",
    ),
]


@pytest.mark.parametrize(("change", "line"), BAD)
def test_one_wrong_tensor_is_named(plan, params, complaint, change, line):
    message = complaint(check, plan, change(params))
    assert message == f"1 tensor does not fit nfnet-tiny:\n{line}"


def test_a_misspelt_name_is_missing_and_extra_with_a_suggestion(plan, params, complaint):
    wrong = renamed("stages.2.blocks.1.conv1b.kernel", "stages.2.blocks.1.conv_1b.kernel")(params)
    assert complaint(check, plan, wrong, "my.safetensors") == (
        "my.safetensors: 2 tensors do not fit nfnet-tiny:\n"
        "  stages.2.blocks.1.conv1b.kernel: missing, expected shape (3, 3, 8, 24)\n"
        "  stages.2.blocks.1.conv_1b.kernel: not in this network, found shape (3, 3, 8, 24); "
        'did you mean "stages.2.blocks.1.conv1b.kernel"?'
    )


def test_only_missing_names_are_suggested(plan, params, complaint):
    extra = with_("stem.conv0.gains", np.zeros(2, np.float32))(without("head.fc.bias")(params))
    assert complaint(check, plan, extra).endswith(
        "  head.fc.bias: missing, expected shape (10,)\n"
        "  stem.conv0.gains: not in this network, found shape (2,)"
    )


def test_twenty_lines_and_how_many_more(plan, complaint):
    lines = complaint(check, plan, {}).split("\n")
    assert lines[0] == "131 tensors do not fit nfnet-tiny:"
    assert lines[1] == "  stem.conv0.kernel: missing, expected shape (3, 3, 3, 16)"
    assert len(lines) == 22
    assert lines[-1] == "  and 111 more"


def test_twenty_wrong_tensors_are_all_named(plan, params, complaint):
    wrong = params | {f"x{i}": np.zeros(1) for i in range(20)}
    lines = complaint(check, plan, wrong).split("\n")
    assert len(lines) == 21
    assert lines[-1] == "  x19: not in this network, found shape (1,)"


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        ("stem.conv1.weight", "a timm state dict; use nfspec.weights.from_timm"),
        ("NFNet/~/final_conv/w", "DeepMind's weights; use nfspec.weights.from_deepmind"),
    ],
)
def test_weights_of_others_are_recognised(plan, complaint, name, whose):
    actual = {name: np.zeros(1, np.float32)}
    assert complaint(check, plan, actual, "w") == f"w: looks like {whose}"


def test_one_stray_foreign_name_does_not_hide_what_is_wrong(plan, params, complaint):
    actual = with_("ema.weight", np.zeros(1, np.float32))(params)
    assert complaint(check, plan, actual) == (
        "1 tensor does not fit nfnet-tiny:\n  ema.weight: not in this network, found shape (1,)"
    )


def test_something_that_is_no_dict(plan, complaint):
    assert complaint(check, plan, [1]) == "expected a dict of arrays, found list"


def test_right_weights_come_back_in_the_plans_order(plan, params):
    backwards = dict(reversed(params.items()))
    actual = check(plan, backwards)
    assert list(actual) == list(plan.parameters)
    assert actual is not backwards
    assert all(actual[name] is array for name, array in params.items())
