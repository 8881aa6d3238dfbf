"""The list of mutations fits the code as it is, and the program tells which are killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mutations.mutants import Mutation, MutationError, read

ROOT = Path(__file__).parent.parent
MUTATIONS = read()
CODE = "def twice(x):\n    return 2 * x\n\n\ndef thrice(x):\n    return 3 * x\n"
TESTS = """
from code_under_test import twice

def test_twice():
    assert twice(2) == 4
"""
LIST = """
[[mutation]]
id = "twice"
area = "tested"
fault = "three | times"
file = "nfspec/code_under_test.py"
old = "2 * x"
new = "3 * x"
tests = ["tests/test_code.py"]

[[mutation]]
id = "thrice"
area = "untested"
fault = "twice"
file = "nfspec/code_under_test.py"
old = "3 * x"
new = "2 * x"
tests = ["tests/test_code.py"]
"""


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.id)
def test_the_fault_can_be_put_into_the_code(mutation):
    mutation.applied_in(ROOT)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.id)
def test_tests_of_a_framework_and_no_others_name_it(mutation):
    of_backends = [test.startswith("tests/backends/") for test in mutation.tests]
    assert all(of_backends) if mutation.framework else not any(of_backends)


def test_there_are_enough_in_each_area():
    areas = [mutation.area for mutation in MUTATIONS]
    assert len(areas) >= 72
    assert min(map(areas.count, areas)) >= 3


@pytest.mark.parametrize(("old", "count"), [("4 * x", 0), (" * x", 2)])
def test_a_text_that_does_not_stand_there_once(old, count):
    mutation = Mutation("a", "area", "fault", "file.py", old, "", ())
    with pytest.raises(MutationError, match=f"a: the old text stands {count} times in file.py"):
        mutation.applied(CODE)


def test_a_fault_that_is_no_python():
    with pytest.raises(MutationError, match="a: the new text is no Python"):
        Mutation("a", "area", "fault", "file.py", "2 * x", "2 *", ()).applied(CODE)


def test_two_mutations_of_one_id(tmp_path):
    path = tmp_path / "list.toml"
    path.write_text(LIST.replace("thrice", "twice"))
    with pytest.raises(MutationError, match="ids that stand twice: twice"):
        read(path)


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "checkout"
    for name, text in {"nfspec/code_under_test.py": CODE, "tests/test_code.py": TESTS}.items():
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(text)
    (root / "pytest.ini").write_text("[pytest]\npythonpath = nfspec\n")
    (tmp_path / "list.toml").write_text(LIST)
    subprocess.run(["git", "init", "-q", root], check=True)
    subprocess.run(["git", "-C", root, "add", "."], check=True)
    return root


def run(checkout, *options):
    folder = checkout.parent
    command = [sys.executable, "-m", "mutations", "--root", checkout, *options]
    command += ["--list", folder / "list.toml", "--state", folder / "state.json"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # they take seconds
    return subprocess.run(
        command, cwd=ROOT / "tests", env=environment, capture_output=True, text=True
    )


def test_a_fault_that_no_test_notices_survives_and_a_run_goes_on_where_it_stopped(checkout):
    assert run(checkout, "--only", "tested").returncode == 0
    done = run(checkout)
    assert done.returncode == 1
    assert "twice: killed" not in done.stdout  # again
    assert "2 mutations, 1 killed, survived: thrice" in done.stdout
    results = json.loads((checkout.parent / "state.json").read_text())["results"]
    assert [(r["id"], r["killed"]) for r in results] == [("twice", True), ("thrice", False)]
    table = (checkout.parent / "state.md").read_text()
    assert r"| twice | tested | three \| times | `tests/test_code.py::test_twice` |" in table
    assert "| thrice | untested | twice | **survived** |" in table
    assert (checkout / "nfspec" / "code_under_test.py").read_text() == CODE


def test_after_a_change_a_run_begins_anew(checkout):
    assert "twice: killed" in run(checkout, "--only", "twice").stdout
    (checkout / "tests" / "test_code.py").write_text(TESTS.replace("4", "5"))
    done = run(checkout, "--only", "twice")
    assert done.returncode == 2
    assert "tests that fail without a fault, too:\ntests/test_code.py::test_twice" in done.stderr
    assert json.loads((checkout.parent / "state.json").read_text())["results"] == []


def test_an_area_that_there_is_not(checkout):
    done = run(checkout, "--only", "nothing")
    assert (done.returncode, "areas are tested, untested" in done.stderr) == (2, True)
