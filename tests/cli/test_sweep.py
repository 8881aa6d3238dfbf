"""`nfspec sweep`: runs are trained once, go on after an interruption, and are put in a table."""

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nfspec.cli import app
from nfspec.cli import sweep as command
from nfspec.outputs import alone

PLAN = """
specs = ["nfnet-nano"]
data = "digits"
seeds = [0, 1]
[set]
"stages.alpha" = [0.1, 0.2]
"""
# A stand-in for `nfspec train`: it notes that it was called, and does what a file says.
TRAIN = """
import json, sys
from pathlib import Path
out = Path(next(a for a in sys.argv if a.startswith("--out=")).removeprefix("--out="))
seed = next(a for a in sys.argv if a.startswith("--seed=")).removeprefix("--seed=")
with open("calls", "a") as file:
    file.write(f"{out.name} {'--resume' in sys.argv}\\n")
out.mkdir(parents=True, exist_ok=True)
(out / "run.json").write_text("{}")
ends = json.loads(Path("ends.json").read_text())
kind = next((k for name, k in ends.items() if name in out.name), "good")
if kind == "bad":
    print("step 3: the loss is not finite", file=sys.stderr)
    sys.exit(2)
if kind == "stop":
    sys.exit(130)
top1 = (0.9 if "alpha=0.2" in out.name else 0.5) + 0.01 * int(seed)
entry = {"step": 1, "epoch": 1.0, "top1": top1, "top5": 1.0}
entry |= {"held_out_loss": 0.1, "held_out_images": 99}
(out / "log.jsonl").write_text(json.dumps(entry) + "\\n")
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("plan.toml").write_text(PLAN)
    Path("ends.json").write_text("{}")
    Path("train.py").write_text(TRAIN)
    popen = subprocess.Popen

    def stand_in(arguments, **how):
        assert arguments[:5] == [sys.executable, "-P", "-m", "nfspec", "train"]
        return popen([sys.executable, "train.py", *arguments[5:]], **how)

    monkeypatch.setattr(command.subprocess, "Popen", stand_in)


def run(*arguments):
    return CliRunner().invoke(app, ["sweep", "plan.toml", *arguments])


def calls():
    return Path("calls").read_text().splitlines()


def test_each_run_is_trained_once(place):
    done = run("--processes", "2")
    assert done.exit_code == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "nfnet-nano stages.alpha=0.2      2    90.50" in done.stdout
    assert "beyond chance" in done.stdout and len(calls()) == 4
    again = run()
    assert again.stdout == done.stdout and len(calls()) == 4
    assert Path("plan/sweep.png").is_file()
    said = json.loads(run("--json").stdout)
    assert said["candidates"][0]["top1"] == {"0": 0.9, "1": 0.91} and said["left"] == 0


def test_seeds_that_are_added_are_trained_alone(place):
    run()
    Path("plan.toml").write_text(PLAN.replace("[0, 1]", "[0, 1, 2]"))
    assert run().exit_code == 0
    assert len(calls()) == 6 and all("seed2" in call for call in calls()[4:])


def test_a_run_that_was_stopped_goes_on(place):
    Path("ends.json").write_text('{"alpha=0.2": "stop"}')
    done = run()
    assert (
        done.exit_code == 130 and "runs that are left: 2; the same command goes on" in done.stdout
    )
    Path("ends.json").write_text("{}")
    done = run()
    assert done.exit_code == 0
    resumed = calls()[4:]
    assert len(resumed) == 2 and all(call.endswith("True") for call in resumed)


def test_a_run_that_diverges_has_its_reason(place):
    Path("ends.json").write_text('{"alpha=0.1": "bad"}')
    done = run()
    assert done.exit_code == 0
    assert "alpha=0.1, seed 1: step 3: the loss is not finite" in done.stdout
    assert len(calls()) == 4 and run().exit_code == 0 and len(calls()) == 4


def test_no_run_is_begun_after_its_minutes(place):
    Path("plan.toml").write_text(PLAN.replace("seeds", "minutes = 1e-9\nseeds"))
    done = run()
    assert done.exit_code == 130 and "No run came to its end." in done.stdout
    assert not Path("calls").exists()


def test_a_folder_of_others_is_left_alone(place):
    Path("mine").mkdir()
    Path("mine/diary.txt").write_text("x")
    done = run("--out", "mine")
    assert done.exit_code == 2 and "no sweep.json" in done.stderr
    assert [each.name for each in Path("mine").iterdir()] == ["diary.txt"]


def part(text):
    done = run("--part", text)
    assert done.exit_code == 0, done.stderr


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX's, which the parts do not use
def test_parts_at_once_train_every_run_once(place):
    """Three machines on one disk, as processes."""
    fork = multiprocessing.get_context("fork")
    machines = [fork.Process(target=part, args=(f"{number}/3",)) for number in (1, 2, 3)]
    for machine in machines:
        machine.start()
    for machine in machines:
        machine.join()
    assert [machine.exitcode for machine in machines] == [0, 0, 0]
    assert len(calls()) == len({*calls()}) == 4
    table = run()
    assert len(calls()) == 4 and table.exit_code == 0
    assert "nfnet-nano stages.alpha=0.2      2    90.50" in table.stdout
    assert "nfnet-nano stages.alpha=0.1      2    50.50" in table.stdout
    kept = [json.loads(path.read_text()) for path in Path("plan/parts").glob("*/sweep.json")]
    assert sorted(map(len, kept)) == [1, 1, 2] and Path("plan/sweep.json").read_text() == "{}\n"


def test_what_a_part_has_left_is_trained_without_parts(place):
    first = run("--part", "1/2")
    assert first.exit_code == 0 and "runs of other parts that have not ended: 2" in first.stdout
    assert "wrote plan/parts/1-of-2/sweep.json, plan/sweep.png" in first.stdout
    Path("ends.json").write_text('{"seed1": "stop"}')
    second = run("--part", "2/2")
    assert second.exit_code == 130 and "runs that are left: 1;" in second.stdout
    Path("ends.json").write_text("{}")
    assert json.loads(run("--json").stdout)["left"] == 0
    assert len(calls()) == 5 and calls()[-1].endswith("True")  # the last one went on
    assert run("--part", "2/2").exit_code == run("--part", "3/8").exit_code == 0
    assert len(calls()) == 5


def test_a_run_that_another_process_trains_is_left_to_it(place):
    run("--part", "1/4")
    (busy,) = [each for each in Path("plan").iterdir() if "alpha" in each.name]
    (Path("plan/parts/1-of-4") / "sweep.json").write_text("{}")  # as if it had not ended
    with alone(busy):
        other = run()
    assert other.exit_code == 130 and "runs that are left: 1;" in other.stdout and len(calls()) == 4


@pytest.mark.parametrize("text", ["0/8", "9/8", "3", "1/0", "-1/2", "a/b", "1/99999", "1/2/3"])
def test_a_part_that_is_none(place, text):
    done = run("--part", text)
    assert done.exit_code == 2 and "--part: expected a part and the number" in done.stderr
    assert not Path("plan").exists()
