"""Values and errors in the form that messages show."""

import pytest

from nfspec.wording import reason_of, sizes


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("first\nsecond"), "first"),
        (ValueError("\n  first"), "first"),
        (ValueError("x" * 900), "x" * 200),
        (KeyError(), "KeyError"),  # an error without a message says its kind
        (RuntimeError(" \n"), "RuntimeError"),
    ],
)
def test_the_reason_of_an_error_is_a_short_line(error, text):
    assert reason_of(error) == text


def test_one_size_is_no_sizes():
    assert [sizes(n) for n in (1, 2)] == ["1 size", "2 sizes"]
