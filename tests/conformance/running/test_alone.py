"""Faults in subjects that offer their network and their blocks, and nothing else."""

import shutil

import pytest

from nfspec.conformance.cases.case import Case
from nfspec.conformance.faults import FAULTS
from nfspec.conformance.report.faults import faults_markdown
from nfspec.conformance.running import alone
from nfspec.conformance.running.alone import METHODS, concerns, network_cases, try_alone
from nfspec.conformance.running.kill import Kill, KillMatrix
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.subjects import METHODS as OF_SUBJECTS

from .. import exact_subject

SETTINGS = Settings(source="timm/test_nfnet", subjects=("exact_subject:Exact",))


def test_cases_are_of_networks_that_are_cut_down():
    cases = list(network_cases(SETTINGS))
    assert [case.property for case in cases][:3] == ["NET-03"] * 3
    assert {case.property for case in cases} == {"NET-03", "NET-02", "BLOCK-01"}
    assert all(case.reduced for case in cases)
    assert {case.spec for case in network_cases(Settings())} == set(alone.NETWORKS)


@pytest.mark.parametrize(
    "name, is_it",
    [("ws-no-gain", True), ("agc-lambda", False), ("sgd-momentum", False), ("ws-one-pass", True)],
)
def test_faults_that_cannot_change_a_network(name, is_it):
    case = Case("NET-03", spec="timm/test_nfnet", reduced=True)
    assert concerns(FAULTS[name], case) == is_it


SOME = ("conv-no-bias", "ws-eps-value", "head-no-bias", "agc-lambda", "reply-nan")


def test_faults_are_killed_or_have_a_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(exact_subject.__file__, tmp_path)
    monkeypatch.setattr(alone, "FAULTS", {name: FAULTS[name] for name in SOME})
    messages = []
    matrix = KillMatrix({})
    try_alone(SETTINGS, matrix, lambda matrix, message: messages.append(message))
    assert [kill.property for kill in matrix.alone.values()] == [
        "NET-03",
        "NET-03",
        "NET-03",
        "",
        "NET-03",
    ]
    assert matrix.survivors_alone == [] and matrix.alone_on == "exact_subject:Exact/cpu/f32"
    assert messages[3] == "agc-lambda: killed by nothing where the network alone is offered"
    again = KillMatrix({}, alone={name: Kill() for name in SOME})
    try_alone(SETTINGS, again, lambda matrix, message: pytest.fail(message))  # all known

    text = faults_markdown(matrix)
    assert "with reduced networks: 4 of 5 are" in text
    assert "| `agc-lambda` | lambda a hundredth larger | not seen: only in training |" in text


def test_every_method_is_one_of_a_subject():
    assert set(METHODS) <= set(OF_SUBJECTS)
