"""Imports: `nfspec` imports no framework, and rooms import one way, from floor to floor."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FRAMEWORKS = {"keras", "jax", "torch", "tensorflow"}
FOLDERS = {
    "nfspec": "nfspec",
    "nfspec.backends": "backends",
    "nfspec.conformance": "conformance",
    "nfspec.benchmarks": "benchmarks",
}
# Each room may import those before it. What is in none is the root: errors, files, wording and the
# like, which import no room.
ROOMS = [
    "nfspec.language",
    "nfspec.plan",
    "nfspec.weights",
    "nfspec.reference",
    "nfspec.rewrites",
    "nfspec.generation",
    "nfspec.data",
    "nfspec.cost",
    "nfspec.training",
    "nfspec.design",
    "nfspec.backends",
    "nfspec.conformance.cases",
    "nfspec.conformance.subjects",
    "nfspec.conformance.bounds",
    "nfspec.conformance.properties",
    "nfspec.conformance.faults",
    "nfspec.conformance.workers",
    "nfspec.conformance.running",
    "nfspec.conformance.report",
    "nfspec.conformance.conventions",
    "nfspec.conformance",
    "nfspec.benchmarks",
    "nfspec.cli",
]
# The doors: the few modules that open a higher room, where a call or a process asks for it. Their
# reasons are in CONTRIBUTING.md.
DOORS = {
    ("nfspec", "nfspec.conformance"),
    ("nfspec", "nfspec.data"),
    ("nfspec", "nfspec.generation"),
    ("nfspec", "nfspec.language"),
    ("nfspec", "nfspec.plan"),
    ("nfspec", "nfspec.design"),
    ("nfspec", "nfspec.reference"),
    ("nfspec", "nfspec.training"),
    ("nfspec", "nfspec.weights"),
    ("nfspec.__main__", "nfspec.cli"),
    ("nfspec.compilation", "nfspec.language"),
    ("nfspec.compilation", "nfspec.plan"),
    ("nfspec.compilation", "nfspec.rewrites"),
    ("nfspec.compilation", "nfspec.weights"),
    ("nfspec.compilation", "nfspec.backends"),
    ("nfspec.language.loader", "nfspec.plan"),
    ("nfspec.training.opening", "nfspec.backends"),
    ("nfspec.training.runs", "nfspec.backends"),
    ("nfspec.training.session", "nfspec.backends"),
    ("nfspec.weights.fitting", "nfspec.reference"),
}


def modules_after(program: str) -> set[str]:
    program += "\nimport sys; print(' '.join(sys.modules))"
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return set(output.stdout.split())


def test_importing_nfspec_imports_no_framework():
    loaded = modules_after("import nfspec")
    assert not loaded & {*FRAMEWORKS, "safetensors", "rich", "typer", "PIL", "matplotlib"}


def test_listing_the_variants_imports_no_framework():
    program = """
import sys
sys.argv = ["nfspec", "list"]
from nfspec.cli import main
try:
    main()
except SystemExit as done:
    assert not done.code
"""
    assert not modules_after(program) & FRAMEWORKS


def imported(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules() -> dict[str, Path]:
    """Every module of the four folders, with its file."""
    named = {}
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            named[".".join((package, *parts)).removesuffix(".__init__")] = path
    return named


def room_of(module: str) -> str:
    """The room that a module is in: the longest name of `ROOMS` that it starts with."""
    inside = [room for room in ROOMS if f"{module}.".startswith(f"{room}.")]
    return max(inside, key=len, default="nfspec")


def upward() -> set[tuple[str, str]]:
    """Each module that imports a room above its own, with that room."""
    floor = {"nfspec": -1} | {room: n for n, room in enumerate(ROOMS)}
    return {
        (module, room_of(name))
        for module, path in modules().items()
        for name in imported(path)
        if name.startswith("nfspec") and floor[room_of(name)] > floor[room_of(module)]
    }


def test_imports_run_one_way_but_for_the_doors():
    assert upward() == DOORS


def test_every_room_exists_and_says_what_is_in_it():
    named = modules()
    for room in ROOMS:
        text = ast.get_docstring(ast.parse(named[room].read_text(encoding="utf-8")))
        assert text, f"{room}: no sentence on what is in it"
        assert "import" in text, f"{room}: no word on what it may import"


def test_every_module_is_in_a_room_or_named_as_one_of_the_root():
    root = {name for name in modules() if room_of(name) == "nfspec"} - {"nfspec"}
    assert root == {
        f"nfspec.{name}"
        for name in (
            "__main__",
            "arguments",
            "compilation",
            "console",
            "errors",
            "files",
            "frozen",
            "markdown",
            "outputs",
            "streams",
            "wording",
        )
    }


@pytest.mark.parametrize("module, room", sorted(DOORS))
def test_contributing_gives_the_reason_of_each_door(module, room):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert f"`{module}`" in text


def test_the_reference_imports_nothing_that_it_judges():
    standard = {"__future__", "collections", "dataclasses", "math", "typing"}
    for path in (ROOT / "nfspec" / "reference").glob("*.py"):
        roots = {module.split(".")[0] for module in imported(path)}
        assert roots <= {*standard, "numpy", "nfspec"}, path
