"""`nfspec explore`."""

import pytest
from typer.testing import CliRunner

from nfspec.cli import app
from nfspec.design.explorer import page

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
