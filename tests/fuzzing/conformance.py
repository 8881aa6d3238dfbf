"""Readers of the conformance kit: deviations, cases, the journal of an interrupted run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from nfspec.conformance.cases.case import Case
from nfspec.conformance.faults import FAULTS
from nfspec.conformance.running import deviations
from nfspec.conformance.running.journal import Journal
from nfspec.conformance.running.kill import Kill, KillMatrix
from nfspec.conformance.running.settings import Settings

from fuzzing.mutation import by_bytes, by_pieces
from fuzzing.target import Target, asserted
from fuzzing.texts import JSON_PIECES, TOML_PIECES, other_values, tokens
from fuzzing.written import EVERYWHERE

ENTRY = """\
[[deviation]]
id = "torch-gelu-tail"
property = "ACT-03"
subject = "torch"
device = "cpu"
mode = "f32"
versions = ">=2.13,<2.14"
reason = "rounds where erf cancels"
link = "https://example.org/issues/1"
opened = 2026-11-24
expires = 2027-05-24
"""


def _deviations(path: Path) -> None:
    for entry in deviations.load(path):
        asserted(entry.expires > entry.opened, "an entry that expired before it was written")


def deviation() -> Target:
    """deviations.toml."""
    seeds = [ENTRY.encode(), (ENTRY + ENTRY.replace("tail", "head")).encode(), b"# none\n"]
    many = "".join(ENTRY.replace("tail", f"tail-{n}") for n in range(150))
    texts = {
        "many entries that are none": "[[deviation]]\n" * 4000,
        "dots": "a." * 20_000 + "a = 1\n",
        "a deep key": "deviation." + "a." * 250 + "b = 1\n",
        "versions without end": ENTRY.replace(">=2.13,<2.14", ">=1," * 10_000 + ">=1"),
        "a long link": ENTRY.replace("example.org", "e" * 50_000),
        "an escape in an id": ENTRY.replace("torch-gelu-tail", "\\u001b[2J"),
        "an escape in a key": '"\\u001b[2J" = 1\n',
        "a time for a date": ENTRY.replace("2026-11-24", "2026-11-24T07:00:00Z"),
        "a long key": f"{'k' * 60_000} = 1\n",
    }
    return Target(
        "deviations",
        "deviations.toml",
        _deviations,
        seeds,
        many.encode(),
        {key: value.encode() for key, value in texts.items()} | EVERYWHERE,
        by_pieces([tokens(seed) for seed in seeds], TOML_PIECES) | by_bytes(seeds),
    )


CONV: dict[str, Any] = {
    "type": "WSConv", "in_channels": 16, "out_channels": 4, "kernel": 3, "stride": 2, "groups": 2,
    "padding": "same", "eps": 1e-4, "eps_rule": "max", "ddof": 0, "dtype": "float32", "gamma": 1.0,
}  # fmt: skip
CLIP: dict[str, Any] = {
    "type": "Clip", "role": "kernel", "shape": [3, 3, 2, 4], "unit": "squeeze", "clipping": 0.01,
    "eps": 0.001,
}  # fmt: skip
CASES: list[dict[str, Any]] = [
    {"property": "WS-01", "op": CONV, "shape": [2, 7, 6, 16]},
    {"property": "AGC-01", "op": CLIP, "seed": 3},
    {"property": "NET-01", "spec": "nfnet-f0", "digest": "0" * 64, "block": "stages.0.blocks.0"},
]


def _case(path: Path) -> None:
    if not path.is_file():
        return  # a case is an argument of the command line
    case = Case.parse(path.read_text(encoding="utf-8", errors="surrogateescape"))
    asserted(Case.parse(case.line()) == case, "a case that its own line does not give again")
    case.rng()


def case() -> Target:
    """Cases, as `replay` takes them."""
    changed: dict[str, dict[str, Any]] = {
        "a shape that is not one": {"shape": [0, -1]},
        "a shape of 10^15": {"shape": [10**5, 10**5, 10**5, 16]},
        "a shape of 400 digits": {"shape": [10**400]},
        "a seed below 0": {"seed": -1},
        "a seed of 400 digits": {"seed": 10**400},
        "a property with an escape": {"property": "\x1b[2J"},
        "a property that is long": {"property": "x" * 50_000},
        "a spec with an escape": {"spec": "\x1b[2J"},
        "half of a pair": {"spec": "\ud800"},
        "an operation that is none": {"op": {"type": "os.system"}},
        "an operation of a list for a type": {"op": {"type": [1]}},
        "an operation that is text": {"op": "WSConv"},
        "no channels": {"op": {**CONV, "in_channels": 0}},
        "an eps that is no number": {"op": {**CONV, "eps": float("nan")}},
        "fields without end": {"op": {**CONV, **{f"f{n}": n for n in range(5000)}}},
        "an unknown field with an escape": {"\x1b[2J": 1},
    }
    hostile = {what: json.dumps(CASES[0] | change).encode() for what, change in changed.items()}
    seeds = [json.dumps(each).encode() for each in CASES]
    trees = [other_values(each) for each in CASES]
    inner = [
        other_values(op).map(lambda text: b'{"property":"WS-01","op":' + text + b"}")
        for op in (CONV, CLIP)
    ]
    return Target(
        "case",
        "case.json",
        _case,
        seeds,
        json.dumps(CASES[0] | {"shape": [1] * 5_000}).encode(),
        hostile | EVERYWHERE,
        st.one_of(*trees, *inner)
        | by_pieces([tokens(seed) for seed in seeds], JSON_PIECES)
        | by_bytes(seeds),
    )


ABOUT = {"seed": 0}
CELL: dict[str, Any] = {
    "property": "WS-01",
    "column": "torch/cpu/f32",
    "verdict": "pass",
    "cases": 3,
    "median": 0.1,
    "worst": 0.2,
    "histogram": [0, 3] + [0] * 16,
    "worst_case": CASES[0],
    "message": "",
    "coverage": {"normal": 3},
    "seconds": 0.5,
}


def _journal(path: Path) -> None:
    for cell in Journal(path.parent, ABOUT, resume=True).cells:
        asserted(isinstance(cell.property, str) and isinstance(cell.verdict, str), "no cell")
        asserted(isinstance(cell.median, float) and isinstance(cell.cases, int), "no numbers")
        asserted(cell.worst_case is None or Case.parse(cell.worst_case), "no case")
        asserted(isinstance(cell.message, str) and isinstance(cell.coverage, dict), "no words")


def journal() -> Target:
    """The journal that `conform --resume` reads."""
    first, line = json.dumps({"run": ABOUT}).encode(), json.dumps({"cell": CELL}).encode()
    seeds = [b"\n".join([first, *[line] * n, b""]) for n in range(3)]
    hostile = {what: first + b"\n" + bad + b"\n" + line for what, bad in EVERYWHERE.items()}
    hostile |= {f"first: {what}": bad + b"\n" + line + b"\n" for what, bad in EVERYWHERE.items()}
    hostile["a cell without anything"] = first + b'\n{"cell":{}}\n'
    hostile["a cell that is none"] = first + b'\n{"cell":5}\n'
    hostile["a verdict that is none"] = first + b"\n" + line.replace(b'"pass"', b"[5]") + b"\n"
    hostile["a median that is none"] = first + b"\n" + line.replace(b"0.1", b'"x"') + b"\n"
    cells = other_values(CELL).map(lambda text: b'{"cell":' + text + b"}")
    lined = st.lists(cells | other_values({"cell": CELL}), max_size=3)
    return Target(
        "journal",
        "journal.jsonl",
        _journal,
        seeds,
        b"\n".join([first, *[line] * 1000, b""]),
        hostile,
        lined.map(lambda lines: b"\n".join([first, *lines, b""]))
        | by_pieces([tokens(seed) for seed in seeds], JSON_PIECES)
        | by_bytes(seeds),
        writes=True,
    )


SETTINGS = Settings()
FAULT = next(iter(FAULTS))
COLUMN = "torch/cpu/f32"
MATRIX: dict[str, Any] = {
    "schema": "nfspec-faults/1",
    "settings": asdict(SETTINGS),
    "facts": {COLUMN: {"version": "2"}},
    "kills": {FAULT: {COLUMN: asdict(Kill("WS-01", 2.0, 3, CASES[0]))}},
    "witnesses": {"WS-01": {COLUMN: FAULT}},
    "limits": [],
}


def _faults(path: Path) -> None:
    matrix = KillMatrix.read(path, SETTINGS)
    asserted(isinstance(matrix.survivors, list) and matrix.idle == [], "no kills")


def fault_matrix() -> Target:
    """faults.json, as `conform --faults --resume` reads it."""
    changed = {
        "kills of nothing": {"kills": {"no-such-fault": {}}},
        "a ratio that is none": {"kills": {FAULT: {COLUMN: {"ratio": "x"}}}},
        "kills that are none": {"kills": 5},
        "other settings": {"settings": {"seed": 1}},
    }
    seed = json.dumps(MATRIX).encode()
    hostile = {what: json.dumps(MATRIX | change).encode() for what, change in changed.items()}
    return Target(
        "faults",
        "faults.json",
        _faults,
        [seed],
        json.dumps(MATRIX | {"facts": {f"c{n}": {} for n in range(3_000)}}).encode(),
        hostile | EVERYWHERE,
        other_values(MATRIX) | by_pieces([tokens(seed)], JSON_PIECES) | by_bytes([seed]),
    )
