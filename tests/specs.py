"""Spec files for tests, written into the current folder, which a test makes one of its own."""

from pathlib import Path

from nfspec.errors import SpecError
from nfspec.language.loader import load

# Four lines, so that what a test adds begins on line 5.
HEAD = 'schema = "nfspec/1"\nname = "x"\nsource = "own"\nextends = "nfnet-f0"\n'


def write(text: str | bytes, file: str = "x.toml") -> str:
    """Write a file as it is, line ends included, and return its name."""
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def complaints(source: str | Path) -> list[str]:
    """Lines of the error that loading a spec raises, one for each problem; none if it loads."""
    try:
        load(source)
    except SpecError as error:
        return str(error).split("\n")
    return []


# A network whose classifier has as many classes as inputs, so that it can be transposed unseen.
SQUARE_CLASSIFIER = {
    "stages.depth": [1, 2],
    "stages.width": [16, 24],
    "stages.stride": [1, 2],
    "stages.group_width": 4,
    "stages.attention": ["se", "none"],
    "stem.width": [4, 4, 8, 8],
    "head.conv": "none",
    "head.classes": 24,
}
