"""`nfspec explore`."""

import pytest
from typer.testing import CliRunner

from nfspec.cli import app
from nfspec.design.explorer import page
from nfspec.language.loader import load
from nfspec.training.folders import write_facts

from specs import write


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments):
    return CliRunner().invoke(app, ["explore", *arguments])


def test_a_page_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "TARGETS", {})
    result = run("nfnet-nano", "--set", "stages.alpha=0.3", "--only", "--accelerator", "h100")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "wrote explorer.html, 0.5 MB\n"
    assert result.stderr == "estimating and drawing ...\n"
    text = (tmp_path / "explorer.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and '<span class="tag">yours</span>' in text
    assert run("nfnet-nano", "--only").exit_code == 2  # it is there
    assert (tmp_path / "explorer.html").read_text(encoding="utf-8") == text


def test_trainings_stand_beside_specs(tmp_path, monkeypatch):
    """Also those of a sweep's folder; what --set changes is the specs."""
    monkeypatch.setattr(page, "TARGETS", {})
    for name in ("plan/a-0", "plan/a-1", "alone"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        facts = {"data": "digits", "backend": "torch", "seed": 0, "held_out": 0.2}
        write_facts(folder, load("nfnet-nano"), ["0", "1"], **facts)
    (tmp_path / "plan" / "sweep.json").write_text("{}")
    arguments = ("plan", "alone", "--accelerator", "h100", "--only")
    assert "--set changes SPECs" in run(*arguments, "--set", "stages.alpha=0.3").stderr
    result = run("nfnet-nano", *arguments, "--set", "stages.alpha=0.3")
    assert result.exit_code == 0, result.stderr
    text = (tmp_path / "explorer.html").read_text(encoding="utf-8")
    assert text.count('<span class="tag">training</span>') == 3
    assert text.count('<span class="tag">yours</span>') == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("broken.toml",), "broken.toml:5:1: alpha: "),
        (("nowhere.toml",), "nowhere.toml"),
        (("--only",), "no network to show"),
        (("--set", "stages.alpha=0.3"), "--set changes SPECs; name one"),
        (("nfnet-nano", "--accelerator", "abacus"), "accelerator: expected one of"),
    ],
)
def test_a_mistake_is_a_sentence(arguments, message, tmp_path):
    write(
        'schema = "nfspec/1"\nname = "x"\nsource = "own"\nextends = "nfnet-f0"\nalpha = 1\n',
        "broken.toml",
    )
    result = run(*arguments)
    assert result.exit_code == 2 and message in result.stderr
    assert "Traceback" not in result.stderr and not (tmp_path / "explorer.html").exists()
