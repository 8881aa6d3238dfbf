"""docs/generated and docs/generate.md: sources as they are today, and blocks that run."""

import re
import subprocess
import sys

import pytest
from pages import blocks, within

import nfspec
from nfspec.generation import source
from nfspec.generation.documents import FOLDER, documents

DOCS = FOLDER.parent


@pytest.fixture(scope="module")
def texts():
    return documents()


def test_sources_are_those_of_today(texts):
    assert {path.name for path in texts} == {path.name for path in FOLDER.glob("*.py")}
    for path, text in texts.items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run make docs"


def test_the_readme_shows_part_of_a_source(texts):
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```py\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    assert block in texts[FOLDER / "moth_torch.py"]


def test_the_python_of_the_page_runs(tmp_path):
    page = (DOCS / "generate.md").read_text(encoding="utf-8")
    program = "\n".join(re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    run = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_commands_of_the_page_run(tmp_path, monkeypatch):
    """The folded network is a small one, since F0's weights are 280 MB."""
    monkeypatch.chdir(tmp_path)
    plan = nfspec.resolve(nfspec.load("nfnet-nano"))
    nfspec.weights.to_deepmind("F0.npz", plan, nfspec.init(plan, seed=0))
    for command in "".join(blocks("docs/generate.md", "sh")).splitlines():
        if "--folded" in command:
            command = command.replace("nfnet-f0", "nfnet-nano")
        within(command)
    assert {path.suffix for path in tmp_path.glob("f0_folded.*")} == {".py", ".safetensors"}


def test_the_page_names_the_sources():
    page = (DOCS / "generate.md").read_text(encoding="utf-8")
    for path in FOLDER.glob("*.py"):
        assert f"generated/{path.name}" in page


def test_what_writes_source_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr(source, "find_spec", lambda name: None)
    with pytest.raises(nfspec.BackendError, match=r"needs ruff, .*; run: pip install jinja2 ruff$"):
        nfspec.native(nfspec.load("nfnet-nano"), "torch")
