"""Constant factors and their simple expressions."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from nfspec.conformance.cases.target import CONV
from nfspec.conformance.conventions.factor import Factor, common
from nfspec.language.loader import load
from nfspec.plan import Dense

SPEC = load("nfnet-f0")
WIDE = Dense("op", ("x",), 96, 10, 1.0)


def answers(*pairs):
    """Answers to cases of operations, each with the factor that fits it best."""
    return [
        (SimpleNamespace(prepared=SimpleNamespace(case=SimpleNamespace(op=op))), constant(number))
        for op, number in pairs
    ]


def constant(number):
    return Factor(lambda op: number, names=frozenset({"y"}))


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        ([(WIDE, 2.0)], "2"),
        ([(WIDE, -1.0)], "-1"),
        ([(WIDE, 0.5)], "0.5 = 1/2"),
        ([(WIDE, 3.0**0.5)], "1.732 = √3"),
        ([(WIDE, 1.7015043497085571)], "1.702 = gamma of gelu_tanh"),
        ([(WIDE, 1 / 1.7015043497085571)], "0.5877 = 1/1.7015 = 1/gamma of gelu_tanh"),
        ([(WIDE, 96**-0.5)], "1/√(input features), such as 1/√96 = 0.1021"),
        ([(CONV, 144**-0.5)], "0.08333 = 1/12"),
        ([(CONV, 1.23456789)], "1.23457"),
    ],
)
def test_the_simplest_expression(pairs, text):
    assert next(common(answers(*pairs), SPEC)).text == text


def test_what_differs_by_operation_has_an_expression_or_none():
    other = replace(CONV, in_channels=4)
    pairs = answers((CONV, 144**-0.5), (other, 36**-0.5))
    factor = next(common(pairs, SPEC))
    assert factor.text == "1/√fan-in, such as 1/√144 = 0.08333"
    assert factor.of(other) == pytest.approx(1 / 6)
    assert not list(common(answers((CONV, 1.1), (other, 1.3)), SPEC))
