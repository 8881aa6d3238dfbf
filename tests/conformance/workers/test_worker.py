"""A worker: how it starts, which replies it refuses, and when it gives a subject up."""

from pathlib import Path

import pytest

from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.target import target
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.workers import worker as module
from nfspec.conformance.workers.process import WorkerError
from nfspec.conformance.workers.worker import STRIKES, Worker
from nfspec.errors import InputError

from ..fakes import lives, prepare, starts

ASKED = PROPERTIES["EXACT-03"]
CASE, *_ = ASKED.cases(target(None))
CALLS = ASKED.calls(CASE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    return tmp_path


@pytest.fixture
def worker(folder):
    """Makes started workers, and closes them."""
    made = []

    def make(name, device="cpu", timeout=60.0, fault=""):
        made.append(Worker(f"fakes:{name}", device, "f32", timeout, fault))
        made[-1].start()
        made[-1].wait()
        return made[-1]

    yield make
    for each in made:
        each.close()


def ask(worker, case=CASE, calls=CALLS):
    worker.send(case, None)
    return worker.receive(case, calls)


def failure(worker):
    with pytest.raises(WorkerError) as caught:
        ask(worker)
    return caught.value.kind, str(caught.value)


def test_a_good_one(worker, folder):
    good = worker("Good")
    assert good.column.name == "fakes:Good/cpu/f32"
    assert (good.column.framework, good.column.problem) == ("numpy", "")
    assert good.column.facts["backend"] == "numpy" and "keras" not in good.column.facts
    outputs = ask(good)
    assert outputs["y"].shape == ASKED.expect(CASE, CALLS).outputs["y"].value.shape
    ((_, pid),) = starts(folder)
    assert lives(pid)
    good.close()
    good.close()  # as often as one likes
    assert not lives(pid)


def test_a_reply_to_another_case_is_refused(worker):
    kind, message = failure(worker("Good", fault="reply-stale"))
    assert kind == "refused"
    assert message.startswith("fakes:Good: a reply to another case: expected ")


def test_a_reply_made_from_other_arrays_is_refused(worker):
    _, message = failure(worker("Good", fault="reply-other-inputs"))
    assert message.startswith("fakes:Good: a reply made from other arrays: ")


def test_a_reply_made_from_what_the_parent_has_not_is_refused(worker):
    good = worker("Good")
    good.send(CASE, None)
    with pytest.raises(WorkerError, match="made from other arrays"):
        good.receive(CASE, [{"x": 2.0 * CALLS[0]["x"]}])


def test_a_reply_of_another_process_is_refused(worker):
    _, message = failure(worker("Good", fault="reply-other-subject"))
    assert message.startswith("fakes:Good: a reply of another process: ")


def test_arrays_may_be_sent(worker):
    good = worker("Good")
    other = [{"x": 2.0 * CALLS[0]["x"]}]
    good.send(CASE, other)
    sent = good.receive(CASE, other)
    assert (sent["y"] == 2.0 * ask(good)["y"]).all()


def test_an_error_does_not_end_it(worker, folder):
    raises = worker("Raises")
    asked = PROPERTIES["ACT-01"]
    case = asked.cases(target(None))[0]
    with pytest.raises(WorkerError, match="ValueError: no such thing") as caught:
        ask(raises, case, asked.calls(case))
    assert caught.value.kind == "error"
    ask(raises)
    assert len(starts(folder)) == 1


def test_one_that_always_dies_is_given_up_after_three(worker, folder):
    assert STRIKES == 3
    always = worker("Always")
    for _ in range(3):
        kind, message = failure(always)
        assert kind == "crashed"
        assert message.startswith("fakes:Always: the worker died with status -9")
        assert message.endswith("before the end")  # the last of what it said
    for _ in range(3):
        assert failure(always) == ("crashed", message)
    assert always.column.problem == message
    assert [name for name, _ in starts(folder)] == ["Always"] * STRIKES
    assert not any(lives(pid) for _, pid in starts(folder))


def test_one_that_answers_in_between_is_not_given_up(worker, folder):
    third = worker("Third")
    for _ in range(STRIKES + 1):
        ask(third), ask(third)
        assert failure(third)[0] == "crashed"
    assert third.given_up is None
    assert len(starts(folder)) == STRIKES + 1


def test_one_that_hangs_is_ended_and_started_anew(worker, folder, monkeypatch):
    monkeypatch.setattr(module, "FIRST", 0.5)
    hangs = worker("Hangs")
    hangs.timeout = 0.5
    asked = PROPERTIES["ACT-01"]
    case = asked.cases(target(None))[0]
    with pytest.raises(WorkerError, match=r"fakes:Hangs: no answer after 0\.5 s") as caught:
        ask(hangs, case, asked.calls(case))
    assert caught.value.kind == "hung"
    ((_, pid),) = starts(folder)
    assert not lives(pid)
    hangs.timeout = 60.0
    ask(hangs)


def test_one_that_takes_long_to_start_is_not_hung(worker):
    """Nor is one that takes long for its first answer, as it compiles; then the timeout holds."""
    slow = worker("Slow", timeout=0.5)
    assert slow.given_up is None and slow.facts["backend"] == "numpy"
    ask(slow)
    slow.close()
    ask(slow)  # a process started anew has the same time
    slow.timeout = 1e-6
    assert failure(slow) == ("hung", "fakes:Slow: no answer after 1e-06 s")


def test_one_that_never_starts_says_so(worker, monkeypatch):
    monkeypatch.setattr(module, "START", 0.2)
    slow = worker("Slow", timeout=0.1)
    assert slow.given_up.kind == "hung"
    assert str(slow.given_up).startswith("fakes:Slow: not ready after 0.2 s, in which its module ")


def test_one_that_dies_as_it_starts(worker, folder):
    stillborn = worker("Stillborn")
    assert stillborn.given_up.kind == "crashed"
    assert stillborn.column.problem.startswith("fakes:Stillborn: the worker died with status 3")
    assert failure(stillborn) == ("crashed", str(stillborn.given_up))
    assert len(starts(folder)) == 1


@pytest.mark.parametrize(
    "name, message",
    [
        ("Nobody", "subject fakes:Nobody: fakes has no Nobody"),
        ("NoFramework", "subject fakes:NoFramework: expected the attribute `framework`"),
    ],
)
def test_one_that_cannot_be_loaded(worker, name, message):
    with pytest.raises(InputError) as error:
        worker(name)
    assert str(error.value).startswith(message)
    assert "Traceback" not in str(error.value)


def test_the_file_of_a_subject_that_starts_a_run_itself(worker):
    with Path("fakes.py").open("a") as file:
        file.write("""
from nfspec.conformance.workers.process import WorkerProcess
WorkerProcess("fakes:Good")
""")
    with pytest.raises(InputError, match="starts a run when it is imported; put that run under"):
        worker("Good")


def test_a_module_is_found_where_its_parent_finds_it(worker, monkeypatch):
    Path("there").mkdir()
    Path("fakes.py").rename("there/elsewhere.py")
    Path("fakes.py").write_text("from elsewhere import Good")
    monkeypatch.syspath_prepend("there")
    assert worker("Good").given_up is None


def test_methods_that_the_kit_never_calls_are_facts(worker):
    with Path("fakes.py").open("a") as file:
        file.write("class Misspelt(Good):\n    wsconv = Good.pool\n")
    assert worker("Misspelt").facts["unknown_methods"] == ["wsconv"]


def test_a_framework_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(module, "missing", lambda name: f"{name} not installed; run: pip")
    jax = Worker("jax", "cpu", "f32", 60.0)
    jax.start()
    jax.wait()
    assert (jax.given_up.kind, str(jax.given_up)) == ("missing", "jax: jax not installed; run: pip")
    assert (jax.column.framework, jax.column.facts) == ("jax", {})
    assert failure(jax) == ("missing", str(jax.given_up))


@pytest.mark.parametrize("device", ["gpu", "tpu"])
def test_a_device_that_is_not_there(worker, device):
    good = worker("Good", device)
    assert good.given_up.kind == "missing"
    assert str(good.given_up).startswith(f"fakes:Good: sees no {device.upper()}")


def test_what_is_not_offered(worker):
    shy = worker("Shy")
    assert "lacking" not in shy.facts
    shy.require("pool")
    for _ in range(STRIKES + 1):
        with pytest.raises(WorkerError, match="fakes:Shy: Shy has no agc") as caught:
            shy.require("agc")
        assert caught.value.kind == "no method"
    ask(shy)


def test_a_fault_may_change_between_cases(worker):
    good = worker("Good")
    plain = ask(good)["y"]
    good.fault = "reply-zeros"
    assert not ask(good)["y"].any()
    good.fault = ""
    assert (ask(good)["y"] == plain).all()


def test_a_case_of_an_unknown_property(worker):
    good = worker("Good")
    with pytest.raises(WorkerError, match="KeyError: 'X-01'"):
        ask(good, Case("X-01"), CALLS)
