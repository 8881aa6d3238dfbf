"""docs/generated: sources to read, as `nfspec generate` writes them.

After a change of a template, `python -m nfspec.generation.documents` writes them.
"""

from __future__ import annotations

from pathlib import Path

from nfspec.files import write
from nfspec.generation.source import generate
from nfspec.generation.targets import TARGETS
from nfspec.language.loader import load
from nfspec.plan.resolver import resolve
from nfspec.rewrites.folding import fold_plan

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "docs" / "generated"
MOTH = ROOT / "conformance" / "reports" / "moth.toml"
# Variant and target of each file.
SHOWN = [
    *(("nfnet-f0", target) for target in TARGETS),
    *((variant, "torch") for variant in ("nf-resnet-50", "timm/eca_nfnet_l0", MOTH)),
    (MOTH, "jax"),
]
FOLDED = ("torch", "jax")  # targets of NFNet-F0 for inference


def documents() -> dict[Path, str]:
    """Each file with its text."""
    texts = {}
    for variant, target in SHOWN:
        spec = load(variant)
        name = "".join(letter if letter.isalnum() else "_" for letter in spec.name)
        texts[FOLDER / f"{name}_{target}.py"] = generate(spec, to=target)
    folded = fold_plan(resolve(load("nfnet-f0")))
    for target in FOLDED:
        texts[FOLDER / f"nfnet_f0_folded_{target}.py"] = generate(folded, to=target)
    return texts


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in documents().items():
        write(path, text)
