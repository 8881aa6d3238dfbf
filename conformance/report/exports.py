"""The page of exported files, each proved in its own runtime: `make reports-exports` writes it.

python -m nfspec.conformance.report.exports PROOF.json ... > EXPORTS.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from nfspec.markdown import table

TEXT = (
    "Each file was written by `nfspec export`, run in its own runtime in a process of its own, and "
    "its logits compared with the float64 reference of the network before folding: at six "
    "sizes of images, odd and even, where sizes are free, and else at the one that is named, for "
    "one image and for two. The distance is the largest of these. Core ML runs on Apple's systems "
    "alone; its programs are run by an interpreter in NumPy. `make reports-exports` writes this "
    "page."
)
HEAD = (
    "network",
    "format",
    "images",
    "runtime",
    "same",
    "size / weights",
    "nodes",
    "distance",
    "distance / bound",
)


def row(proof: dict[str, Any]) -> list[str]:
    """The cells of a file, from the JSON that `nfspec export --json` printed."""
    own = [each for each in proof["rows"] if each["runtime"] == proof["runtimes"][0]]
    worst = max(own, key=lambda each: (each["distance"] or 0.0) / each["bound"])
    sizes = {(each["height"], each["width"]) for each in own}
    height, width = next(iter(sizes))
    found = worst["distance"]
    return [
        proof["network"],
        proof["format"],
        "any" if len(sizes) > 1 else f"{height} x {width} px",
        proof["runtimes"][0],
        "yes" if proof["same"] else "NO",
        f"{proof['bytes'] / proof['weights_bytes']:.3f}",
        str(sum((proof["nodes"] or {}).values())),
        "none" if found is None else f"{found:.1e}",
        "none" if found is None else f"{found / worst['bound']:.2f}",
    ]


def page(proofs: list[dict[str, Any]]) -> str:
    """The page for several files, in the order given."""
    return "\n".join(["# Exported files, proved", "", TEXT, "", *table(HEAD, map(row, proofs)), ""])


if __name__ == "__main__":
    sys.stdout.write(page([json.loads(Path(name).read_text()) for name in sys.argv[1:]]))
