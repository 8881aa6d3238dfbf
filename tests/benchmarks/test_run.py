"""Contestants take turns; what goes wrong with one is said by name."""

import json

import pytest
from typer.testing import CliRunner

from nfspec.benchmarks import report
from nfspec.benchmarks.run import Process, Result, race, ratio
from nfspec.benchmarks.works import WORKS, Contestant, Setup, contestants
from nfspec.cli import app

SETUP = Setup("nfnet-f0", 4, 192)
MACHINE = {"processor": "p", "cores": 2, "sgemm_gflops": 200.0, "copy_gbs": 20.0, "torch": "2"}


TURNS: list[str] = []


class Fake:
    """A process whose n-th run takes as many seconds as it says."""

    def __init__(self, backend):
        self.backend, self.runs = backend, 0

    def ask(self, **line):
        if "make" in line:
            if self.backend == "broken":
                return {"error": "ImportError: no such thing"}
            return {"first": 9.0}
        if self.backend == "interrupted" and self.runs:
            raise KeyboardInterrupt
        self.runs += 1
        TURNS.append(self.backend)
        return {
            "seconds": [
                100.0,
                float(self.backend.removeprefix("s")) if "s" in self.backend else 1.0,
            ]
        }

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
    results = race("forward", two(["s1", "interrupted"][::-1]), SETUP, 5, lambda line: None, _slow)
    assert results[1].seconds == [1.0] or results[0].seconds == [1.0]
    assert "end s1" in TURNS


def _slow(backend):
    return Fake(backend)


def test_a_process_that_dies_is_an_error():
    process = Process("torch")
    process.process.kill()
    process.process.wait()
    assert "its process ended" in process.ask(runs=1)["error"]
    process.end()


@pytest.mark.parametrize("work", WORKS)
def test_every_peer_takes_part(work):
    found = contestants(work, ("jax", "torch", "tensorflow"), ("timm", "optax"))
    names = [c.name for c in found]
    assert len(names) == len(set(names)) and found
    assert all(c.peer is None or c.peer in names for c in found)
    alone = contestants(work, ("torch",), ())
    assert all(c.peer is None and c.backend == "torch" for c in alone)


def test_the_report_is_80_columns_and_json():
    results = [
        Result("forward", "timm", None, SETUP, 1.0, [0.4, 0.5, 0.45]),
        Result("forward", "tensorflow folded", "timm", SETUP, 2.5, [0.3, 0.31, 0.29]),
        Result("build", "torch", None, Setup("nfnet-f0", 0, 0), None, [1.2], memory=1.1),
    ]
    data = json.loads(json.dumps(report.data(results, MACHINE)))
    assert data["results"][1]["ratio"] == pytest.approx(0.3 / 0.45)
    assert 0.5 < data["results"][1]["share_of_sgemm"] < 1.0
    from nfspec.cli.text import table

    for _, members in report.sections(results):
        rows = [list(report.HEADINGS), *(report.row(r, results) for r in members)]
        assert max(map(len, table(rows, report.ALIGN))) <= 80
    assert "| tensorflow folded | 300 ms | 290 to 310 ms | 0.67 | timm |" in report.markdown(
        results, MACHINE
    )


def test_a_small_run(tmp_path):
    arguments = ["bench", "timm/test_nfnet", "--backends", "torch", "--work", "forward,agc,build"]
    options = ["--batch", "1", "--size", "32", "--rounds", "1", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, [*arguments, *options])
    assert result.exit_code == 0, result.output
    assert "torch folded" in result.output and "memory grew by" in result.output
    found = json.loads((tmp_path / "results.json").read_text())["results"]
    assert not [r for r in found if r["error"]]
    assert (tmp_path / "bench.png").stat().st_size > 1000 and (tmp_path / "BENCH.md").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--work", "foward"], "--work: expected some of"),
        (["--against", "keras"], "--against: expected some of timm, optax"),
        (["--backends", "mxnet"], "--backends: expected some of"),
    ],
)
def test_wrong_options_are_refused(arguments, said):
    result = CliRunner().invoke(app, ["bench", "nfnet-f0", *arguments])
    assert result.exit_code == 2 and said in result.output
