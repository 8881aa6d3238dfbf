"""Replies of `exact_subject`, from a worker's server within this process, and their judgement."""

from functools import cache

from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.properties.base import judge
from nfspec.conformance.workers.requests import CaseRequest
from nfspec.conformance.workers.server import Server

from . import exact_subject


@cache
def server(mode):
    return Server(f"{exact_subject.__name__}:Exact", mode)


def reply(case, calls, fault=""):
    """The outputs of a case, by name, with a fault if one is named.

    NumPy has no TF32, whose bounds hold for float32 as well.
    """
    mode = "f32" if case.mode == "tf32" else case.mode
    return server(mode).answer(CaseRequest(case, fault, calls))["outputs"]


@cache
def expected_of(case):
    """A case's arrays and expected outputs, which are pure, and not changed by their readers."""
    asked = PROPERTIES[case.property]
    calls = asked.calls(case)
    return calls, asked.expect(case, calls)


def judged(case, outputs):
    """The judgement of a reply."""
    calls, expected = expected_of(case)
    return judge(PROPERTIES[case.property].reduce(case, calls, outputs), expected)
