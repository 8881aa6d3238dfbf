"""pyproject.toml lists every package, which `package-dir` makes necessary, and every data file."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_package_is_listed():
    packages = set()
    for package, folder in SETUP["package-dir"].items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT / folder).parts
            packages.add(".".join((package, *inner)))
    assert set(SETUP["packages"]) == packages


def folder_of(package: str) -> Path:
    """The folder of a package: the part of its name in `package-dir`, and the rest below it."""
    parts = package.split(".")
    known = [n for n in range(1, len(parts) + 1) if ".".join(parts[:n]) in SETUP["package-dir"]]
    base = SETUP["package-dir"][".".join(parts[: known[-1]])]
    return ROOT.joinpath(base, *parts[known[-1] :])


def test_every_data_file_is_listed():
    listed = {
        path
        for package, patterns in SETUP["package-data"].items()
        for pattern in patterns
        for path in folder_of(package).glob(pattern)
    }
    roots = ("nfspec", "backends", "conformance")
    files = {path for root in roots for path in (ROOT / root).rglob("[!.]*.*") if path.is_file()}
    # Reports, and adapters of implementations from elsewhere, are for readers of the checkout.
    left_out = {ROOT / "conformance" / name for name in ("reports", "strangers")}
    files = {path for path in files if not left_out & set(path.parents)}
    caches = {
        path for path in files if any(p.startswith(".") for p in path.relative_to(ROOT).parts)
    }
    assert listed == {path for path in files - caches if path.suffix not in (".py", ".pyc")}
