"""The documents name tests that exist, and lead to files that do."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TRUST = ROOT / "docs" / "trust.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
DOCUMENTS = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


@cache
def named_in(path: Path) -> set[str]:
    """Names of the tests of a file; none if there is no such file."""
    if not path.is_file():
        return set()
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


def rows() -> list[str]:
    """Rows of the tables, without their headings."""
    lines = TRUST.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("| ") and not line.endswith("| test |")]


def test_each_row_names_tests_that_exist():
    assert len(rows()) > 40
    for row in rows():
        named = NAMED.findall(row)
        assert named, row
        assert named == [(file, name) for file, name in named if name in named_in(ROOT / file)], row


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("name", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_named_files_and_folders_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    named = re.findall(r"`((?:nfspec|backends|conformance|tests)/[a-z_/.]*)`", text)
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_what_is_no_test_is_noticed():
    assert "test_links_lead_to_files" in named_in(Path(__file__))
    assert "test_no_such_test" not in named_in(Path(__file__))
    assert named_in(ROOT / "tests" / "no_such_file.py") == set()
