"""Positions of everything TOML can write, against texts whose positions are known."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfspec.language.positions import positions

DOCUMENT = """\
# "a" = 1
"a.b" = 1 # x = 2
'q"' . "é\\u0041" = [ 1, # ], [
  [2, 3],
  "x,]" ,
]
many = \"\"\"
a" "" = [\\\"""
\"\"\"
quotes = ''''q'''''
day = 1979-05-27 07:32:00
far = -1.5e-3
[ t . "u" ]
x = { y = 1, z.w = [ { k = 2 }, {} ] }
[[arr]]
n = true
[arr.sub]
p = ''
[[arr.in]]
q = 1
[[arr]]
[[arr.in]]
[[arr.in]]
q.r = 2
[t]
v = 1
"""
PLACES = {
    ("a.b",): (2, 1),
    ('q"',): (3, 1),
    ('q"', "éA"): (3, 1),
    ('q"', "éA", 0): (3, 22),
    ('q"', "éA", 1): (4, 3),
    ('q"', "éA", 1, 0): (4, 4),
    ('q"', "éA", 1, 1): (4, 7),
    ('q"', "éA", 2): (5, 3),
    ("many",): (7, 1),
    ("quotes",): (10, 1),
    ("day",): (11, 1),
    ("far",): (12, 1),
    ("t",): (25, 1),
    ("t", "u"): (13, 1),
    ("t", "u", "x"): (14, 1),
    ("t", "u", "x", "y"): (14, 7),
    ("t", "u", "x", "z"): (14, 14),
    ("t", "u", "x", "z", "w"): (14, 14),
    ("t", "u", "x", "z", "w", 0): (14, 22),
    ("t", "u", "x", "z", "w", 0, "k"): (14, 24),
    ("t", "u", "x", "z", "w", 1): (14, 33),
    ("arr",): (15, 1),
    ("arr", 0): (15, 1),
    ("arr", 0, "n"): (16, 1),
    ("arr", 0, "sub"): (17, 1),
    ("arr", 0, "sub", "p"): (18, 1),
    ("arr", 0, "in"): (19, 1),
    ("arr", 0, "in", 0): (19, 1),
    ("arr", 0, "in", 0, "q"): (20, 1),
    ("arr", 1): (21, 1),
    ("arr", 1, "in"): (22, 1),
    ("arr", 1, "in", 0): (22, 1),
    ("arr", 1, "in", 1): (23, 1),
    ("arr", 1, "in", 1, "q"): (24, 1),
    ("arr", 1, "in", 1, "q", "r"): (24, 1),
    ("t", "v"): (26, 1),
}


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_every_place_of_a_document_with_everything(line_end):
    assert positions(DOCUMENT.replace("\n", line_end)) == PLACES


def test_an_empty_text_has_no_places():
    assert positions("") == positions(" # only a comment") == {}


def paths_of(value, path=()):
    """Every path of a document and what is there, by what tomllib reads."""
    actual = {path: value} if path else {}
    items = value.items() if isinstance(value, dict) else []
    for key, item in enumerate(value) if isinstance(value, list) else items:
        actual |= paths_of(item, (*path, key))
    return actual


def test_the_document_above_has_no_more_paths_than_those():
    assert set(paths_of(tomllib.loads(DOCUMENT))) == set(PLACES)


BLANKS = st.sampled_from(["", " ", "\t "])
BREAKS = st.sampled_from(["", " ", "\n", "# ]}=[\n", "\r\n  "])
KEYS = ["a", "b-1", '"a"', "'b.c'", '"\\" ="', '""', '"é"', "3.x", "a.b.c", "a . b"]
SCALARS = [
    *("1", "-0.5", "inf", "true", '"]"', "'#'", "07:32:00", "1979-05-27 07:32:00"),
    *('"""\n"x"\\""""""', "''''\n''''", '"\\\\"', "'\\'"),
]


@st.composite
def values(draw, depth=2):
    kind = draw(st.integers(0, 3)) if depth else 0
    items = draw(st.lists(values(depth - 1), max_size=3)) if kind else []
    if kind == 1:
        parts = [draw(BREAKS) + item + draw(BREAKS) for item in items]
        return "[" + ",".join(parts) + draw(st.sampled_from([",", ""]) if items else BREAKS) + "]"
    if kind == 2:
        parts = [f"k{n}{draw(BLANKS)}={draw(BLANKS)}{item}" for n, item in enumerate(items)]
        return "{" + draw(BLANKS) + ", ".join(parts) + draw(BLANKS) + "}"
    return draw(st.sampled_from(SCALARS))


@st.composite
def statements(draw):
    key, blank = draw(st.sampled_from(KEYS)), draw(BLANKS)
    if draw(st.booleans()):
        return f"{blank}{key}{blank}={blank}{draw(values())}{blank}"
    opening, closing = draw(st.sampled_from([("[", "]"), ("[[", "]]")]))
    return f"{blank}{opening}{blank}{key}{blank}{closing}{blank}# c"


def stands_at(text, path, value):
    """Tell whether a text begins with the key or element of a path."""
    if isinstance(path[-1], str):
        return text.startswith(("[", "k", *KEYS))
    if isinstance(value, list | dict):
        return text.startswith("[" if isinstance(value, list) else ("{", "[["))
    return text.startswith(tuple(s for s in SCALARS if tomllib.loads(f"v={s}") == {"v": value}))


@settings(derandomize=True, max_examples=300)
@given(st.lists(statements(), max_size=8))
def test_every_path_of_any_document_has_its_place(lines):
    text = ""
    for line in lines:  # leave out what would make the document invalid, such as a key's second use
        try:
            tomllib.loads(text + line)
        except tomllib.TOMLDecodeError:
            continue
        text += line + "\n"
    actual, known = positions(text), paths_of(tomllib.loads(text))
    assert set(actual) == set(known)
    rows = text.split("\n")
    for path, (line, column) in actual.items():
        rest = "\n".join((rows[line - 1][column - 1 :], *rows[line:]))
        assert stands_at(rest, path, known[path]), (path, line, column)
