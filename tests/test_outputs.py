"""Outputs: what is there already is left as it is without --force."""

from pathlib import Path
from typing import Any

import pytest
import typer

from nfspec.cli import app
from nfspec.errors import InputError
from nfspec.outputs import require_free, require_own

GROUP: Any = typer.main.get_command(app)


def test_a_file_that_exists_is_refused_without_force(tmp_path: Path) -> None:
    file = tmp_path / "a"
    require_free(file, force=False)
    file.touch()
    with pytest.raises(InputError, match="--force"):
        require_free(file, force=False)
    require_free(file, force=True)
    with pytest.raises(InputError, match="not a regular file"):
        require_free(tmp_path, force=True)


def test_a_folder_of_something_else_is_refused_without_force(tmp_path: Path) -> None:
    require_own(tmp_path, "results.json", force=False)
    (tmp_path / "notes").touch()
    with pytest.raises(InputError, match=r"no results\.json"):
        require_own(tmp_path, "results.json", force=False)
    require_own(tmp_path, "results.json", force=True)
    (tmp_path / "results.json").touch()
    require_own(tmp_path, "results.json", force=False)


OUTPUTS = {"--out", "--output", "--confusion", "--plot", "target"}
# Every command that writes where it is told to, and what is the user's there.
WRITES: dict[str, tuple[str, ...]] = {
    "new": ("moth", "--output", "mine/moth.toml"),
    "conform": ("--backends", "torch", "--properties", "WS-01", "--out", "mine"),
    "bench": ("nfnet-nano", "--work", "forward", "--backends", "torch", "--out", "mine"),
    "train": ("nfnet-nano", "digits", "--backend", "torch", "--out", "mine"),
    "plot": ("run", "--out", "mine/a.png"),
    "generate": ("nfnet-nano", "--to", "torch", "--out", "mine/net.py"),
    "export": ("nfnet-nano", "--to", "onnx", "--out", "mine/a.onnx"),
    "embed": ("nfnet-nano", "a.jpg", "--weights", "a.npz", "--out", "mine/a.npz"),
    "evaluate": ("nfnet-nano", "digits", "--weights", "a.npz", "--confusion", "mine/a.png"),
    "lower": ("nfnet-nano", "--target", "cpu", "--hlo", "mine/a.hlo"),
    "sweep": ("plan.toml", "--out", "mine"),
    "explore": ("--out", "mine/a.html"),
    "scale": ("nfnet-nano", "--macs", "1M", "--out", "mine/moth.toml"),
    "table": ("nfnet-nano", "--plot", "mine/a.png"),
    "signal": ("nfnet-nano", "--plot", "mine/a.png"),
    "convert": ("a.npz", "mine/a.safetensors", "--variant", "nfnet-nano"),
}
THEIRS = (
    "moth.toml",
    "a.png",
    "a.npz",
    "net.py",
    "a.onnx",
    "a.hlo",
    "a.html",
    "a.safetensors",
    "BENCH.md",
    "REPORT.md",
    "weights.safetensors",
)


def test_the_commands_that_write_are_those() -> None:
    named = {
        name
        for name, command in GROUP.commands.items()
        for parameter in command.params
        if {"--out", "--output", "--confusion", "--plot", "target"}
        & {*parameter.opts, parameter.name}
    }
    assert named == set(WRITES)
    forced = {
        name
        for name, command in GROUP.commands.items()
        if any("--force" in parameter.opts for parameter in command.params)
    }
    assert forced == set(WRITES)


@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize("command", WRITES)
def test_what_is_there_is_left_as_it_is(
    command: str, dangling: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A link to nothing is something, too."""
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in THEIRS:
        if dangling:
            (mine / name).symlink_to("nowhere")
        else:
            (mine / name).write_text(name)
    (tmp_path / "a.npz").touch()
    (tmp_path / "plan.toml").write_text('specs = ["nfnet-nano"]\ndata = "digits"\n')
    (tmp_path / "run").mkdir()
    with pytest.raises(SystemExit) as end:
        GROUP.main([command, *WRITES[command]], "nfspec")
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (2, ""), said
    assert "--force" in said.err or "not a regular file" in said.err, said
    assert sorted(path.name for path in mine.iterdir()) == sorted(THEIRS)
    for name in THEIRS:
        assert (mine / name).is_symlink() == dangling
        assert dangling or (mine / name).read_text() == name
