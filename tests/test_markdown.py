"""Tables in Markdown."""

from nfspec.markdown import table


def test_a_table():
    assert table(["tap", "bound"], [["stem", "1"], ("pool", "2")]) == [
        "| tap | bound |",
        "| --- | --- |",
        "| stem | 1 |",
        "| pool | 2 |",
    ]


def test_a_table_without_rows():
    assert table(["", "a"], iter(())) == ["|  | a |", "| --- | --- |"]
