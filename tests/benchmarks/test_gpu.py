"""A GPU is measured item by item, within a time, and goes on where it was stopped."""

import json
import math
import os
import subprocess
import sys
from dataclasses import asdict
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from nfspec.benchmarks import worker
from nfspec.benchmarks.gpu import __main__ as command
from nfspec.benchmarks.gpu import machine, proofs, report, running
from nfspec.benchmarks.gpu.items import CONTESTANTS, SCALES, Made, left_out
from nfspec.benchmarks.gpu.machine import Machine
from nfspec.benchmarks.gpu.running import Entry, Item, NoTimeLeft, run
from nfspec.benchmarks.gpu.sweeps import Sweep
from nfspec.benchmarks.profiling import by_kind
from nfspec.benchmarks.requests import Answer, Facts, Prepare, Profile, Repeat
from nfspec.benchmarks.works import Contestant, Setup
from nfspec.conformance.faults import FAULTS
from nfspec.errors import InputError

import standin

PACKAGES = (
    "keras",
    "timm",
    "optax",
    "jinja2",
    "ruff",
    "hypothesis",
    "packaging",
    "threadpoolctl",
)
SETUP = Setup("timm/test_nfnet", 1, 32, precision="bf16")


class Clock:
    """A clock that items set forward."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def taking(clock, seconds, begun, *, fails=False):
    """An item's work that takes so many seconds, and keeps one result."""

    def measure(so_far, until, keep):
        begun.append((len(so_far), until - clock.now))
        clock.now += seconds
        if clock.now > until:
            raise NoTimeLeft
        keep({"n": len(so_far)})
        if fails:
            raise ValueError("no such thing\nand more")

    return measure


def test_items_take_their_time_or_an_equal_part_and_the_rest_is_for_another_time(tmp_path):
    clock, begun, said = Clock(), [], []
    items = [
        Item("a", "first", 30.0, taking(clock, 10.0, begun)),
        Item("b", "second", 1.0, taking(clock, 50.0, begun)),
        Item("c", "third", 5.0, taking(clock, 25.0, begun)),
        Item("d", "fourth", 5.0, taking(clock, 1.0, begun)),
    ]
    entries = run(items, tmp_path, 90.0, said.append, clock=clock)
    # 30 of 90 s; a third of 80 s; half of the 30 s that are left; 5 s are too few to begin.
    assert begun == [(0, 30.0), (0, pytest.approx(80 / 3)), (0, 15.0)]
    assert [e.finished for e in entries] == [True, False, False, False]
    assert said[-1] == "no time is left for what follows"
    # Another run goes on with those that are not finished.
    begun.clear()
    entries = run(items, tmp_path, 1000.0, said.append, clock=clock)
    assert [until for _, until in begun] == pytest.approx([1000 / 3, 950 / 2, 925.0])
    assert all(e.finished for e in entries) and "first: there already" in said


def test_each_result_is_a_file_as_soon_as_it_is_there_whatever_comes_after(tmp_path):
    clock, seen = Clock(), []

    def cut(so_far, until, keep):
        for n in range(len(so_far), 3):
            keep({"n": n})
            if n == 1:
                raise KeyboardInterrupt

    item = Item("a", "first", 30.0, cut)
    with pytest.raises(KeyboardInterrupt):
        run([item], tmp_path, 90.0, seen.append, clock=clock)
    there = json.loads((tmp_path / "a.json").read_text())
    assert there["results"] == [{"n": 0}, {"n": 1}] and not there["finished"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    written = []
    (entry,) = run([item], tmp_path, 90.0, seen.append, written.append, clock)
    assert [r["n"] for r in entry.results] == [0, 1, 2] and entry.finished
    assert len(written) == 2  # for the result, and for the end


def test_an_error_is_the_items_result_and_the_others_go_on(tmp_path):
    clock, begun = Clock(), []
    items = [
        Item("a", "first", 30.0, taking(clock, 1.0, begun, fails=True)),
        Item("b", "second", 30.0, taking(clock, 1.0, begun)),
    ]
    first, second = run(items, tmp_path, 90.0, lambda line: None, clock=clock)
    assert first.results == [{"n": 0}, {"error": "ValueError: no such thing"}] and first.finished
    assert second.results == [{"n": 0}]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"item": "b"}', '{"results": 1}', "\x00", "["])
def test_a_file_of_another_is_refused_and_stays(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="is not what this command writes; delete it"):
        run([Item("a", "first", 1.0, lambda *_: None)], tmp_path, 90.0, lambda line: None)
    assert (tmp_path / "a.json").read_text() == text


class Process:
    """A contestant on a device with the memory for two images."""

    started: ClassVar[list[tuple[str, str]]] = []

    def __init__(self, backend, device):
        self.started.append((backend, device))
        self.batch = 0

    def ask(self, request, timeout):
        assert timeout > 0.0
        match request:
            case Prepare(make="slow"):
                raise TimeoutError
            case Prepare():
                self.batch = request.setup.batch
                full = self.batch > 2
                return (
                    Answer("CUDA out of memory", out_of_memory=True) if full else Answer(first=9.0)
                )
            case Profile():
                return Answer(kernels={"cudnn": (2.0, 3.0)})
            case Repeat():
                return Answer(seconds=[0.5 * self.batch] * request.runs, peak=2**30)
            case Facts():
                if self.started[-1][0] == "jax":
                    return Answer("BackendError: jax: sees no GPU")
                return Answer(facts={self.started[-1][0]: "1.0", "device": "A card"})

    def end(self):
        pass


def sweep(make="ours:step", **options):
    contestant = Contestant("torch", "torch", make, "timm")
    return Sweep(contestant, SETUP, (1, 2, 4, 8), "gpu", start=Process, **options)


def test_batches_are_doubled_until_no_memory_is_left():
    kept: list[dict] = []
    sweep().measure([], math.inf, kept.append)
    assert [r["batch"] for r in kept] == [1, 2, 4]
    assert [r.get("median") for r in kept] == [0.5, 1.0, None] and kept[-1]["out_of_memory"]
    assert [len(r.get("seconds", ())) for r in kept] == [4, 3, 0]
    again: list[dict] = []
    Process.started.clear()
    sweep().measure(kept, math.inf, again.append)
    assert again == [] and Process.started == []
    sweep().measure(kept[:1], math.inf, again.append)
    assert [r["batch"] for r in again] == [2, 4]


def test_without_an_answer_in_time_nothing_is_kept():
    for contestant in (sweep(), sweep("slow")):
        kept: list[dict] = []
        with pytest.raises(NoTimeLeft):
            contestant.measure(
                [], 0.0 if contestant.contestant.make != "slow" else 1e12, kept.append
            )
        assert kept == []


def test_a_profile_has_the_kernels_of_one_batch():
    kept: list[dict] = []
    sweep(profile=True).measure([], math.inf, kept.append)
    assert kept[0]["kernels"] == {"cudnn": (2.0, 3.0)} and "median" not in kept[0]


def made(tmp_path, backends=("jax", "torch"), packages=PACKAGES, scale="gpu"):
    return Made(SCALES[scale], scale, backends, packages, tmp_path)


def test_conformance_comes_first_and_every_work_is_there_at_each_size(tmp_path):
    names = [item.name for item in made(tmp_path).items()]
    assert names[:2] == ["conformance", "faults"] and len(set(names)) == len(names)
    assert {name.rsplit("-", 1)[0] for name in names if name.startswith("peak")} == {
        "peak", "peak-bf16", "peak-tf32",
    }  # fmt: skip
    for work in ("step", "forward"):
        for size in (192, 256):
            for precision in ("bf16", "tf32"):
                assert f"{work}-{size}-{precision}-timm-compiled" in names
    assert names.index("agc-torch") < names.index("step-256-bf16-timm")


def test_what_is_not_installed_is_left_out_and_named(tmp_path):
    alone = made(tmp_path, ("torch",), ("timm",))
    assert {item.name.split("-")[0] for item in alone.items()} == {
        "peak", "step", "forward", "agc", "optimizer", "kernels",
    }  # fmt: skip
    assert not [item for item in alone.items() if "jax" in item.name]
    lacking = left_out(alone)
    assert lacking["torch"] == ["keras"] and lacking["torch source compiled"] == ["jinja2", "ruff"]
    assert lacking["jax plain, optax"] == ["jax", "keras", "optax"]
    assert made(tmp_path, (), PACKAGES).items() == []


def test_every_contestant_has_a_maker_and_every_fault_a_name():
    for work in CONTESTANTS.values():
        names = [c.name for c in work()]
        assert all(c.peer is None or c.peer in names for c in work())
        assert {c.make.partition(":")[0] for c in work()} <= {*worker.MAKERS}
    assert set(proofs.FAULTS) <= {*FAULTS}


def test_frameworks_that_see_no_device_are_said_and_left_out(tmp_path, monkeypatch):
    there = {"torch", "jax"}
    monkeypatch.setattr(machine, "find_spec", lambda name: name in there or None)
    monkeypatch.setattr(machine, "_card", lambda: "A card, 580.1, 80 GiB")
    found = machine.look("gpu", Process)
    assert found.backends == {"torch": "A card"} and found.versions["torch"] == "1.0"
    assert "tensorflow is not installed" in found.absent
    assert "jax cannot be used: BackendError: jax: sees no GPU" in found.absent
    assert machine.remembered(found, tmp_path) == found  # written, and read
    assert machine.remembered(found, tmp_path) == found
    other = Machine("gpu", {}, {}, "Another card")
    with pytest.raises(InputError, match="of another machine or of other versions"):
        machine.remembered(other, tmp_path)


def test_the_cells_of_a_journal_that_was_cut_short(tmp_path):
    assert proofs.columns(tmp_path) == {}
    cell = {"property": "WS-01", "column": "torch/gpu/f32", "verdict": "pass", "worst": 0.25,
            "message": ""}  # fmt: skip
    bad = cell | {"property": "MODE-01", "verdict": "fail", "worst": "inf", "message": "no\nmore"}
    lines = [{"run": {}}, {"cell": cell}, {"cell": bad}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"cell": {"prop'
    (tmp_path / "journal.jsonl").write_text(text)
    assert proofs.columns(tmp_path) == {
        "torch/gpu/f32": {
            "verdicts": {"pass": 1, "fail": 1},
            "worst": "inf",
            "worst_property": "MODE-01",
            "failures": ["MODE-01: no"],
        }
    }


def test_kernels_are_told_apart_by_their_names():
    kernels = {
        "sm90_xmma_fprop_implicit_gemm_bf16bf16": (8.0, 4.0),
        "cudnn::ops::nchwToNhwcKernel": (1.0, 2.0),
        "nvjet_tst_128x256": (3.0, 1.0),
        "void at::native::multi_tensor_apply_kernel<...>": (0.5, 6.0),
        "void at::native::vectorized_elementwise_kernel<4>": (2.0, 9.0),
        "void at::native::reduce_kernel<512>": (0.25, 1.0),
        "input_add_reduce_fusion": (0.25, 1.0),
        "something": (0.125, 1.0),
    }
    assert by_kind(kernels) == {
        "convs": (8.0, 4.0),
        "products of matrices": (3.0, 1.0),
        "element by element": (2.0, 9.0),
        "copies and layouts": (1.0, 2.0),
        "optimizer and clipping": (0.5, 6.0),
        "sums and norms": (0.5, 2.0),
        "other": (0.125, 1.0),
    }


def entry(item, *results, finished=True):
    return Entry(item, f"title of {item}", finished, list(results))


def measured(name, make, seconds, **others):
    setup = asdict(Setup("timm/test_nfnet", 2, 32, precision="bf16"))
    record = {
        "contestant": name,
        "peer": None,
        "make": make,
        "options": {},
        "setup": setup,
        "batch": 2,
        "first": 3.0,
        "seconds": [seconds],
        "median": seconds,
        "peak": 2**30,
    }
    return record | others


def test_the_page_has_rates_ratios_shares_and_what_is_missing():
    peak = measured("matmul", "peaks:matmul", 0.001, options={"side": 1000})
    copy = measured("copy", "peaks:copy", 0.5, options={"size": 10**9})
    full = {k: v for k, v in measured("torch", "ours:step", 0.0).items() if k not in
            ("median", "seconds", "peak", "first")}  # fmt: skip
    text = report.markdown(
        Machine("gpu", {"torch": "A card"}, {"torch": "2.0"}, "A card, 580.1", ("jax is absent",)),
        [
            entry("conformance", {"columns": {"torch/gpu/f32": {"verdicts": {"pass": 3}, "worst":
                  "0.5", "worst_property": "WS-01", "failures": []}}}),
            entry("faults", {"fault": "agc-bf16", "found_by": {"torch/gpu/f32": ""}}),
            entry("peak-bf16-matmul", peak),
            entry("peak-copy", copy),
            entry("step-32-bf16-timm", measured("timm", "timm:step", 0.02)),
            entry("step-32-bf16-torch", measured("torch", "ours:step", 0.01, peer="timm"),
                  full | {"batch": 4, "error": "CUDA out of | memory", "out_of_memory": True}),
            entry("agc-torch", measured("torch", "ours:agc", 0.001)),
            entry("kernels-torch", measured("torch", "ours:step", 1.0, kernels={"cudnn": [2, 3]})),
            entry("forward-32-bf16-timm", finished=False),
            entry("optimizer-timm", {"error": "ValueError: no"}),
        ],
        {"jax": ["keras"]},
    )  # fmt: skip
    assert "| torch/gpu/f32 | 3 pass | 0.5 (WS-01) |" in text
    assert "| agc-bf16 | NOTHING |" in text
    assert "| bf16 | 2 TFLOP/s, 1000 rows |" in text and "| copy | 4 GB/s" in text
    # The forward pass of two images is 2 * 2 * MACs; a step has three such passes, but for the
    # gradient by the image: 2 TFLOP/s would be 100 %.
    step = next(line for line in text.splitlines() if line.startswith("| torch | 2 |"))
    assert step.startswith("| torch | 2 | 10.0 ms | 200 | 0.50 of timm | 1.0 GiB |")
    assert "| torch | 4 | no memory left |" in text
    assert "| AGC | torch | 1.00 ms |" in text
    assert "| convs | 2.00 ms | 100% | 3 |" in text
    assert "- jax is absent." in text and "- jax: needs keras." in text
    assert "- Time was over before this: title of forward-32-bf16-timm." in text
    assert "ValueError: no" in text


def test_a_folder_of_others_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    app = command.typer.Typer()
    app.command()(command.main)
    done = CliRunner().invoke(app, ["--out", str(tmp_path)])
    assert done.exit_code == 2 and "is not an output of this command" in done.output
    done = CliRunner().invoke(app, ["--out", str(tmp_path), "--device", "tpu"])
    assert done.exit_code == 2 and "--device" in done.output


@pytest.mark.slow  # three minutes
def test_the_same_path_on_a_cpu(tmp_path, monkeypatch):
    """PyTorch alone, as where the others are not installed, killed in its middle and gone on."""
    path = os.pathsep.join([*map(str, os.environ.get("PYTHONPATH", "").split(os.pathsep)),
                            standin.FOLDER])  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", path)
    line = [sys.executable, "-P", "-m", "nfspec.benchmarks.gpu", "--device", "cpu", "--out",
            str(tmp_path / "out"), "--minutes"]  # fmt: skip
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([*line, "2"], timeout=60, check=True)
    done = subprocess.run([*line, "3"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out" / "REPORT.md").read_text()
    assert "## Conformance" in text and " fail" not in text
    assert "NOTHING" not in text and "TFLOP/s" in text
    assert "Error" not in text
    assert running.kept(tmp_path / "out", Item("peak-copy", "", 0.0, lambda *_: None)).finished
