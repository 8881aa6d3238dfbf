"""Results of an interrupted run of seeded faults are read again, or refused in a sentence."""

import json
import os
from dataclasses import asdict, replace

import pytest

from nfspec.conformance.faults import FAULTS
from nfspec.conformance.running.kill import Kill, KillMatrix
from nfspec.conformance.running.settings import Settings
from nfspec.errors import InputError

SETTINGS = Settings()
COLUMN = "torch/cpu/f32"
FAULT = next(iter(FAULTS))


def sample():
    kills = {FAULT: {COLUMN: Kill("WS-01", float("inf"), 3, {"property": "WS-01"})}}
    settings = json.loads(json.dumps(asdict(SETTINGS)))
    return KillMatrix(settings, {COLUMN: {"version": "2"}}, kills, {"WS-01": {COLUMN: FAULT}})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "faults.json"
    path.write_text(sample().to_json())
    return path


def test_what_was_written_is_read(file):
    assert KillMatrix.read(file, SETTINGS) == sample()
    assert KillMatrix.read(file, replace(SETTINGS, timeout=9.0)) == sample()


def test_a_run_with_other_settings_does_not_go_on_with_it(file):
    """Its kills would be counted as those of modes and subjects that never ran."""
    with pytest.raises(InputError, match="is of a run with other settings; start without --resume"):
        KillMatrix.read(file, replace(SETTINGS, modes=("bf16",)))


@pytest.mark.parametrize(
    "change",
    [
        {"kills": 5},
        {"kills": {FAULT: {COLUMN: {"ratio": "large"}}}},
        {"kills": {FAULT: [1]}},
        {"witnesses": {"WS-01": None}},
        {"facts": []},
        {"limits": {}},
        {"kills": {"no such fault": {}}},
        {"witnesses": {"NONE-01": {}}},
    ],
    ids=str,
)
def test_a_file_of_another_kind_is_refused(file, change):
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=r"^--resume: .*faults\.json is (not what|of a run)"):
        KillMatrix.read(file, SETTINGS)


@pytest.mark.parametrize("data", [b"", b"5", b"null", b"[]", b"\xff", b"[" * 100_000, b"{}"])
def test_what_is_no_such_file_is_refused(file, data):
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"is not what conform --faults writes; start anew"):
        KillMatrix.read(file, SETTINGS)


def test_the_verdict():
    assert KillMatrix({}).verdict == KillMatrix({}, kills={FAULT: {}}).verdict == "NOTHING TRIED"
    matrix = sample()
    assert matrix.verdict == "PROVED"
    matrix.witnesses["WS-02"] = {COLUMN: ""}
    assert matrix.verdict == "NOT PROVED"  # a property kills nothing
    del matrix.witnesses["WS-02"]
    matrix.kills[FAULT][COLUMN] = Kill()
    assert matrix.verdict == "NOT PROVED"  # a fault survives


def test_the_verdict_where_the_network_alone_is_offered():
    """A fault that nothing kills needs a reason."""
    matrix = sample()
    matrix.alone = {"ws-mean-detached": Kill(), FAULT: Kill("NET-03", 2.0)}
    assert FAULTS["ws-mean-detached"].alone and matrix.verdict == "PROVED"
    matrix.alone[FAULT] = Kill()
    assert (matrix.survivors_alone, matrix.verdict) == ([FAULT], "NOT PROVED")


def test_a_file_of_an_earlier_version_is_read(file):
    data = json.loads(file.read_text())
    del data["alone"], data["alone_on"]
    file.write_text(json.dumps(data))
    assert KillMatrix.read(file, SETTINGS) == sample()


def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "faults.json")
    with pytest.raises(InputError, match="a named pipe, where a regular file was expected"):
        KillMatrix.read(tmp_path / "faults.json", SETTINGS)
