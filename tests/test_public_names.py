"""Every name of nfspec's that the README and the documents use exists, at the path they give."""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest

import nfspec

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
FOLDERS = {  # the longest first
    "nfspec.backends": ROOT / "backends",
    "nfspec.benchmarks": ROOT / "benchmarks",
    "nfspec.conformance": ROOT / "conformance",
    "nfspec": ROOT / "nfspec",
}
# What the README and the first pages use: users' code breaks if one of these goes.
FIRST = (
    "README.md",
    *(f"docs/{name}.md" for name in ("models", "training", "photos", "kit", "commands")),
)
PROMISED = [
    "agc",
    "backends.callbacks.ClipFraction",
    "backends.jax.agc",
    "backends.preprocessing.Preprocess",
    "backends.register",
    "backends.tensorflow.agc",
    "backends.torch.agc",
    "compile",
    "conformance",
    "conformance.Settings",
    "conformance.check",
    "conformance.conform",
    "conformance.subjects",
    "count",
    "embed",
    "fold",
    "groups",
    "init",
    "load",
    "load_model",
    "names_of",
    "native",
    "output_stride",
    "params_of",
    "pretrained",
    "predict",
    "preprocess",
    "recipe",
    "reference.forward",
    "reference.train_step",
    "resolve",
    "sam",
    "training.options.Options",
    "training.session.train",
    "unfold",
    "variants",
    "weights.fit",
    "weights.from_deepmind",
    "weights.from_timm",
    "weights.load",
    "weights.save",
    "weights.to_timm",
]
FILES = {"nfspec.schema.json"}  # dotted, and not names
NAME = re.compile(r"(?<![\w./-])nfspec(?:\.[A-Za-z_]\w*)+")
IMPORT = re.compile(r"^from (nfspec[\w.]*) import ([\w, ]+)", re.M)


def used_in(text: str) -> set[str]:
    """Dotted names in code: blocks, and words between backticks."""
    code = "\n".join(re.findall(r"```\w*\n.*?```|`[^`\n]+`|^    .*$", text, re.S | re.M))
    imported = {
        f"{module}.{name.strip()}"
        for module, names in IMPORT.findall(code)
        for name in names.split(",")
    }
    return (set(NAME.findall(code)) | imported) - FILES


def file_of(module: str) -> Path | None:
    """The file of a module, or of a package's `__init__`; None if there is no such module."""
    package = next(name for name in FOLDERS if f"{module}.".startswith(f"{name}."))
    path = FOLDERS[package].joinpath(*module.removeprefix(package).split(".")[1:])
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if file.is_file()), None)


@cache
def defined_in(file: Path) -> frozenset[str]:
    """Names that a module defines or imports, told without importing it, or a framework."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Import() | ast.ImportFrom():
                names |= {alias.asname or alias.name for alias in node.names}
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
    return frozenset(names)


def exists(name: str) -> bool:
    """Tell whether a dotted name is a module, or a name in one."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        file = file_of(".".join(parts[:n]))
        if file is not None:
            rest = parts[n:]
            known = nfspec.__all__ if parts[:n] == ["nfspec"] else defined_in(file)
            return not rest or rest[0] in known
    return False


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_names_in_the_documents_exist(document):
    used = used_in(document.read_text(encoding="utf-8"))
    assert [name for name in sorted(used) if not exists(name)] == []


@pytest.mark.parametrize("name", PROMISED)
def test_what_a_version_promises_is_there(name):
    assert exists(f"nfspec.{name}")


@pytest.mark.parametrize("name", PROMISED)
def test_a_promised_name_needs_no_import_but_nfspec(name, monkeypatch):
    """Modules that were imported elsewhere are hidden. Frameworks' own are among the tests of the
    frameworks."""
    if name.startswith("backends."):
        pytest.skip("needs Keras")
    at = nfspec
    for part in name.split("."):
        if f"{at.__name__}.{part}" in sys.modules:
            monkeypatch.delattr(at, part, raising=False)
        at = getattr(at, part)


def test_the_first_pages_use_promised_names_alone():
    used = set().union(*(used_in((ROOT / page).read_text(encoding="utf-8")) for page in FIRST))
    assert used == {f"nfspec.{name}" for name in PROMISED}


@pytest.mark.parametrize("name", nfspec.__all__)
def test_public_names_are_importable(name):
    assert getattr(nfspec, name) is not None


def test_a_name_that_is_gone_is_noticed():
    assert used_in("`nfspec.lode(x)`\n```python\nfrom nfspec.plan import Op, Gone\n```") == {
        "nfspec.lode",
        "nfspec.plan",
        "nfspec.plan.Op",
        "nfspec.plan.Gone",
    }
    assert exists("nfspec.plan.Op") and exists("nfspec.backends.jax")
    assert not exists("nfspec.lode") and not exists("nfspec.plan.Gone")
    assert not exists("nfspec.backends.gone.agc")
