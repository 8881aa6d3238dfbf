"""The processes that nfspec starts: what lies in the present folder is none of their modules."""

import ast
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import nfspec
from nfspec import console as text
from nfspec.cost.memory import USABLE, training_bytes
from nfspec.training import processes as launching

from served import ENVIRONMENT

ROOT = Path(__file__).parents[2]
PLANTED = ("tomllib", "typing", "typer", "pydantic", "numpy", "keras", "torch", "jax", "grain")
PLANTED += ("subprocess", "multiprocessing", "socket", "json", "random", "PIL", "nfspec", "psutil")


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A present folder with modules in it; returns those that ran."""
    monkeypatch.chdir(tmp_path)
    for name in PLANTED:
        line = f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} ')"
        Path(f"{name}.py").write_text(f"{line}\nraise SystemExit(9)\n")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    return lambda: (tmp_path / "ran").read_text() if (tmp_path / "ran").exists() else ""


def test_the_processes_of_several_devices_run_nothing_of_the_present_folder(planted, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nfspec", "check", "nfnet-f0"])
    assert launching.start_processes(2) == 0
    assert planted() == ""


@pytest.mark.parametrize(
    "command", [["-m", "nfspec"], [str(Path(sys.executable).with_name("nfspec"))]]
)
def test_nor_does_the_command_itself(planted, command):
    start = [sys.executable, *command] if command[0] == "-m" else command
    if command[0] == "-m":  # -m takes nfspec itself from there, as Python says that it does
        Path("nfspec.py").unlink()
    done = subprocess.run([*start, "check", "nfnet-f0"], capture_output=True, env=ENVIRONMENT)
    assert (done.returncode, done.stderr, planted()) == (0, b"", "")


def launchers():
    """Every command in nfspec that begins with this Python: file, line and what follows it."""
    for folder in ("nfspec", "backends", "conformance", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text()
            if "sys.executable" not in text:
                continue
            for node in ast.walk(ast.parse(text)):
                parts = getattr(node, "elts", [])
                if parts and ast.unparse(parts[0]) == "sys.executable":
                    place = f"{path.relative_to(ROOT)}:{node.lineno}"
                    yield pytest.param(ast.unparse(parts[1]), id=place)


@pytest.mark.parametrize("option", [*launchers()])
def test_every_process_is_started_without_the_present_folder(option):
    assert option in ("'-P'", "'-I'")


def test_there_are_such_processes():
    files = {each.id.partition(":")[0] for each in launchers()}
    assert files >= {
        "nfspec/training/processes.py",
        "conformance/workers/pipes.py",
    }


# Signals.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_remembered_and_a_second_one_ends_at_once(number, capsys):
    before = signal.getsignal(number)
    with launching.asked_to_stop() as asked:
        assert not asked.to_stop()
        asked.training = True
        os.kill(os.getpid(), number)
        assert asked.to_stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
    expected = "stopping after this step, with a checkpoint; again: at once\n"
    assert capsys.readouterr().err == expected


def test_what_was_started_to_outlive_its_terminal_does(monkeypatch):
    """nohup has SIGHUP ignored, and so it stays."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with launching.asked_to_stop() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not asked.to_stop()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_is_gone_does_not_stop_the_stopping(monkeypatch):
    def gone(*arguments, **how):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(text.typer, "echo", gone)
    with launching.asked_to_stop() as asked:
        os.kill(os.getpid(), signal.SIGHUP)
        assert asked.to_stop()


# What launchers say.


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"task": 5}', '{"task": {"index": "a"}}'])
def test_a_configuration_of_tensorflows_that_says_nothing(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(nfspec.InputError, match=r"^TF_CONFIG: expected JSON that has"):
        launching.is_first("tensorflow")
    assert launching.is_first("torch")


@pytest.mark.parametrize("name", ["WORLD_SIZE", "RANK", "LOCAL_RANK"])
def test_variables_of_torchruns_that_are_no_numbers(monkeypatch, name):
    monkeypatch.setenv(name, "many")
    with pytest.raises(nfspec.InputError, match=f'^{name}: expected a number; found "many"'):
        launching.devices_of("torch", 1)
    assert launching.devices_of("jax", 3) == 3


def test_which_process_is_the_first(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "1")
    assert launching.is_first("torch")  # of some other launcher: there is one process alone
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not launching.is_first("torch")
    assert launching.devices_of("torch", 1) == 2
    monkeypatch.setenv("TF_CONFIG", '{"task": {"type": "worker", "index": 1}}')
    assert not launching.is_first("tensorflow")


# Memory.


@pytest.fixture
def run():
    """Eight images of 32 px, in float32, with a moving average."""
    spec = nfspec.load("nfnet-nano", {"input.train": 32, "recipe.precision": "float32"})
    return nfspec.recipe(nfspec.resolve(spec), steps=10, batch=8)


def needed(run, images, parts=1, accumulate=False):
    """The memory of a device that just suffices."""
    how = (images, 32, "float32", accumulate)
    return int(training_bytes(run.plan, *how, parts=parts) / USABLE) + 1


def refusal(run, backend="jax", devices=4, shard=False, *, memory):
    with pytest.raises(nfspec.InputError) as raised:
        launching.require_memory(run, backend, devices, shard, memory)
    return str(raised.value)


def test_memory_of_kernels_in_parts_is_that_of_the_parts(run):
    """What does not fit whole fits in parts, and a byte less does not."""
    memory = needed(run, 2, parts=4)
    assert memory < needed(run, 1)
    launching.require_memory(run, "jax", 4, True, memory)
    said = refusal(run, shard=True, memory=int(0.99 * memory))
    assert said.startswith("2 images of 32 px at a time need about ")
    assert "--shard" not in said
    launching.require_memory(run, "jax", 1, True, needed(run, 8))
    assert "--shard" not in refusal(run, devices=1, memory=needed(run, 8) - 1000)


@pytest.mark.parametrize(
    ("backend", "named"), [("jax", True), ("torch", True), ("tensorflow", False)]
)
def test_parts_are_advised_where_they_suffice_and_are_to_be_had(run, backend, named):
    said = refusal(run, backend, memory=needed(run, 2, parts=4))
    advice = "--shard, a smaller --size, or a device with more"
    assert said.endswith(f"free; take {advice if named else advice.removeprefix('--shard, ')}")


def test_parts_are_advised_beside_micro_batches(run):
    sixteen = nfspec.recipe(run.plan, steps=10, batch=16)
    memory = needed(run, 1, accumulate=True)
    assert needed(run, 8, parts=2) < memory < needed(run, 8)
    assert refusal(sixteen, devices=2, memory=memory).endswith(
        "free; take --shard, --accumulation 8, or a smaller --batch"
    )
    launching.require_memory(sixteen, "jax", 2, True, memory)


def test_what_micro_batches_add_up_takes_memory(run):
    """Two micro-batches of 64 images: 64 fit alone, and not beside what is added up."""
    halves = nfspec.recipe(run.plan, steps=10, batch=128, accumulation=2)
    memory = needed(run, 64)
    assert needed(run, 32, accumulate=True) < memory < needed(run, 64, accumulate=True)
    assert "take --accumulation 4, or" in refusal(halves, devices=1, memory=memory)
    launching.require_memory(halves, "jax", 1, False, needed(run, 64, accumulate=True))


def test_parts_and_micro_batches_are_advised_where_neither_suffices(run):
    memory = needed(run, 1, parts=2, accumulate=True)
    assert memory < min(needed(run, 4, parts=2), needed(run, 1))
    assert refusal(run, devices=2, memory=memory).endswith(
        "free; take --shard with --accumulation 4, a smaller --size, or a device with more"
    )


def test_sam_is_not_advised_to_take_parts_on_torch(run):
    plan = run.plan
    recipe = plan.recipe.model_copy(update={"sam_rho": 0.05})
    sharp = nfspec.recipe(replace(plan, recipe=recipe), steps=10, batch=8)
    memory = needed(sharp, 2, parts=4)
    assert "--shard" in refusal(sharp, "jax", memory=memory)
    assert "--shard" not in refusal(sharp, "torch", memory=memory)
