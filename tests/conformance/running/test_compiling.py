"""Runs that compile programs for another device and judge no numbers."""

import importlib.util

import pytest

from nfspec.conformance import Settings, report
from nfspec.conformance.cases.results import COMPILER, Cell
from nfspec.conformance.cases.target import target
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.report.terminal import shown
from nfspec.conformance.running.compiling import EAGER, compiled
from nfspec.conformance.running.replay import replay
from nfspec.conformance.running.run import essential_cases, run
from nfspec.conformance.workers import process
from nfspec.conformance.workers.process import WorkerError

ACT = PROPERTIES["ACT-01"]
CASES = essential_cases(ACT, target(None), "f32", 0)[:4]


class Scripted:
    """A worker whose answers are numbers of programs, or errors."""

    given_up = None

    def __init__(self, *answers):
        self.answers = list(answers)
        self.subject, self.device, self.timeout, self.fault = "jax", COMPILER, 600.0, ""

    @property
    def column(self):
        return type("Column", (), {"name": f"jax/{COMPILER}/f32"})

    def require(self, method):
        pass

    def send(self, case, arrays):
        pass

    def receive(self, case, calls):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self.programs = answer


def cell(*answers):
    counts = []
    found = compiled(ACT, Scripted(*answers), CASES[: len(answers)], counts.append)
    assert counts == [*range(1, len(answers) + 1)]
    return found


def test_all_compile():
    found = cell(1, 2, 1)
    assert (found.verdict, found.cases, found.message) == ("compiles", 3, "")


def test_the_compiler_refuses_one():
    found = cell(1, WorkerError("jax: tpu-v5e:2x2: the compiler refuses the program: no"), 1)
    assert (found.verdict, found.cases, found.unanswered) == ("error", 0, 1)
    assert found.worst_case == CASES[1].fields()
    assert "refuses the program" in found.message
    assert "--device tpu --compile-only" in found.message  # the command that does it again


def test_there_is_no_program():
    found = cell(0, 0)
    assert (found.verdict, found.unoffered, found.message) == ("not offered", 2, EAGER)
    some = cell(1, WorkerError("jax: no such thing", "not offered"))
    assert (some.verdict, some.cases, some.unoffered) == ("compiles", 1, 1)


@pytest.fixture
def for_the_cpu(monkeypatch):
    """JAX's compiler for this machine in the place of a TPU's."""
    monkeypatch.setitem(process.DEVICES[COMPILER], process.COMPILED_FOR, "cpu")


def test_a_run(for_the_cpu, tmp_path):
    """JAX's programs are compiled; other frameworks have none for a TPU."""
    settings = Settings(subjects=("jax", "torch"), device=COMPILER, properties=("POOL-01",))
    results = run(settings)
    jax, torch = results.cells
    assert (jax.verdict, torch.verdict) == ("compiles", "missing")
    assert jax.cases == len(essential_cases(PROPERTIES["POOL-01"], target(None), "f32", 0))
    assert results.verdict == "COMPILES"
    text = "\n".join(shown(results))
    assert "Compiled for cpu. This says nothing of numbers there." in text
    assert "torch: programs of jax alone can be compiled for a TPU" in text
    assert "worst" not in text
    report.write(results, tmp_path)
    assert "| compiles |" in (tmp_path / "REPORT.md").read_text()


def test_a_run_that_does_not_compile():
    results = run(Settings(subjects=("torch",), device=COMPILER, properties=("POOL-01",)))
    assert results.verdict == "NOTHING JUDGED"
    results.cells = [Cell("POOL-01", f"jax/{COMPILER}/f32", "error", cases=1)]
    assert results.verdict == "DOES NOT COMPILE"


def test_a_case_again(for_the_cpu):
    case = essential_cases(PROPERTIES["POOL-01"], target(None), "f32", 0)[0]
    (again,) = replay(case.line(), ("jax",), COMPILER)
    assert (again.verdict, again.ratio) == ("compiles", 0.0)
    assert again.text.endswith("compiled for cpu")


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_the_compiler_of_tpus():
    results = run(Settings(subjects=("jax",), device=COMPILER, properties=("POOL-01",)))
    (column,) = results.columns
    assert results.verdict == "NOTHING JUDGED"
    assert 'pip install "jax[tpu]" installs it' in column.problem


@pytest.mark.slow  # minutes: a compiler for another machine
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_layers_compile_for_a_tpu():
    settings = Settings(
        subjects=("jax",), device=COMPILER, modes=("f32", "bf16"), properties=("WS-01", "AGC-01")
    )
    assert run(settings).verdict == "COMPILES"
