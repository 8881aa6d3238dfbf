"""Files that are no TOML, no text, or too much: each with the whole line it is told in, quickly."""

import time
from pathlib import Path

import pytest

from nfspec.language.reading import MAX_BYTES, read_layer

from specs import HEAD, complaints, write

DEEP = "nested more than 8 deep [SPEC-LIMIT]"
TWICE = "not TOML: a key or table is written twice [SPEC-TOML]"

# What stands from line 5 on, and the line of the error after `x.toml:`.
TEXTS = {
    "[stages\n": "5:8: not TOML: expected ']' at the end of a table declaration [SPEC-TOML]",
    "[head]\nclasses =\n": "6:10: not TOML: invalid value; a string needs quotes [SPEC-TOML]",
    "[activation]\nkind = relu\n": "6:8: not TOML: invalid value; a string needs quotes "
    "[SPEC-TOML]",
    "[head]\nclasses = 1\nclasses = 2\n": f"7:12: {TWICE}",
    "[head]\nclasses = 1\n[head]\n": '7:6: not TOML: cannot declare "head" twice [SPEC-TOML]',
    "[a.b]\n[a.b]\n": '6:5: not TOML: cannot declare "a.b" twice [SPEC-TOML]',
    "x = {a = 1, a = 2}\n": "5:18: not TOML: duplicate inline table key 'a' [SPEC-TOML]",
    'x = "': "5:6: not TOML: unterminated string [SPEC-TOML]",
    "x = [1\n2": "6:1: not TOML: unclosed array [SPEC-TOML]",
    "x = '\x00'": "5:6: not TOML: found invalid character '\\x00' [SPEC-TOML]",
    "x = 1\ry = 2": "5:6: not TOML: expected newline or end of document after a statement "
    "[SPEC-TOML]",
    "d = 2021-02-31": "5:5: not TOML: invalid date or datetime [SPEC-TOML]",
    f"[head]\nclasses = {'9' * 4301}\n": "6:11: a number of too many digits [SPEC-LIMIT]",
    f"[a]\n{'a.' * 257}a = 1\n": "6:1: more than 256 dots in one line; break the line up "
    "[SPEC-LIMIT]",
    f"x = {'[' * 8}1{']' * 8}\n": f"5:13: x{'[0]' * 8}: {DEEP}",
    "a.b.c.d.e.f.g.h.i = 1\n": f"5:1: a.b.c.d.e.f.g.h.i: {DEEP}",
    "[[a.b.c.d]]\nx = {y = {z = {w = 1}}}\n": f"6:16: a.b.c.d[0].x.y.z.w: {DEEP}",
}
WHOLE = {
    'schema = "nfspec/2"\nname = 3': '1:1: schema: this release reads "nfspec/1" only; '
    'found "nfspec/2" [SPEC-SCHEMA]',
    "schema = 1": '1:1: schema: this release reads "nfspec/1" only; found 1 [SPEC-SCHEMA]',
    f"\nschema = 0x{'f' * 10_000}": '2:1: schema: this release reads "nfspec/1" only; found a '
    "whole number of about 12041 digits [SPEC-SCHEMA]",
    b'# \xc3\xa9\n# \xc3\xa9 \xff"': "2:5: not UTF-8 text [SPEC-READ]",
    b"\xef\xbb\xbf" + HEAD.encode(): "1:1: begins with a byte order mark; save it as UTF-8 without "
    "one [SPEC-READ]",
    HEAD.encode("utf-16"): "1:1: not UTF-8 text [SPEC-READ]",
}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("text", TEXTS, ids=[text[:40] for text in TEXTS])
def test_a_bad_text(text):
    assert complaints(write(HEAD + text)) == [f"x.toml:{TEXTS[text]}"]


@pytest.mark.parametrize("text", WHOLE, ids=[text[:20] for text in WHOLE])
def test_a_bad_file(text):
    assert complaints(write(text)) == [f"x.toml:{WHOLE[text]}"]


def test_files_that_cannot_be_read():
    Path("folder.toml").mkdir()
    write(HEAD + "#" * (MAX_BYTES + 1 - len(HEAD)))
    expected = {
        "none.toml": "none.toml: cannot be read: No such file or directory [SPEC-READ]",
        "x.toml/y.toml": "x.toml/y.toml: cannot be read: Not a directory [SPEC-READ]",
        "folder.toml": "folder.toml: cannot be read: a folder, where a regular file was expected "
        "[SPEC-READ]",
        "a\0b.toml": r"a\x00b.toml: cannot be read: a null byte in its name [SPEC-READ]",
        "\udcff.toml": r"\udcff.toml: cannot be read: No such file or directory [SPEC-READ]",
        "x.toml": "x.toml: longer than 65536 bytes, no spec needs that [SPEC-LIMIT]",
    }
    assert {source: "\n".join(complaints(source)) for source in expected} == expected


def test_a_file_of_the_largest_size_is_read():
    assert complaints(write(HEAD + "#" * (MAX_BYTES - len(HEAD)))) == []


def test_brackets_without_end_are_too_deep():
    assert complaints(write(f"{HEAD}x = {'[' * 60_000}")) == [f"x.toml: {DEEP}"]


def test_a_problem_is_placed_at_the_nearest_thing_around_it():
    layer = read_layer(Path(write("\n[stages]\ndepth = [1, 2]\n")), "here", builtin=False)

    def place(*path):
        problem = layer.problem("CODE", path, "message")
        return problem.file, problem.line, problem.column

    assert place("stages", "depth", 1) == ("here", 3, 13)
    assert place("stages", "depth", 2) == ("here", 3, 1)
    assert place("stages", "width") == ("here", 2, 1)
    assert place("head", "classes") == ("here", 1, 1)


def many(unit, size=65_000):
    return unit * (size // len(unit))


def numbered(form, size=64_000):
    return "".join(form.format(n) for n in range(size // len(form.format(10_000))))


MANY_BLOCKS = "[stages]\ndepth = [500, 500, 500, 500]\n"
HOSTILE = {
    "brackets": many("["),
    "bracket pairs": f"x = {many('[', 30_000)}{many(']', 30_000)}",
    "inline tables": f"x = {many('{a=')}",
    "dotted key": many("a.") + "a = 1",
    "dotted headers": numbered("[" + "a." * 250 + "b{}]\n"),
    "dotted keys": numbered("a." * 250 + "b{} = 1\n"),
    "dotted keys, not deep": numbered("a.a.a.a.a.a.b{}=1\n"),
    "quotes": many('"'),
    "apostrophes": many("'"),
    "quoted value": f"x = {many(chr(34))}",
    "escapes": 'x = "' + many("\\\\", 60_000) + '"',
    "quotes in a text": 'x = """' + many('a"', 60_000) + '"""',
    "headers": numbered("[a{}]\n"),
    "the same headers": many("[a]\n"),
    "arrays of tables": many("[[x]]\n"),
    "arrays of tables in another": "[[x]]\n" + many("[[x.y]]\n"),
    "tables of an array's tables": numbered("[[x]]\n[x.a{}]\n"),
    "keys": numbered("a{}=1\n"),
    "quoted keys": numbered('"a{}"=1\n'),
    "a long key": many("k") + " = 1",
    "keys near a known one": "[stages]\n" + numbered("depth{}=1\n"),
    "an array": f"x = [{many('1,')}]",
    "empty arrays": f"x = [{many('[],')}]",
    "empty betas": f"[stages]\nbeta = [{many('[],')}]",
    "numbers for names": f"[agc]\nexclude = [{many('1,')}]",
    "names": "[agc.names]\n" + numbered("a{}=-1\n"),
    "names of nothing": "[agc.names]\n" + numbered("a{}=1\n"),
    "patterns of nothing": "[agc.names]\n" + numbered("'*s*e*d*{}'=1\n", 7_000),
    "many patterns for blocks": MANY_BLOCKS + "[agc]\nexclude = [" + many("'*d*c*s',", 8_000) + "]",
    "a long pattern for blocks": f"{MANY_BLOCKS}[agc]\nexclude = ['{many('*0', 60_000)}']",
    "line ends": many("\r\n"),
    "comments": many("#\n"),
    "digits": f"x = {many('9')}",
    "digits with underscores": f"x = {many('9_')}9",
    "hexadecimal digits": f"[head]\nclasses = 0x{many('f')}",
    "a fraction": f"x = 1.{many('9')}",
    "many blocks": "[stages]\ndepth = [2000, 2000, 2000, 2000]",
    "most blocks": "[stages]\ndepth = [500, 500, 500, 500]\nwidth_factor = 1000.0",
}


def timed(source):
    """The complaints about a file, and the seconds of processor time that they took."""
    start = time.process_time()
    lines = complaints(source)
    return lines, time.process_time() - start


@pytest.fixture(scope="module")
def long_enough(tmp_path_factory):
    """Seconds: ten times what the largest network of a spec takes. What grows with the square of a
    file's length takes a hundred times as long."""
    path = tmp_path_factory.mktemp("largest") / "x.toml"
    path.write_text(HEAD + MANY_BLOCKS)
    return 10 * timed(path)[1]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_takes_no_longer_than_a_large_network(name, long_enough):
    lines, seconds = timed(write((HEAD + HOSTILE[name])[:MAX_BYTES]))
    assert seconds < long_enough
    assert len(lines) <= 101
    assert max(map(len, lines), default=0) < 1_000


@pytest.mark.parametrize("size", [3_500, 60_000])
def test_a_hostile_chain_takes_no_longer_than_a_large_network(size, long_enough):
    for n in range(14):
        names = numbered(f"a{n}b{{}}=1\n", size)
        text = f"head.classes = 0\nagc.roles.gain = {-n}\n[agc.names]\nworst = {-n}\n{names}"
        parent = "nfnet-f0" if n == 13 else f"{n + 1}.toml"
        write(HEAD.replace("nfnet-f0", parent) + text, f"{n}.toml")
    lines, seconds = timed("0.toml")
    assert seconds < long_enough
    lines = [line for line in lines if "[SPEC-AGC]" not in line]  # the names are of no parameter
    assert lines[3:] == ["1.toml: longer than 65536 bytes with what extends it [SPEC-LIMIT]"] * (
        size > 10_000
    )
