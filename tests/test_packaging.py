"""pyproject.toml lists every package, which `package-dir` makes necessary, and every data file."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

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


# What is tested with requirements.lock alone, or stands for no package that is imported.
NEWER = {"coreml", "executorch", "int8", "litert", "demo", "test", "slow"}


def test_the_least_versions_are_those_of_the_oldest_lock():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {k: v for k, v in project["optional-dependencies"].items() if k not in NEWER}
    lines = (ROOT / "requirements-oldest.lock").read_text().splitlines()
    locked = {r.name.lower().replace("_", "-"): r for r in map(Requirement, lines[1:])}
    stated = [Requirement(line) for line in sum(extras.values(), project["dependencies"])]
    for least in (r for r in stated if r.marker is None or r.marker.evaluate()):
        (bound,) = least.specifier
        (pin,) = locked[least.name.lower().replace("_", "-")].specifier
        assert bound.operator == ">=" and pin.operator == "==", least
        assert Version(bound.version) == Version(pin.version), f"{least}, but {pin} was tested"
