"""Training steps against the original's, and each rule against numbers worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

import nfspec
from nfspec.plan.clipping import ClipRule, clip_rules
from nfspec.reference import TrainingState, loss_and_gradients, train_step, training

from golden import NETWORKS, golden, relative


def wanted(g):
    smoothing = g.training_plan.recipe.label_smoothing
    return training.smoothed(g["labels"], g["logits"].shape[1], smoothing)


def changed(plan, agc=None, **recipe):
    """A plan with other entries in its tables."""
    return replace(
        plan,
        agc=plan.agc.model_copy(update=agc or {}),
        recipe=plan.recipe.model_copy(update=recipe),
    )


def run(g, plan, steps=10):
    """States after each step and reports of each, until the loss is no number any more."""
    states, reports = [TrainingState.start(plan, g.params)], []
    while len(reports) < steps and (not reports or np.isfinite(reports[-1].loss)):
        state, report = train_step(plan, states[-1], g["x"], wanted(g), plan.recipe.learning_rate)
        states.append(state)
        reports.append(report)
    return states, reports


@pytest.mark.parametrize("network", NETWORKS)
def test_ten_steps_with_agc_are_the_originals(network):
    g = golden(network)
    states, reports = run(g, g.training_plan)
    assert [r.loss for r in reports] == pytest.approx(g["agc/losses"], rel=1e-7)

    first = g.named("agc/step1")  # rounded to float32: 2^-24 = 6e-8 of each element
    assert list(states[1].params) == list(g.plan.parameters)
    for name, exact in first.items():
        assert relative(states[1].params[name], exact) <= 1e-7, name

    assert states[-1].step == 10
    for name, (norm, total) in g.named("agc/step10_l2_sum").items():
        value = states[-1].params[name]
        assert np.linalg.norm(value) == pytest.approx(norm, rel=1e-7), name
        assert value.sum() == pytest.approx(total, rel=0, abs=1e-7 * norm), name


@pytest.mark.parametrize("network", NETWORKS)
def test_without_agc_the_loss_goes_where_the_originals_does(network):
    g = golden(network)
    with np.errstate(all="ignore"):  # three of the four networks diverge
        _, reports = run(g, changed(g.training_plan, agc={"enabled": False}))
    exact = g["sgd/losses"]
    assert not np.isfinite(exact[len(reports) :]).any()
    assert [r.loss for r in reports] == pytest.approx(exact[: len(reports)], rel=1e-7, nan_ok=True)
    assert all(not r.clip_fractions for r in reports)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_fraction_clipped_is_the_originals(network):
    """Its figure counts the classifier's kernel, whose norms are over the limit, too."""
    g = golden(network)
    plan = changed(g.training_plan, agc={"exclude": ()})
    (report,) = run(g, plan, steps=1)[1]
    units = {name: rule.units for name, rule in clip_rules(plan).items()}
    assert report.clip_fractions.keys() == units.keys()
    clipped = sum(fraction * units[name] for name, fraction in report.clip_fractions.items())
    assert clipped / sum(units.values()) == pytest.approx(g.meta["clip_fraction_step1"], rel=1e-12)


def test_targets_are_smoothed():
    exact = [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]]
    assert training.smoothed([2, 0], 4, 0.1) == pytest.approx(np.array(exact), rel=1e-15)
    mixed = np.array([[0.5, 0.5, 0.0, 0.0]])
    exact = np.array([[0.475, 0.475, 0.025, 0.025]])
    assert training.smoothed(mixed, 4, 0.1) == pytest.approx(exact, rel=1e-15)
    assert training.smoothed(mixed, 4, 0.0).tolist() == mixed.tolist()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 4], "labels: expected 0 to 3; found 0 to 4"),
        ([-1, 3], "labels: expected 0 to 3; found -1 to 3"),
        ([0.5, 1.0], "found float64 of shape"),
        (np.zeros((2, 3)), r"distributions of shape \(N, 4\); found float64 of shape \(2, 3\)"),
    ],
)
def test_other_labels_are_refused(labels, message):
    with pytest.raises(nfspec.InputError, match=message):
        training.smoothed(labels, 4, 0.1)


W = np.array([[3.0, 0.0, 6.0], [4.0, 1e-4, 8.0]])  # columns of norm 5, 1e-4 and 10
G = np.array([[0.6, 3.0, 0.0], [0.8, 4.0, 0.5]])  # columns of norm 1, 5 and 0.5


@pytest.mark.parametrize(
    ("axes", "units", "exact", "fraction"),
    [
        # Limits 0.5, 0.1 · eps = 0.1 · 1e-3, and 1.
        ((0,), 3, [[0.3, 6e-5, 0.0], [0.4, 8e-5, 0.5]], 2 / 3),
        # Of the tensor: 0.1 · sqrt(125 + 1e-8), of a gradient of sqrt(26.25).
        (None, 1, G * (0.1 * (125 + 1e-8) ** 0.5 / 26.25**0.5), 1.0),
        # Of each element: 0.1 · max(|w|, eps).
        ((), 6, [[0.3, 1e-4, 0.0], [0.4, 1e-4, 0.5]], 4 / 6),
    ],
)
def test_clip_by_hand(axes, units, exact, fraction):
    actual, clipped = training.clip(G, W, ClipRule(axes, units, 0.1, 1e-3))
    assert actual == pytest.approx(np.array(exact), rel=1e-15, abs=1e-18)
    assert clipped == pytest.approx(fraction, rel=1e-15)


def test_clip_leaves_what_it_may_not_or_need_not_clip():
    actual, clipped = training.clip(G, W, ClipRule((0,), 3, None, 1e-3))
    assert actual is G and clipped == 0.0
    # Exactly at the limit: 0.5 · 5 = 2.5.
    w, g = np.array([3.0, 4.0]), np.array([1.5, 2.0])
    actual, clipped = training.clip(g, w, ClipRule(None, 1, 0.5, 1e-3))
    assert actual.tolist() == g.tolist() and clipped == 0.0
    actual, clipped = training.clip(np.array(0.0), np.array(0.0), ClipRule(None, 1, 0.01, 1e-3))
    assert actual == 0.0 and clipped == 0.0


def test_clip_guards_the_division_with_the_originals_1e_6():
    """A limit of 1e-4 · 1e-3 and a gradient of 5e-7: scaled by 1e-7 / 1e-6."""
    actual, _ = training.clip(np.array([5e-7]), np.zeros(1), ClipRule(None, 1, 1e-4, 1e-3))
    assert actual == pytest.approx([5e-8], rel=1e-14)


def test_clip_keeps_what_is_not_finite_within_its_unit():
    nan, inf = np.nan, np.inf
    w = np.array([[1.0, 1.0, nan, inf, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
    g = np.array([[nan, inf, 9.0, 9.0, 3.0], [9.0, 9.0, 9.0, 9.0, 4.0]])
    actual, clipped = training.clip(g, w, ClipRule((0,), 5, 0.1, 1e-3))
    last = 0.1 * 2**0.5 / 5
    exact = [[nan, nan, 9.0, 9.0, 3.0 * last], [9.0, 0.0, 9.0, 9.0, 4.0 * last]]
    assert actual == pytest.approx(np.array(exact), rel=1e-15, nan_ok=True)
    assert clipped == 2 / 5


@pytest.mark.parametrize(
    ("step", "exact"),
    [(0, 0.0), (5, 0.8), (12, 1.92), (12.5, 2.0), (56.25, 1.1), (100, 0.2), (120, 0.2)],
)
def test_learning_rate_rises_and_falls(step, exact):
    actual = training.learning_rate(step, peak=2.0, steps=100, warmup=12.5, final=0.2)
    assert actual == pytest.approx(exact, rel=1e-15)


def test_learning_rate_without_warmup_starts_at_its_peak():
    assert training.learning_rate(0, 2.0, 90, 0, 0.0) == 2.0
    # A third of the way: (1 + cos(pi/3)) / 2 = 3/4.
    assert training.learning_rate(30, 2.0, 90, 0, 0.0) == pytest.approx(1.5, rel=1e-15)


@pytest.mark.parametrize("warmup", [100, -1])
def test_a_warmup_that_leaves_no_training_is_refused(warmup):
    with pytest.raises(nfspec.InputError, match="warmup: expected 0 to less than 100 steps"):
        training.learning_rate(0, 1.0, 100, warmup, 0.0)


@pytest.mark.parametrize(
    ("nesterov", "first", "second"),
    [
        # w = 2, gradient 1, decay 0.1: 1.2 enters, the buffer is 1.2 and the step 1.2 + 0.6.
        # Then w = 1.82, gradient -1, rate halved: -0.818; buffer -0.218; step -0.818 - 0.109.
        (True, 2.0 - 0.1 * 1.8, 1.82 + 0.05 * 0.927),
        # The step is the buffer: 1.2; then w = 1.88, -0.812 enters, buffer -0.212.
        (False, 2.0 - 0.1 * 1.2, 1.88 + 0.05 * 0.212),
    ],
)
def test_descend_by_hand(nesterov, first, second):
    recipe = golden("nfnet_tiny").plan.recipe.model_copy(
        update={"momentum": 0.5, "nesterov": nesterov}
    )
    w, buffer = training.descend(np.array(2.0), np.array(1.0), np.array(0.0), 0.1, 0.1, recipe)
    assert w == pytest.approx(first, rel=1e-15)
    w, _ = training.descend(w, np.array(-1.0), buffer, 0.05, 0.1, recipe)
    assert w == pytest.approx(second, rel=1e-15)


def test_weights_decay_and_other_roles_do_not():
    """With a gradient of zero (no target has any mass) what moves a parameter is its decay."""
    g = golden("nf_resnet_tiny")
    plan = changed(g.training_plan, momentum=0.0, weight_decay=0.5)
    start = TrainingState.start(plan, g.params)
    state, _ = train_step(plan, start, g["x"], np.zeros((2, 10)), 0.1)
    for name, parameter in plan.parameters.items():
        kept = 0.95 if parameter.role in ("kernel", "head") else 1.0
        exact = kept * start.params[name]
        assert np.abs(state.params[name] - exact).max() <= 1e-15 * np.abs(exact).max(), name


def test_decay_is_not_clipped_and_the_clipped_gradient_enters_the_momentum():
    g = golden("nf_resnet_tiny")
    plan = changed(g.training_plan, weight_decay=0.5)
    start = TrainingState.start(plan, g.params)
    raw = loss_and_gradients(plan, start.params, g["x"], wanted(g)).of_parameters
    state, _ = train_step(plan, start, g["x"], wanted(g), 0.1)
    rules = clip_rules(plan)
    for name, parameter in plan.parameters.items():
        clipped, _ = training.clip(raw[name], start.params[name], rules[name])
        decay = 0.5 if parameter.role in ("kernel", "head") else 0.0
        exact = clipped + decay * start.params[name]
        assert relative(state.momentum[name], exact) <= 1e-14, name


@pytest.mark.parametrize(
    ("decay", "step", "warm", "exact"),
    [
        (0.99, 0, True, 0.1 * 2 + 0.9 * 12),
        (0.99, 8, True, 0.5 * 2 + 0.5 * 12),
        (0.99, 10_000, True, 0.99 * 2 + 0.01 * 12),  # 10001/10010 = 0.9991
        (0.99, 0, False, 0.99 * 2 + 0.01 * 12),
    ],
)
def test_ema_by_hand(decay, step, warm, exact):
    actual = training.ema(np.array(2.0), np.array(12.0), decay, step, warm)
    assert actual == pytest.approx(exact, rel=1e-14)


def test_averages_are_of_the_parameters_after_each_step():
    g = golden("nf_resnet_tiny")
    plan = changed(g.training_plan, ema_decay=0.15, ema_warm=True)
    states, _ = run(g, plan, steps=2)
    name = "head.fc.bias"
    values = [state.params[name] for state in states]
    first = 0.1 * values[0] + 0.9 * values[1]  # min(0.15, 1/10)
    assert states[1].averages[name] == pytest.approx(first, rel=1e-15)
    second = 0.15 * first + 0.85 * values[2]  # min(0.15, 2/11)
    assert states[2].averages[name] == pytest.approx(second, rel=1e-15)
    assert list(states[2].averages) == list(plan.parameters)
    assert not TrainingState.start(changed(plan, ema_decay=0.0), g.params).averages


def test_sam_goes_rho_along_the_gradient_of_all_parameters_together():
    actual = training.perturbation({"a": np.array([3.0]), "b": np.array([[0.0, 4.0]])}, 0.05)
    assert actual["a"] == pytest.approx([0.03], rel=1e-15)
    assert actual["b"] == pytest.approx(np.array([[0.0, 0.04]]), rel=1e-15)
    assert training.perturbation({"a": np.zeros(2)}, 0.05)["a"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("fraction", "first"), [(1.0, 2), (0.76, 2), (0.74, 1), (0.2, 1)])
def test_sam_descends_along_the_gradient_at_the_perturbed_point(fraction, first):
    g = golden("nf_resnet_tiny")
    plain = changed(g.training_plan, weight_decay=0.5)
    plan = changed(plain, sam_rho=0.05, sam_fraction=fraction)
    start, y = TrainingState.start(plan, g.params), wanted(g)
    state, report = train_step(plan, start, g["x"], y, 0.1)

    up = loss_and_gradients(plan, start.params, g["x"][:first], y[:first]).of_parameters
    norm = np.sqrt(sum((d**2).sum() for d in up.values()))
    above = {name: value + 0.05 / norm * up[name] for name, value in start.params.items()}
    there = loss_and_gradients(plan, above, g["x"], y)
    assert report.loss == pytest.approx(there.loss, rel=1e-13)
    assert report.loss > run(g, plain, steps=1)[1][0].loss
    rules = clip_rules(plan)
    for name, parameter in plan.parameters.items():
        # Clipped by, decayed by and stepping from the parameters that are not perturbed.
        w = start.params[name]
        clipped, share = training.clip(there.of_parameters[name], w, rules[name])
        assert report.clip_fractions.get(name, 0.0) == share
        decay = 0.5 if parameter.role in ("kernel", "head") else 0.0
        exact = w - 0.1 * 1.9 * (clipped + decay * w)  # Nesterov's first step: 1 + 0.9
        # The perturbation's sums are in another order: rounding of 1e-16 in a hundred operations.
        assert relative(state.params[name], exact) <= 1e-13, name


def test_a_plan_without_a_recipe_is_refused():
    g = golden("nf_resnet_tiny")
    start = TrainingState.start(g.plan, g.params)
    plan = replace(g.plan, recipe=None)
    with pytest.raises(nfspec.InputError, match=r"nf-resnet-tiny has no \[recipe\].*extend one"):
        train_step(plan, start, g["x"], wanted(g), 0.1)
    with pytest.raises(nfspec.InputError, match=r"has no \[recipe\]"):
        TrainingState.start(plan, g.params)


def test_parameters_of_another_network_are_refused():
    g = golden("nf_resnet_tiny")
    params = {**g.params, "head.fc.bias": np.zeros(3), "other": np.zeros(1)}
    del params["head.fc.kernel"]
    with pytest.raises(nfspec.WeightError) as error:
        TrainingState.start(g.plan, params)
    assert str(error.value).split("\n") == [
        "3 tensors do not fit nf-resnet-tiny:",
        "  head.fc.kernel: missing, expected shape (128, 10)",
        "  head.fc.bias: shape (3,), expected (10,)",
        "  other: not in this network, found shape (1,)",
    ]


def test_rules_of_clipping_may_be_given():
    g = golden("nfnet_tiny_odd")
    plan, other = g.training_plan, changed(g.training_plan, agc={"unit": "tensor"})
    start = TrainingState.start(plan, g.params)
    own, given, wished = (
        train_step(p, start, g["x"], wanted(g), 0.1, rules=rules)[0].params
        for p, rules in ((plan, None), (plan, clip_rules(other)), (other, None))
    )
    for name in plan.parameters:
        np.testing.assert_array_equal(given[name], wished[name])
    assert any((given[name] != own[name]).any() for name in plan.parameters)


def test_a_step_leaves_its_state_as_it_was():
    g = golden("nf_resnet_tiny")
    start = TrainingState.start(g.training_plan, g.params)
    train_step(g.training_plan, start, g["x"], wanted(g), 0.1)
    again = TrainingState.start(g.training_plan, g.params)
    assert all(np.array_equal(start.params[n], again.params[n]) for n in g.params)
    assert start.step == 0 and not any(buffer.any() for buffer in start.momentum.values())
