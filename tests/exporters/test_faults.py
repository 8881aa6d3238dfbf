"""Ten mistakes of exporters, in every format: each is refused by the proof."""

import importlib.util
from dataclasses import replace

import pytest

import nfspec
from nfspec.backends.exporters.formats import FORMATS
from nfspec.conformance import exporting
from nfspec.conformance.cases.weights import trial_params

from .faults import FAULTS, changed

SIZE = (47, 38)  # odd and even


@pytest.fixture(scope="module")
def network():
    plan = changed()
    return plan, trial_params(plan, 0)


# aotinductor compiles what torch exports, for half a minute each time.
FORMS = [each for each in FORMATS.values() if each.name != "aotinductor"]


@pytest.fixture(params=FORMS, ids=lambda form: form.name)
def form(request):
    absent = [name for name in request.param.packages if importlib.util.find_spec(name) is None]
    if absent:
        pytest.skip(f"{absent[0]} is not installed")
    return request.param


def exported(form, network, folder, monkeypatch, change):
    """Write what a function makes of the network, for the proof to judge."""
    wrong = replace(
        form, write=lambda path, made: form.write(path, change(made)), runtimes=form.runtimes[:1]
    )
    monkeypatch.setattr(exporting, "format_of", lambda name: wrong)
    path = folder / f"a{form.suffix}"
    return nfspec.export(network[0], form.name, path, network[1], size=SIZE, batch=2)


@pytest.mark.slow  # to convert a network takes seconds in most formats
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_mistake_is_refused(fault, form, network, tmp_path, monkeypatch):
    with pytest.raises(nfspec.ProofError) as refused:
        exported(form, network, tmp_path, monkeypatch, fault)
    worst = max(row.distance / row.bound for row in refused.value.proof.rows)
    assert 1 < worst < float("inf")  # it was run, and is another network
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_a_mistake_it_is_not(form, network, tmp_path, monkeypatch):
    assert exported(form, network, tmp_path, monkeypatch, lambda made: made).same
