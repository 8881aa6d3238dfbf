"""The methods of a subject, and those that it lacks."""

import inspect

import pytest

from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.subjects import (
    METHODS,
    NoMethod,
    Subject,
    lacking,
    method_of,
    unknown_methods,
)


class Some:
    framework = "numpy"

    def __init__(self, mode):
        pass

    def pool(self, op):
        return op

    agc = None


def test_the_table_has_every_method_of_the_protocol_and_every_property_one_of_them():
    methods = {name for name, _ in inspect.getmembers(Subject, inspect.isfunction)}
    assert {*METHODS} == {name for name in methods if not name.startswith("_")}
    assert {asked.method for asked in PROPERTIES.values()} == {*METHODS}
    assert all(getattr(Subject, name).__doc__ for name in METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_each_entry_is_the_method_of_its_name(name):
    class All:
        framework = "numpy"

    setattr(All, name, lambda self: name)
    assert method_of(All(), name)() == name


def test_a_method_that_is_not_there_or_none_is_not_offered():
    some = Some("f32")
    assert method_of(some, "pool")(3) == 3
    for name in ("eca", "agc"):
        with pytest.raises(NoMethod, match=f"^Some has no {name}$"):
            method_of(some, name)


def test_the_methods_that_a_subject_lacks():
    assert {*METHODS} - {*lacking(Some("f32"))} == {"pool"}
    assert lacking(Some("f32"))["agc"] == "Some has no agc"


def test_methods_that_the_kit_never_calls_are_named():
    class Misspelt(Some):
        wsconv = lambda self, op: op  # noqa: E731
        helper = staticmethod(len)
        _private = agc = wsconv
        Config = dict

    assert unknown_methods(Misspelt("f32")) == ["helper", "wsconv"]
    assert unknown_methods(Some("f32")) == []
    expected = "^Misspelt has no ws_conv, but wsconv, which the kit does not call$"
    with pytest.raises(NoMethod, match=expected):
        method_of(Misspelt("f32"), "ws_conv")
