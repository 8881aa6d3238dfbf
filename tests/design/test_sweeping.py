"""Sweeps: the plan, its runs, their outcomes, and the sentence."""

import numpy as np
import pytest
from pages import blocks

from nfspec.design import sweeping
from nfspec.design.sweeping import Outcome, Row, Run
from nfspec.errors import InputError, SpecError
from nfspec.language.loader import load
from nfspec.language.overrides import overriding, parsed

PLAN = """
specs = ["nfnet-nano", "timm/test_nfnet"]
data = "digits"
seeds = [0, 3]
[set]
"stages.alpha" = [0.1, 0.2]
"agc.enabled" = [true]
[train]
epochs = 2
class-weights = "balanced"
"""


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    return sweeping.read_plan(tmp_path / "plan.toml")


def test_every_candidate_of_a_seed_comes_before_the_next_seed(plan):
    runs = sweeping.runs_of(plan)
    assert len(runs) == 8 and [run.seed for run in runs] == [0] * 4 + [3] * 4
    assert runs[0].label == "nfnet-nano stages.alpha=0.1 agc.enabled=true"
    assert len({run.folder for run in runs}) == 8


def test_the_folder_of_a_run_is_that_of_any_plan(plan, tmp_path):
    (tmp_path / "more.toml").write_text(PLAN.replace("[0.1, 0.2]", "[0.4, 0.2]"))
    more = sweeping.runs_of(sweeping.read_plan(tmp_path / "more.toml"))
    shared = {run.folder for run in sweeping.runs_of(plan)} & {run.folder for run in more}
    assert len(shared) == 4


def test_a_value_may_be_an_array_with_one_for_each_stage(tmp_path):
    """Candidates have it in their names, from which nfspec train reads it."""
    text = PLAN.replace('"stages.alpha" = [0.1, 0.2]', '"ws.eps_rule" = ["max", ["none", "max"]]')
    text = text.replace('"agc.enabled" = [true]', '"stages.depth" = [[1, 1]]\n'
                        '"stages.width" = [[64, 64]]\n"stages.stride" = [2]')  # fmt: skip
    (tmp_path / "plan.toml").write_text(text.replace(', "timm/test_nfnet"', ""))
    run = sweeping.runs_of(sweeping.read_plan(tmp_path / "plan.toml"))[1]
    assert run.changes[0] == 'ws.eps_rule=["none", "max"]'
    assert load(run.spec, overriding(parsed(run.changes))).ws.eps_rule == ("none", "max")


def test_the_command_of_a_run(plan, tmp_path):
    run = Run("nfnet-nano", ("stages.alpha=0.1",), 3)
    command = sweeping.command_of(plan, run, tmp_path / "a")
    assert command[0] == "train" and command[-3:] == ["--", "nfnet-nano", "digits"]
    expected = {"--epochs=2", "--class-weights=balanced", "--seed=3", "--set=stages.alpha=0.1"}
    assert expected | {f"--out={tmp_path / 'a'}"} == {*command[1:-3]}


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('data = "digits"', "", "data: Field required"),
        ("seeds = [0, 3]", "seeds = [0, 0]", "specs or seeds is there twice"),
        ("seeds = [0, 3]", "seeds = [-1]", "seeds"),
        ("seeds = [0, 3]", "minutes = 0", "minutes"),
        ("seeds = [0, 3]", 'sede = "x"', "sede: expected no such field"),
        ("epochs = 2", "out = 'x'", "train.out: expected some of"),
        ('"stages.alpha" = [0.1, 0.2]', '"stages.alpha" = 0.1', "stages.alpha"),
        ('"stages.alpha" = [0.1, 0.2]', '"stages" = [0.1]', "stages"),
        ("[0.1, 0.2]", "[[0.1, 2000-01-01]]", r"stages\.alpha\"\[0\]: expected text, a number"),
        ("[0.1, 0.2]", "[nan]", r"stages\.alpha\"\[0\]: expected a finite number; found nan"),
        ("epochs = 2", "epochs = [2]", r"train\.epochs: expected text, a number, true or false;"),
        ("seeds = [0, 3]", "seeds = [", "not TOML"),
        ("[0.1, 0.2]", str(list(range(6000))), "runs; expected at most"),
    ],
)
def test_a_plan_that_is_none(old, new, message, tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.replace(old, new))
    with pytest.raises((InputError, SpecError), match=message):
        sweeping.runs_of(sweeping.read_plan(path))


def test_a_plan_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(InputError, match="cannot be read"):
            sweeping.read_plan(path)


def test_every_run_is_in_one_part_and_parts_are_alike(plan):
    runs = sweeping.runs_of(plan)
    for count in (1, 2, 3, 8, 11):
        parts = [sweeping.read_part(f"{n}/{count}").of(runs) for n in range(1, count + 1)]
        assert sorted(run.folder for part in parts for run in part) == sorted(
            run.folder for run in runs
        )
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_outcomes_are_kept_and_a_damaged_file_is_named(tmp_path):
    run = Run("a", (), 0)
    sweeping.State(tmp_path).add(run, Outcome(0.5, 360))
    again = sweeping.State(tmp_path)
    again.add(Run("b", (), 1), Outcome(None, reason="step 3: not finite"))
    assert sweeping.State(tmp_path).outcomes == again.outcomes
    assert again.outcomes[run.folder] == Outcome(0.5, 360)
    for text in ("{", "[]", '{"a": 1}', '{"a": {}}'):
        (tmp_path / sweeping.STATE).write_text(text)
        with pytest.raises(InputError, match=r"sweep\.json: damaged"):
            sweeping.State(tmp_path)


def test_rows_are_sorted_and_have_students_interval():
    runs = [Run(spec, (), seed) for seed in range(3) for spec in "abc"]
    values = {"a": (0.5, 0.6, 0.7), "b": (0.8, 0.8, 0.8)}
    outcomes = {
        run.folder: Outcome(values[run.spec][run.seed]) for run in runs if run.spec in values
    }
    outcomes[Run("c", (), 0).folder] = Outcome(None, reason="not finite")
    rows = sweeping.rows_of(runs, outcomes)
    assert [row.label for row in rows] == ["b", "a", "c"]
    # t of 2 degrees of freedom at 0.975 is 4.3027, the standard deviation 0.1.
    assert rows[1].half == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)
    assert rows[0].half == 0.0 and rows[2].failed == {0: "not finite"}


def test_the_sentence_claims_no_more_than_the_seeds_allow():
    def row(label, *values):
        return Row(label, dict(enumerate(values)), {})

    assert sweeping.verdict([Row("a", {}, {0: "x"})]) == "No run came to its end."
    assert "one candidate" in sweeping.verdict([row("a", 0.5, 0.6)])
    assert "nothing about chance" in sweeping.verdict([row("a", 0.9), row("b", 0.1)])
    clear = [row("a", 0.90, 0.91, 0.92), row("b", 0.50, 0.51, 0.53)]
    assert sweeping.verdict(clear).endswith("beyond chance for the other.")
    near = [row("a", 0.9, 0.8, 0.7), row("b", 0.7, 0.8, 0.89)]
    assert "do not tell it from b" in sweeping.verdict(near)
    both = sweeping.verdict([clear[0], row("c", 0.92, 0.90, 0.90), clear[1]])
    assert "beyond chance for 1 of the other 2" in both and "from c" in both


def test_equal_candidates_are_seldom_told_apart():
    """About 5 % at most of 300 sweeps of five equal candidates claim a difference; 8 % is 2.4
    standard deviations more."""
    rng, told = np.random.default_rng(0), 0
    for _ in range(300):
        values = rng.normal(0.8, 0.02, (5, 4))
        rows = [Row(str(n), dict(enumerate(v)), {}) for n, v in enumerate(values)]
        rows.sort(key=lambda row: -row.mean)
        told += "beyond chance" in sweeping.verdict(rows)
    assert told <= 0.08 * 300


def test_a_picture(tmp_path):
    rows = [Row("a", {0: 0.5, 1: 0.6}, {}), Row("b", {0: 0.4}, {}), Row("c", {}, {0: "x"})]
    sweeping.plot(rows, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_plan_of_the_page(tmp_path):
    (text,) = [block for block in blocks("docs/variants.md", "toml") if "specs" in block]
    (tmp_path / "plan.toml").write_text(text)
    assert len(sweeping.runs_of(sweeping.read_plan(tmp_path / "plan.toml"))) == 24
