"""Readers of specs, and of what stands in the folder of a training."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

import nfspec
from nfspec.data.classes import read_classes
from nfspec.errors import InputError
from nfspec.language.loader import VARIANTS
from nfspec.language.template import resolved
from nfspec.training import logs
from nfspec.training.folders import read_facts
from nfspec.training.recipes import read_recipe

from fuzzing.mutation import by_bytes, by_pieces
from fuzzing.networks import SMALL
from fuzzing.target import Target, asserted
from fuzzing.texts import JSON_PIECES, TOML_PIECES, other_values, tokens

DEEP = {
    "deep lists": "[" * 60_000,
    "deep tables": '{"a":' * 12_000,
    "deep inline": "x = " + "{a=" * 20_000,
}
NUMBERS = {"a number of 5,000 digits": "9" * 5000, "five": "5", "null": "null", "true": "true"}
ODD = {
    "nothing": "", "a mark of byte order": "\ufeff{}", "a null byte": "\x00",
    "an escape": "\x1b[2J", "not a number": "NaN", "infinite": "1e999",
    "half of a pair": '"\\ud800"',
}  # fmt: skip
EVERYWHERE = {key: value.encode() for key, value in (DEEP | NUMBERS | ODD).items()}


def _spec(path: Path) -> None:
    spec = nfspec.load(path)
    plan = nfspec.resolve(spec)
    asserted(plan.parameters, "a network without parameters")
    asserted(tomllib.loads("\n".join(resolved(spec))), "a spec that cannot be written again")


def _classes(path: Path) -> None:
    found = read_classes(path, 3)
    asserted(len(found.names) == 3 and not found.synsets, "not the names of three classes")


def classes() -> Target:
    """Files of names of classes."""
    seed = "cat\nblue whale\nÉtoile, with a comma\n".encode()
    hostile = EVERYWHERE | {
        "marks": b"\xef\xbb\xbfa\r\nb\r\nc\r\n\r\n", "other breaks": "a\u2028b\x85c".encode(),
        "bytes": bytes(range(256)), "long": b"a" * 2**20 + b"\nb\nc",
    }  # fmt: skip
    largest = b"a" * 2**24 + b"\nb\nc\n"
    return Target("classes", "names.txt", _classes, [seed], largest, hostile, by_bytes([seed]))


def spec() -> Target:
    """Specs."""
    f0 = (VARIANTS / "nfnet-f0.toml").read_bytes()
    whole = "\n".join(resolved(nfspec.load("nfnet-f0"))).encode()
    seeds = [SMALL.encode(), f0, whole]
    head = SMALL.replace("[input]", "{}[input]").partition("{}")
    numbered = "".join(f"a{n}b=1\n" for n in range(5000))
    texts = {
        "keys": SMALL + numbered,
        "quoted keys": SMALL + "".join(f'"\x1b{n}"=1\n' for n in range(100)),
        "dots": head[0] + "a." * 20_000 + "a = 1\n",
        "patterns": SMALL + "[agc]\nexclude = [" + "'*d*c*s'," * 5_000 + "]\n",
        "names that nest": SMALL + "[agc.names]\n'*.a.*' = 1\n'\\u001b' = 2\n",
        "a spec that extends itself": SMALL.replace("nfnet-f0", "x.toml"),
        "a spec that extends a folder": SMALL.replace("nfnet-f0", "../../../../etc/passwd.toml"),
        "a spec that extends a device": SMALL.replace("nfnet-f0", "/dev/zero.toml"),
        "10^10 parameters": SMALL.replace("[8, 8]", "[65536, 65536]"),
        "all pixels": SMALL.replace("= 16", "= 8192"),
        "a number of 400 digits": SMALL.replace("classes = 2", "classes = " + "9" * 400),
        "not a number": SMALL + "dropout = nan\n",
        "infinite": SMALL + "dropout = inf\n",
    }
    hostile = {key: value.encode()[:70_000] for key, value in texts.items()} | EVERYWHERE
    return Target(
        "spec",
        "x.toml",
        _spec,
        seeds,
        LARGEST_SPEC,
        hostile,
        by_pieces([tokens(seed) for seed in seeds], TOML_PIECES) | by_bytes(seeds),
    )


LARGEST_SPEC = SMALL.replace("[1, 1]", "[1000, 1000]").encode()


def _recipe(path: Path) -> None:
    layer = read_recipe(path)
    spec = nfspec.load("nfnet-nano", [layer])
    asserted(nfspec.resolve(spec).recipe is not None, "no recipe")
    again = tomllib.loads("\n".join(resolved(spec)))
    asserted(set(again) <= {"schema", *type(spec).model_fields}, "fields that no spec has")


def recipe() -> Target:
    """Files for `train --recipe`."""
    seeds = [
        b"[recipe]\nlearning_rate = 0.1\nepochs = 3\n",
        b"learning_rate = 0.1\nbatch = 16\n",
        b"[recipe]\nema_decay = 0.9\n[agc]\nclipping = 0.02\n[head]\ndropout = 0.1\n",
    ]
    hostile = EVERYWHERE | {
        "a name": b'name = "x\\n[head]"\n[recipe]\nepochs = 3\n',
        "a parent": b'extends = "nfnet-f0"\n',
        "values twice": b"epochs = 3\n[recipe]\nepochs = 3\n",
        "a table of that name": b"recipe = 3\nepochs = 3\n",
        "no steps": b"[recipe]\nepochs = 0\nbatch = 0\nimages = 0\n",
        "not a number": b"[recipe]\nlearning_rate = nan\n",
    }
    return Target(
        "recipe",
        "x.toml",
        _recipe,
        seeds,
        b"[recipe]\nepochs = 3\n" + b"# none\n" * 9000,
        hostile,
        by_pieces([tokens(seed) for seed in seeds], TOML_PIECES) | by_bytes(seeds),
    )


def _facts(path: Path) -> None:
    facts = read_facts(path.parent)
    asserted(0 < facts.held_out < 1 and facts.seed >= 0, "facts of no training")
    asserted(all(isinstance(name, str) and name for name in facts.classes), "a class without name")
    asserted(len(set(facts.classes)) == len(facts.classes), "a class twice")


FACTS: dict[str, Any] = {
    "nfspec": nfspec.__version__, "variant": "nfnet-nano", "data": "digits", "backend": "torch",
    "seed": 0, "held_out": 0.2, "classes": ["a", "b"],
}  # fmt: skip


def run_json() -> Target:
    """run.json, as `evaluate` reads it."""
    seeds = [json.dumps(FACTS).encode(), json.dumps(FACTS | {"versions": {"torch": "2"}}).encode()]
    changed = {
        "held_out below 0": {"held_out": -5},
        "held_out of everything": {"held_out": 1.0},
        "held_out as text": {"held_out": "0.2"},
        "classes that are numbers": {"classes": [1, 2]},
        "classes that are a text": {"classes": "ab"},
        "a class twice": {"classes": ["a", "a"]},
        "no classes": {"classes": []},
        "a class with an escape": {"classes": ["\x1b[2J", "b"]},
        "a list for the data": {"data": [1]},
        "an unknown backend": {"backend": "\x1b[2J"},
        "a negative seed": {"seed": -1},
        "a seed of 400 digits": {"seed": 10**400},
        "a seed that is no whole number": {"seed": 0.5},
        "many classes": {"classes": [str(n) for n in range(20_000)]},
    }
    hostile = {what: json.dumps(FACTS | change).encode() for what, change in changed.items()}
    return Target(
        "run-json",
        "run.json",
        _facts,
        seeds,
        json.dumps(FACTS | {"classes": [f"class {n}" for n in range(5_000)]}).encode(),
        hostile | EVERYWHERE,
        other_values(FACTS)
        | by_pieces([tokens(seed) for seed in seeds], JSON_PIECES)
        | by_bytes(seeds),
    )


STEP: dict[str, Any] = {
    "step": 1, "epoch": 0.5, "loss": 2.3, "accuracy": 0.1, "rate": 0.1, "images_per_second": 100.0,
    "clip_fraction": 0.5, "clip_fraction_of": {"stem": 0.5, "stages.0": 0.2},
}  # fmt: skip
EVALUATION: dict[str, Any] = {
    "step": 1, "epoch": 0.5, "top1": 0.5, "top5": 0.9, "held_out_loss": 1.0, "held_out_images": 10,
}  # fmt: skip


def _log(path: Path) -> None:
    said: list[str] = []
    try:
        entries = logs.read(path, said.append)
    except OSError as error:  # which every command prints so
        raise InputError(f"{error.filename}: {error.strerror}") from None
    for entry in entries:
        asserted(isinstance(entry["step"], int) and entry["step"] >= 0, "a step that is none")
        names = [
            name for name in (*STEP, *EVALUATION) if name in entry and name != "clip_fraction_of"
        ]
        asserted({"epoch"} < set(names), "an entry that says nothing")
        asserted(all(math.isfinite(entry[name]) for name in names), "a number that is none")
        asserted(all(map(math.isfinite, entry.get("clip_fraction_of", {}).values())), "no number")
    asserted(all(text.isprintable() and len(text) < 500 for text in said), "a word that is none")


def log() -> Target:
    """log.jsonl, as `plot` and `train --resume` read it."""
    lines = [json.dumps(STEP), json.dumps(EVALUATION), json.dumps({**STEP, "step": 2})]
    seeds = ["".join(f"{line}\n" for line in lines[:n]).encode() for n in (1, 2, 3)]
    hostile = {key: value + b"\n" + seeds[2] for key, value in EVERYWHERE.items()}
    without = [{k: v for k, v in STEP.items() if k != left_out} for left_out in STEP]
    hostile["entries without a field"] = "".join(json.dumps(e) + "\n" for e in without).encode()
    hostile["100,000 lines that are none"] = b"\n" * 100_000
    pieces = [tokens(seed) for seed in seeds]
    lined = st.lists(other_values(STEP) | other_values(EVALUATION), max_size=3).map(b"\n".join)
    return Target(
        "log",
        "log.jsonl",
        _log,
        seeds,
        seeds[2] * 2000,
        hostile,
        lined | by_pieces(pieces, JSON_PIECES) | by_bytes(seeds),
    )
