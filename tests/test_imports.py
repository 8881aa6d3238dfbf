"""What importing costs: no framework, and imports run one way."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FRAMEWORKS = {"keras", "jax", "torch", "tensorflow"}


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
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_imports_run_one_way():
    lower = {
        "nfspec": ("nfspec.backends", "nfspec.conformance", "nfspec.benchmarks"),
        "backends": ("nfspec.conformance", "nfspec.benchmarks"),
        "conformance": ("nfspec.benchmarks",),
    }
    # The doors: where a command or a call opens the next room, inside a function.
    doors = {
        ("nfspec/compilation.py", "nfspec.backends"),
        ("nfspec/runs.py", "nfspec.backends"),
        ("nfspec/cli/bench.py", "nfspec.benchmarks"),
        ("nfspec/cli/compare.py", "nfspec.conformance"),
        ("nfspec/cli/conform.py", "nfspec.conformance"),
        ("nfspec/cli/cost.py", "nfspec.benchmarks"),
        ("nfspec/cli/evaluate.py", "nfspec.backends"),
        ("nfspec/cli/train.py", "nfspec.backends"),
    }
    found = set()
    for folder, higher in lower.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            found |= {(name, up) for up in higher for m in imported(path) if m.startswith(up)}
    assert found == doors


def test_the_reference_imports_nothing_that_it_judges():
    standard = {"__future__", "collections", "dataclasses", "math", "typing"}
    for path in (ROOT / "nfspec" / "reference").glob("*.py"):
        roots = {module.split(".")[0] for module in imported(path)}
        assert roots <= {*standard, "numpy", "nfspec"}, path
