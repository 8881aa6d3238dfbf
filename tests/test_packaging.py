"""pyproject.toml lists every package, which `package-dir` makes necessary, and every data file."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_package_is_listed():
    found = set()
    for package, folder in SETUP["package-dir"].items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT / folder).parts
            found.add(".".join((package, *inner)))
    assert set(SETUP["packages"]) == found


def test_every_data_file_is_listed():
    patterns = SETUP["package-data"]["nfspec"]
    listed = {path for pattern in patterns for path in (ROOT / "nfspec").glob(pattern)}
    files = {path for path in (ROOT / "nfspec").rglob("[!.]*.*") if path.is_file()}
    caches = {
        path for path in files if any(p.startswith(".") for p in path.relative_to(ROOT).parts)
    }
    assert listed == {path for path in files - caches if path.suffix not in (".py", ".pyc")}
