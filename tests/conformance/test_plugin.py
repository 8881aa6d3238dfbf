"""The pytest plugin: a test for each property, on subjects of NumPy."""

import importlib.util
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

# Imported here, as pytester forgets what is imported in a run of its own, and NumPy cannot be
# imported twice.
from nfspec.conformance import items

pytest_plugins = "pytester"
PLUGIN = ("-p", "nfspec.conformance.plugin", "-p", "no:cacheprovider", "-W", "error")


@pytest.fixture
def folder(pytester, monkeypatch):
    """The present folder, which has a test of its own and a module of subjects. The plugin is named
    here: pytest loads no other, nor this one by its entry point, where it is installed."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    shutil.copy(Path(__file__).with_name("fake_subjects.py"), pytester.path / "fakes.py")
    pytester.makepyfile(test_own="def test_own(): pass")
    return pytester


def run(folder, *arguments):
    return folder.runpytest_inprocess(*PLUGIN, "--strict-markers", *arguments)


def of(*subjects, ids="EXACT-03,ACT-01,AGC-01", examples="0"):
    named = [f"--nfspec-subject=fakes:{subject}" for subject in subjects]
    return [*named, f"--nfspec-properties={ids}", f"--nfspec-examples={examples}"]


def test_an_installation_has_the_plugin():
    project = Path(__file__).parents[2] / "pyproject.toml"
    points = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["entry-points"]
    name = "nfspec.conformance.plugin"
    assert points["pytest11"] == {name: name}


def test_a_test_for_each_property_beside_those_of_the_project(folder):
    done = run(folder, *of("Shy", ids="EXACT-03,AGC-01", examples="1"), "-rs", "--verbose")
    done.assert_outcomes(passed=2, skipped=1)
    done.stdout.fnmatch_lines(
        ["*test_own.py::test_own PASSED*", "*nfspec::EXACT-03[[]fakes:Shy/cpu/f32] PASSED*"]
    )
    done.stdout.fnmatch_lines(["SKIPPED*fakes:Shy: Shy has no agc"])
    starts = (folder.path / "starts").read_text().splitlines()
    assert len(starts) == 1  # one process for both


def test_a_failure_and_how_it_is_run_again(folder):
    done = run(folder, *of("Off", "Good", ids="EXACT-03"), "--junitxml=junit.xml")
    done.assert_outcomes(passed=2, failed=1)
    text = done.stdout.str()
    assert "NOT CONFORMANT: " in text and "EXACT-03: pooling of integers: the same bits" in text
    assert ": found " in text and "bound 0: the same bits were expected" in text
    assert "nfspec replay '{" in text
    assert (
        f"cd {folder.path} && nfspec conform --subject fakes:Off --properties EXACT-03 --device "
        "cpu --mode f32" in text
    )
    assert "Traceback" not in text
    cases = {
        case.get("name"): case for case in ET.parse(folder.path / "junit.xml").iter("testcase")
    }
    wrong = cases["EXACT-03[fakes:Off/cpu/f32]"]
    assert wrong.find("failure").text.startswith("NOT CONFORMANT: ")
    right = cases["EXACT-03[fakes:Good/cpu/f32]"]
    named = {each.get("name"): each.get("value") for each in right.iter("property")}
    assert int(named["cases"]) > 1 and named["error / bound"] == "0.0"


def test_tests_are_chosen_as_any_others_are(folder):
    done = run(folder, *of("Shy"), "--collect-only", "-q", "-m", items.NAME, "-k", "AGC or EXACT")
    assert done.ret == 0
    done.stdout.fnmatch_lines(
        [
            "nfspec::EXACT-03[[]fakes:Shy/cpu/f32]",
            "nfspec::AGC-01[[]fakes:Shy/cpu/f32]",
            "2/4 tests collected (2 deselected)*",
        ]
    )


def test_nothing_judged_is_no_success(folder):
    done = run(folder, *of("Shy", ids="AGC-01"))
    done.assert_outcomes(passed=1, skipped=1)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(
        ["nfspec: NOTHING JUDGED: no subject offers anything that was asked*"]
    )


def test_a_subject_that_does_not_run_or_lacks_what_it_must_offer_fails(folder):
    subjects = of("Nobody", "Stillborn", "Shy", ids="AGC-01")
    done = run(folder, *subjects, "--nfspec-must-offer=agc,pool")
    done.assert_outcomes(passed=1, failed=3)
    done.stdout.fnmatch_lines(["subject fakes:Nobody: fakes has no Nobody*"])
    done.stdout.fnmatch_lines(["*fakes:Stillborn: the worker died with status 3*"])
    done.stdout.fnmatch_lines(["*must-offer agc: fakes:Shy*Shy has no agc*"])
    assert "Traceback" not in done.stdout.str()
    assert "During handling" not in done.stdout.str()
    # Told once as a failure: pytest's summary tells it again where the variable CI is set.
    failures = done.stdout.str().partition("short test summary info")[0]
    assert failures.count("subject fakes:Nobody: fakes has no Nobody") == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (of("Good", ids="EXACT-99"), "ERROR: nfspec: *no EXACT-99; expected some of *"),
        ([*of("Good"), "--nfspec-spec=nfnet-f00"], 'ERROR: nfspec: *did you mean "nfnet-f0"*'),
        ([*of("Good"), "--nfspec-mode=f8"], "ERROR: nfspec: modes: expected one of *"),
        ([*of("Good"), "--nfspec-must-offer=acg"], 'ERROR: nfspec: must_offer: *mean "agc"*'),
        (of("Good", examples="-1"), "ERROR: nfspec: examples: expected a whole number*"),
    ],
    ids=str,
)
def test_options_that_cannot_be_used(folder, arguments, message):
    done = run(folder, *arguments)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([message])


def test_without_the_option_nothing_is_imported(folder):
    folder.makepyfile(
        test_own="""
        import sys

        def test_own():
            nfspec = {name for name in sys.modules if name.startswith("nfspec")}
            assert nfspec == {
                "nfspec", "nfspec.errors", "nfspec.conformance", "nfspec.conformance.plugin"
            }
            assert not {"numpy", "hypothesis", "jinja2", "pydantic"} & {*sys.modules}
        """
    )
    command = [sys.executable, "-m", "pytest", *PLUGIN]
    done = subprocess.run(command, cwd=folder.path, capture_output=True, text=True)
    assert "1 passed" in done.stdout, done.stdout


@pytest.mark.slow  # starts two more processes of pytest
@pytest.mark.skipif(importlib.util.find_spec("xdist") is None, reason="needs pytest-xdist")
def test_several_processes(folder):
    command = [sys.executable, "-m", "pytest", *PLUGIN, "-p", "xdist", "-n2", *of("Off", "Good")]
    done = subprocess.run(command, cwd=folder.path, capture_output=True, text=True)
    assert "3 failed, 4 passed" in done.stdout, done.stdout
