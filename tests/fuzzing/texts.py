"""TOML and JSON, token by token."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

_TOKENS = re.compile(rb'\s+|"(?:\\.|[^"\\])*"|[A-Za-z0-9_.+-]+|.', re.DOTALL)


def tokens(data: bytes) -> list[bytes]:
    """A text of JSON or TOML taken apart: strings, words and numbers, marks, space."""
    return _TOKENS.findall(data)


STRANGE_WORDS = (
    "0", "-0", "1", "-1", "2", "0.5", "-0.5", "1e308", "1e999", "-1e999", "1e-999", "1" * 400,
    "9" * 4400, "0.1" + "0" * 400, "2147483648", "9223372036854775807", "9223372036854775808",
    "18446744073709551616", "1.5", "true", "false", '""', '"x"', '"\\u0000"', '"\\u001b[2J"',
    '"\\ud800"', '"\\n"', '"../../x"', '"/etc/passwd"', '"' + "x" * 3000 + '"', '"\u202e"', '"*"',
    '"[a-"', "[]", "[[]]", "[1,2]", '["a"]', "{}", "[" * 50, "]" * 50, "[" * 3000, ",", ":", "=",
    "\n", "\r\n", "\x00", "\x1b", "#",
)  # fmt: skip
JSON_ONLY = (
    "null", "NaN", "Infinity", "-Infinity", '{"a":' * 3000, '{"":{}}', '{"a":1,"a":2}', "\ufeff",
    '{"type":"WSConv"}', '"nfspec"', '"train"', '"jax"', '"digits"',
)  # fmt: skip
TOML_ONLY = (
    "nan", "inf", "-inf", "0x" + "f" * 300, "0o7", "0b1", "1_000", "2026-11-24",
    "2026-11-24T07:00:00Z", "07:00:00", "'x'", "'''", '"""', "[a]\n", "[[a]]\n", "[[deviation]]\n",
    "[stages]\n", "[agc.names]\n", "[recipe]\n", "a.b.c", "a." * 60 + "a", "extends", '"nfnet-f0"',
    '"nfnet-f9"', '"x.toml"', "schema", '"nfspec/2"', '"deepmind"', '"auto"', '"none"', "{a=1}",
    "{a=" * 2000, '"gelu_erf"', '"floor"', "1e400", "65536", "8192", "2000", "[500,500,500,500]",
    '"\\U00110000"', '"\\q"',
)  # fmt: skip

JSON_PIECES = st.sampled_from([word.encode() for word in STRANGE_WORDS + JSON_ONLY])
TOML_PIECES = st.sampled_from([word.encode() for word in STRANGE_WORDS + TOML_ONLY])

_SCALARS: SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from((-1, 0, 1, 10**400, 1e308, float("nan"), float("inf"), "\x1b[2J", "\ud800",
    "\u202e")),
)  # fmt: skip
TREES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)


def other_values(valid: dict[str, Any]) -> SearchStrategy[bytes]:
    """JSON objects of known fields, some with other values, some left out, some of other names."""
    fields = {key: st.just(value) | TREES | st.just(...) for key, value in valid.items()}

    def made(texts: dict[str, Any], more: dict[str, Any]) -> bytes:
        kept = {key: value for key, value in texts.items() if value is not ...}
        return json.dumps(kept | more).encode()

    more = st.just({}) | st.dictionaries(st.text(max_size=8), TREES, max_size=2)
    return st.builds(made, st.fixed_dictionaries(fields), more) | TREES.map(
        lambda tree: json.dumps(tree).encode()
    )
