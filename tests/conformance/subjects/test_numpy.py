"""A subject of NumPy: judged like any other, without a framework."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nfspec.cli import app
from nfspec.conformance.subjects import NotOffered
from nfspec.conformance.workers.frameworks import load
from nfspec.errors import BackendError

framework = load("numpy")
SPEC = "timm/test_nfnet"
# One property of each kind of work, but for training, which is long.
KINDS = (
    "EXACT-03", "MODE-01", "WS-01", "WS-02", "ACT-02", "AGC-02", "NET-03", "BLOCK-01", "FOLD-01",
    "STEP-01", "WEIGHTS-01",
)  # fmt: skip
MINE = """
import numpy as np
from exact_subject import Exact


class Wide(Exact):
    '''Returns float64.'''

    def pool(self, op):
        function = super().pool(op)
        return lambda x: np.float64(function(x))


class WrongGradient(Exact):
    def activation(self, op):
        function = super().activation(op)
        right = function.vjp
        function.vjp = lambda dy, x: (1.001 * right(dy, x)[0],)
        return function


class NoGradient(Exact):
    def activation(self, op):
        function = super().activation(op)
        return lambda x: function(x)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The present folder, which has a module of subjects."""
    shutil.copy(Path(__file__).parents[1] / "exact_subject.py", tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def conform(subject, *arguments):
    """The exit status, the verdicts by property, the messages, and the facts of the column."""
    command = ["conform", SPEC, "--subject", subject, "--out", "out", "--device", "cpu"]
    done = CliRunner().invoke(app, [*command, *arguments])
    report = json.loads(Path("out/results.json").read_text())
    cells = {cell["property"]: cell for cell in report["cells"]}
    verdicts = {name: cell["verdict"] for name, cell in cells.items()}
    messages = {name: cell["message"] for name, cell in cells.items()}
    return done.exit_code, verdicts, messages, report["columns"][0]


def test_the_rounded_reference_conforms(folder):
    status, verdicts, _, column = conform(
        "exact_subject:Exact", "--examples", "2", "--properties", ",".join(KINDS)
    )
    assert (status, verdicts) == (0, dict.fromkeys(verdicts, "pass"))
    assert {*verdicts} == {*KINDS}
    assert column["framework"] == "numpy"
    assert (column["facts"]["version"], column["facts"]["device"]) == (np.__version__, "cpu")
    assert "keras" not in column["facts"]
    assert f"| numpy | {np.__version__} |" in Path("out/REPORT.md").read_text()


def test_float64_results_conform(folder):
    status, verdicts, *_ = conform(
        "mine:Wide", "--examples", "0", "--properties", "EXACT-03,POOL-01"
    )
    assert (status, set(verdicts.values())) == (0, {"pass"})


def test_a_wrong_gradient_is_found(folder):
    status, verdicts, *_ = conform(
        "mine:WrongGradient", "--examples", "0", "--properties", "ACT-01,ACT-02"
    )
    assert (status, verdicts) == (1, {"ACT-01": "pass", "ACT-02": "fail"})


def test_gradients_that_are_not_stated_are_not_offered(folder):
    status, verdicts, messages, _ = conform(
        "mine:NoGradient", "--examples", "0", "--properties", "ACT-01,ACT-02"
    )
    assert (status, verdicts) == (0, {"ACT-01": "pass", "ACT-02": "not offered"})
    assert messages["ACT-02"].endswith(", so no gradients")


def test_no_framework_is_imported(folder):
    program = """
import sys
sys.path.append(".")
from nfspec.conformance.cases.target import target
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.workers.requests import CaseRequest, FactsRequest
from nfspec.conformance.workers.server import Server

server = Server("exact_subject:Exact", "f32")
server.answer(FactsRequest())
server.answer(CaseRequest(PROPERTIES["ACT-02"].cases(target(None))[0]))
print({"keras", "jax", "torch", "tensorflow"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_the_example_of_the_docstring():
    class Mine:
        def dense(self, op):
            def function(x, kernel, bias):
                return x @ kernel + bias

            function.vjp = lambda dy, x, kernel, bias: (dy @ kernel.T, x.T @ dy, dy.sum(0))
            return function

    rng = np.random.default_rng(0)
    x, kernel, bias = (rng.standard_normal(s).astype(np.float32) for s in ((4, 3), (3, 2), (2,)))
    function = Mine().dense(None)
    np.testing.assert_array_equal(framework.compiled(function)(x, kernel, bias), x @ kernel + bias)
    dy = np.ones((4, 2), np.float32)
    dx, dkernel, dbias = framework.gradient(function)(dy, x, kernel, bias)
    assert (dx.shape, dkernel.shape, dbias.tolist()) == (x.shape, kernel.shape, [4.0, 4.0])


def test_a_subject_may_write_into_its_arguments():
    def function(x, params):
        x *= 2.0
        params["w"] += x
        return {"y": params["w"]}

    x, params = np.ones(3, np.float32), {"w": np.ones(3, np.float32)}
    call = framework.compiled(function)
    for _ in range(2):
        assert call(x, params)["y"].tolist() == [3.0] * 3
    assert x.tolist() == params["w"].tolist() == [1.0] * 3


def test_narrow_results_are_widened():
    half = framework.compiled(lambda x: x.astype(np.float16))(np.float32([1.0]))
    assert half.dtype == np.float32
    assert framework.compiled(np.float64)(np.float32([1.0])).dtype == np.float64


def test_arrays_of_other_libraries_are_taken():
    class Foreign:
        def __init__(self, value):
            self.value = value

        def __array__(self, dtype=None, copy=None):
            return np.array(self.value, dtype or np.float16)

    call = framework.compiled(lambda x: {"y": Foreign(x), "z": [1.0, 2.0], "s": memoryview(x)})
    taps = call(np.ones(2, np.float32))
    assert {tap: value.dtype.name for tap, value in taps.items()} == {
        "y": "float32", "z": "float64", "s": "float32"
    }  # fmt: skip
    assert taps["z"].tolist() == [1.0, 2.0]


def test_without_a_vjp():
    with pytest.raises(NotOffered, match="no vjp"):
        framework.gradient(np.tanh)


def test_numpy_has_no_tf32():
    for mode in ("f32", "bf16", "f16"):
        framework.set_mode(mode)
    with pytest.raises(BackendError, match="numpy: cpu has no TF32"):
        framework.set_mode("tf32")
    assert set(framework.switches()) == {"blas"}
