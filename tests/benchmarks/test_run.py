"""Contestants take turns; what goes wrong with one is said by name."""

import json
import signal
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from nfspec.benchmarks import report
from nfspec.benchmarks.decoding import alone
from nfspec.benchmarks.requests import Answer, Build, Prepare, Repeat
from nfspec.benchmarks.run import Interrupted, Process, Result, build, race, ratio
from nfspec.benchmarks.worker import MAKERS, forget_peak, memory
from nfspec.benchmarks.works import CONTESTANTS, READ, WORKS, Contestant, Setup, contestants
from nfspec.cli import app

import standin

SETUP = Setup("nfnet-f0", 4, 192)
MACHINE = {"processor": "p", "cores": 2, "sgemm_gflops": 200.0, "copy_gbs": 20.0, "torch": "2"}


@pytest.fixture
def machine(monkeypatch):
    """A machine whose speed is known, so that no command measures this one."""
    monkeypatch.setattr("nfspec.cost.machine.sgemm", lambda: MACHINE["sgemm_gflops"])
    monkeypatch.setattr("nfspec.cost.machine.bandwidth", lambda: MACHINE["copy_gbs"])


TURNS: list[str] = []


class Fake:
    """A process whose n-th run takes as many seconds as it says."""

    def __init__(self, backend):
        self.backend, self.runs = backend, 0

    def ask(self, request):
        if isinstance(request, Prepare):
            if self.backend == "broken":
                return Answer(error="ImportError: no such thing")
            return Answer(first=9.0)
        assert request == Repeat(2)
        if self.backend == "interrupted" and self.runs:
            raise KeyboardInterrupt
        self.runs += 1
        TURNS.append(self.backend)
        seconds = float(self.backend.removeprefix("s")) if "s" in self.backend else 1.0
        return Answer(seconds=[100.0, seconds])

    def end(self):
        TURNS.append(f"end {self.backend}")


def two(backends):
    peer = Contestant("peer", backends[0], "x:y")
    return [peer, Contestant("ours", backends[1], "x:y", "peer")]


def test_they_take_turns_and_ratios_are_of_medians():
    TURNS.clear()
    results = race("forward", two(["s4", "s2"]), SETUP, 3, lambda line: None, Fake)
    assert TURNS[:6] == ["s4", "s2", "s2", "s4", "s4", "s2"]
    assert TURNS[6:] == ["end s4", "end s2"]
    assert [r.seconds for r in results] == [[4.0] * 3, [2.0] * 3]
    assert ratio(results[1], results) == 0.5 and ratio(results[0], results) is None


def test_what_fails_is_named_and_the_others_are_measured():
    results = race("forward", two(["broken", "s2"]), SETUP, 2, lambda line: None, Fake)
    assert results[0].error == "ImportError: no such thing"
    assert results[1].seconds == [2.0, 2.0] and ratio(results[1], results) is None
    assert report.row(results[0], results)[:2] == ["peer", "ImportError: no such thing"]


def test_an_interrupt_keeps_what_was_measured():
    TURNS.clear()
    with pytest.raises(Interrupted) as cut:
        race("forward", two(["interrupted", "s1"]), SETUP, 5, lambda line: None, Fake)
    # Round 2 starts with the second, and the first does not end it.
    assert [r.seconds for r in cut.value.results] == [[1.0], [1.0, 1.0]]
    assert TURNS[-2:] == ["end interrupted", "end s1"]


def test_an_interrupted_build_keeps_those_before_it():
    class Building(Fake):
        def ask(self, request):
            assert isinstance(request, Build)
            if self.backend == "jax":
                raise KeyboardInterrupt
            return Answer(seconds=[1.0], memory=1.5)

    with pytest.raises(Interrupted) as cut:
        build(Setup("nfnet-f0", 0, 0), ["torch", "jax", "tensorflow"], lambda line: None, Building)
    assert [(r.name, r.seconds, r.error) for r in cut.value.results] == [
        ("torch", [1.0], None),
        ("jax", [], "interrupted"),
    ]


def test_an_interrupt_ends_the_command_and_prints_what_there_is(monkeypatch, machine):
    asked = []

    def interrupted(work, contestants, setup, rounds, say):
        asked.append(work)
        raise Interrupted([Result(work, "torch folded", None, setup, 1.0, [0.25])])

    monkeypatch.setattr("nfspec.benchmarks.run.race", interrupted)
    done = CliRunner().invoke(app, ["bench", "timm/test_nfnet", "--backends", "torch"])
    assert done.exit_code == 130 and asked == ["forward"]
    assert "torch folded  250 ms" in done.stdout
    assert done.stderr.splitlines()[-1] == "interrupted; what was measured follows"


def test_a_peak_of_memory_is_of_what_was_since():
    block = np.ones(2**24)
    del block
    forget_peak()
    assert memory("VmHWM") - memory("VmRSS") < 2**26
    block = np.ones(2**24)
    del block
    assert memory("VmHWM") - memory("VmRSS") > 2**26


def test_ctrl_c_is_not_the_workers():
    process = Process("torch")
    try:
        process.ask(Repeat(0))
        process.process.send_signal(signal.SIGINT)
        assert process.ask(Repeat(0)) == Answer()
    finally:
        process.end()


def test_a_process_that_dies_is_an_error():
    process = Process("torch")
    process.process.kill()
    process.process.wait()
    assert process.ask(Repeat(1)) == Answer(error="its process ended with status -9")
    process.end()


def test_an_error_is_one_line_and_the_process_goes_on():
    process = Process("torch")
    try:
        assert process.ask(Prepare("nobody:forward", SETUP, {})).error == "KeyError: 'nobody'"
        assert process.ask(Repeat(1)).error == "AssertionError: no work is ready"
    finally:
        process.end()


def test_what_lies_in_the_present_folder_is_no_framework(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise SystemExit('not PyTorch')")
    monkeypatch.chdir(tmp_path)
    process = Process("torch")
    try:
        answer = process.ask(Prepare("ours:forward", Setup("timm/test_nfnet", 1, 32), {}))
        assert answer.error is None and answer.first > 0.0
    finally:
        process.end()


def test_every_work_has_contestants_and_every_contestant_a_maker():
    assert list(CONTESTANTS) == list(WORKS)
    made = {
        c.make for work in WORKS for c in contestants(work, ("jax", "torch"), ("timm", "optax"))
    }
    peaks = {"peaks"}  # a GPU's, which `nfspec.benchmarks.gpu` measures
    assert {make.partition(":")[0] for make in made} | peaks == set(MAKERS)


@pytest.mark.parametrize("work", WORKS)
def test_every_peer_takes_part(work):
    several = contestants(work, ("jax", "torch", "tensorflow"), ("timm", "optax"))
    names = [c.name for c in several]
    assert len(names) == len(set(names)) and several
    assert all(c.peer is None or c.peer in names for c in several)
    alone = contestants(work, ("torch",), ())
    assert all(c.peer is None or c.peer in [other.name for other in alone] for c in alone)
    assert all(c.backend == "torch" for c in alone)
    # Those have nfspec's own network, onnxruntime, or one thread, beside them.
    if not work.startswith("source") and work not in ("runtimes", "decode"):
        assert all(c.peer is None for c in alone)


def test_images_a_second_are_those_of_all_batches_by_the_cores_that_were_used():
    given = Setup("nfnet-f0", 32, 192, cores=2)
    results = [
        Result("decode", "one thread", None, given, 1.0, [1.0, 1.0]),
        Result("decode", "threads", "one thread", given, 1.0, [0.5, 0.5]),
        Result("forward", "torch", None, given, 1.0, [0.5]),
    ]
    assert report.rates(results, MACHINE)[1:] == [
        ["one thread", "256", "256"],
        ["threads", "512", "256"],
    ]
    rates = [each["images_per_second"] for each in report.data(results, MACHINE)["results"]]
    assert rates == [256, 512, 64]


def test_each_run_of_reading_goes_on_in_the_training():
    """By a variant's recipe, or by nfspec's own, at the size that was asked for."""
    read = []
    for variant in ("nfnet-nano", "timm/test_nfnet"):
        work = alone(Setup(variant, 2, 24), read.append)
        work()
        work()
    assert [example.image.shape for example in read] == [(24, 24, 3)] * 4 * 2 * READ
    assert len({example.image.tobytes() for example in read}) > 2 * 2 * READ


def test_the_report_is_80_columns_and_json():
    results = [
        Result("forward", "timm", None, SETUP, 1.0, [0.4, 0.5, 0.45]),
        Result("forward", "tensorflow folded", "timm", SETUP, 2.5, [0.3, 0.31, 0.29]),
        Result("step", "jax plain, optax", None, SETUP, 12.5, [2.3, 2.31, 2.29]),
        Result("step", "jax", "jax plain, optax", SETUP, 12.5, [1.3, 1.31, 1.29]),
        Result("build", "torch", None, Setup("nfnet-f0", 0, 0), None, [1.2], memory=1.1),
    ]
    data = json.loads(json.dumps(report.data(results, MACHINE)))
    assert data["results"][1]["ratio"] == pytest.approx(0.3 / 0.45)
    assert 0.5 < data["results"][1]["share_of_sgemm"] < 1.0
    from nfspec.console import table

    for _, members in report.sections(results):
        rows = [list(report.HEADINGS), *(report.row(r, results) for r in members)]
        assert max(map(len, table(rows, report.ALIGN))) <= 80
    assert "| tensorflow folded | 300 ms | 290 to 310 ms | 0.67 | timm |" in report.markdown(
        results, MACHINE
    )


def test_without_matplotlib_the_tables_are_there(tmp_path, monkeypatch, machine):
    setup = Setup("timm/test_nfnet", 0, 0)
    built = [Result("build", "torch", None, setup, None, [1.2], memory=1.1)]
    monkeypatch.setattr("nfspec.benchmarks.run.build", lambda setup, backends, say: built)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    arguments = ["bench", "timm/test_nfnet", "--backends", "torch", "--work", "build"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)])
    assert result.exit_code == 0 and "memory grew by" in result.stdout
    assert "no bench.png: matplotlib not installed" in result.stderr


@pytest.mark.slow  # half a minute
def test_a_small_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", standin.FOLDER)
    arguments = ["bench", "timm/test_nfnet", "--backends", "torch", "--work", "forward,build"]
    options = ["--batch", "1", "--size", "32", "--rounds", "1", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, [*arguments, *options])
    assert result.exit_code == 0, result.output
    assert "torch folded" in result.output and "memory grew by" in result.output
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert not [r for r in results if r["error"]]
    assert (tmp_path / "bench.png").stat().st_size > 1000 and (tmp_path / "BENCH.md").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--work", "foward"], "--work: expected some of"),
        (["--work", ","], "--work: expected some of"),
        (["--against", "keras"], "--against: expected some of timm, optax"),
        (["--backends", "mxnet"], "--backends: expected some of"),
    ],
)
def test_wrong_options_are_refused(arguments, said):
    result = CliRunner().invoke(app, ["bench", "nfnet-f0", *arguments])
    assert result.exit_code == 2 and said in result.output
