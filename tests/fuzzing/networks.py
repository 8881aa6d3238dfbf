"""The networks whose files are fuzzed: a small one, and one that takes the longest to read."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import nfspec
from nfspec.weights.checking import Float32

SMALL = """\
schema = "nfspec/1"
name = "small"
extends = "nfnet-f0"
source = "a test"
[input]
train = 16
test = 16
[stem]
width = [4, 4, 4, 4]
[stages]
depth = [1, 1]
width = [8, 8]
stride = [1, 2]
group_width = 4
attention = "se"
[head]
classes = 2
"""
LARGE = SMALL.replace("depth = [1, 1]", "depth = [80, 80]")
BORDER = 300_000  # bytes of a file of weights; a larger one is of the large network


@cache
def plan(text: str) -> nfspec.Plan:
    """The network of a spec."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.toml"
        path.write_text(text)
        return nfspec.resolve(nfspec.load(path))


@cache
def params(text: str) -> dict[str, Float32]:
    """Its initial weights."""
    return nfspec.init(plan(text), seed=0)


def plan_of_file(path: Path) -> nfspec.Plan:
    """The network that a file of weights is read for."""
    large = path.is_file() and path.stat().st_size > BORDER
    return plan(LARGE if large else SMALL)
