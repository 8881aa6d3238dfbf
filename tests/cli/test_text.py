"""Numbers and tables as the commands print them."""

import pytest

from nfspec.cli.text import compact, table


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (736, "736"),
        (999, "999"),
        (1000, "1.00 k"),
        (9994, "9.99 k"),
        (9996, "10.0 k"),
        (99_960, "100 k"),
        (999_499, "999 k"),
        (999_500, "1.00 M"),
        (3_250_000, "3.25 M"),
        (71_489_576, "71.5 M"),
        (12_400_000_000, "12.4 G"),
        (5 * 10**16, "50000 T"),
    ],
)
def test_compact_keeps_three_digits_and_never_four(number, text):
    assert compact(number) == text


def test_table_aligns_each_column_and_leaves_no_trailing_blanks():
    rows = [("name", "n", "note"), ("a", "12", ""), ("bcdef", "3", "x")]
    assert table(rows, "<><") == ["name    n  note", "a      12", "bcdef   3  x"]
    assert table(rows, ">><", gap=" ") == [" name  n note", "    a 12", "bcdef  3 x"]
