"""Subjects by name, their methods, and those that they lack."""

import inspect

import pytest

from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.subjects import (
    METHODS,
    SHIPPED,
    NoMethod,
    Subject,
    load,
    method_of,
    place,
)
from nfspec.errors import InputError


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


def test_places():
    assert place("torch") == SHIPPED["torch"]
    assert place("mine:Right") == "mine:Right"
    with pytest.raises(
        InputError, match=r'no subject "jax-plane"; expected .*did you mean "jax-plain"'
    ):
        place("jax-plane")


def test_the_class_of_a_subject():
    assert load(f"{__name__}:Some") is Some
    with pytest.raises(InputError, match="cannot be loaded"):
        load(f"{__name__}:Nobody")
    with pytest.raises(InputError, match="`framework` of jax, torch, tensorflow or numpy"):
        load(f"{__name__}:SHIPPED")
