"""Networks as they are opened; tests/cli/test_predict.py and test_evaluate.py ask them."""

import sys
from types import SimpleNamespace

import pytest

import nfspec
from nfspec import compilation
from nfspec.training import opening
from nfspec.training.opening import Opened, Source


@pytest.mark.parametrize(
    ("loaded", "trained", "installed", "expected"),
    [
        ("tensorflow", "jax", {"jax", "tensorflow"}, "tensorflow"),  # which it cannot change
        (None, "torch", {"jax", "torch"}, "torch"),
        (None, "torch", {"tensorflow"}, "tensorflow"),  # weights are the same for all
        (None, None, {"torch", "tensorflow"}, "torch"),
    ],
)
def test_the_framework_where_none_is_asked_for(loaded, trained, installed, expected, monkeypatch):
    keras = SimpleNamespace(backend=SimpleNamespace(backend=lambda: loaded))
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if loaded:
        monkeypatch.setitem(sys.modules, "keras", keras)
    absent = {name: name not in installed or None for name in compilation.BACKENDS}
    monkeypatch.setattr(compilation, "missing", absent.__getitem__)
    facts = SimpleNamespace(backend=trained) if trained else None
    assert opening._framework(facts) == expected


def opened(**changes):
    how = nfspec.load("nfnet-nano").input
    facts = {
        "name": "net",
        "runs_on": "x",
        "how": how,
        "classes": 3,
        "facts": None,
        "names": (),
        "side": None,
    }
    facts |= {"names": (), "batch": None, "outputs": ("logits",), "function": None}
    return Opened(**(facts | changes))


def test_the_side_is_what_is_asked_for_or_its_own_or_the_specs():
    assert opened().side_for(None) == 32
    assert opened().side_for(40) == 40
    assert opened(side=48).side_for(None) == opened(side=48).side_for(48) == 48
    with pytest.raises(nfspec.InputError, match="takes images of 48 x 48 px alone, not of 40 x 40"):
        opened(side=48).side_for(40)


def test_an_output_that_it_has_not_is_refused():
    opened().require_output("logits")
    with pytest.raises(nfspec.InputError, match="net: has no output pool; export or compile it"):
        opened().require_output("pool")


def test_a_spec_is_checked_before_its_weights_are_read(tmp_path):
    """And their file is not touched; a model that no network is has one sentence, too."""
    found = Source("nfnet-nano", tmp_path / "none.safetensors", "torch").open()
    assert (found.name, found.classes, found.runs_on) == ("nfnet-nano", 1000, "torch")
    assert "pool" in found.outputs and found.facts is None
    with pytest.raises(nfspec.SpecError):
        Source("nfnet-nono", "none.safetensors").open()
    with pytest.raises(nfspec.InputError, match="found an object of type object"):
        Source(object()).open()
