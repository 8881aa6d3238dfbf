"""The blocks of the pages on networks, training, commands and the kit run as they are printed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import blocks, python, within

from nfspec.compilation import BACKENDS
from nfspec.conformance import compare
from nfspec.conformance.workers import worker

from kept_process import Kept

PYTHON = ("docs/models.md", "docs/training.md", "docs/kit.md")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder, which has the variant of the pages."""
    (variant,) = blocks("docs/models.md", "toml")
    (tmp_path / "moth.toml").write_text(variant)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process of each framework for all commands, each of which would start its own."""
    processes = {name: Kept(name, "cpu", "f32") for name in BACKENDS}
    monkeypatch.setattr(compare, "WorkerProcess", lambda subject: processes[subject])
    monkeypatch.setattr(worker, "WorkerProcess", lambda subject, device, mode: processes[subject])
    yield
    for process in processes.values():
        process.end()


def test_the_python_runs(folder):
    """Each page has its own names; they share a process, since each would start JAX."""
    pages = ["\n".join(blocks(page, "python")) for page in PYTHON]
    python(f"for page in {pages!r}:\n    exec(page, {{'__name__': '__main__'}})", folder)


def test_the_signals_are_those_of_the_page(folder, capsys):
    """Numbers have two digits, and differ between machines by rounding alone."""
    (program,) = blocks("docs/signal.md", "python")
    exec(compile(program, "docs/signal.md", "exec"), {})
    first, second = blocks("docs/signal.md", "text")
    for printed, line in zip(capsys.readouterr().out.splitlines(), first.splitlines(), strict=True):
        words = zip(printed.split(), line.split(), strict=True)
        assert all(
            one == other or float(one) == pytest.approx(float(other), rel=0.1)
            for one, other in words
        )
    assert len(second.splitlines()) == len(first.splitlines())
    (commands,) = blocks("docs/signal.md", "sh")
    for command in commands.splitlines():
        within(command)


def test_the_commands_run(folder, kept):
    (commands,) = blocks("docs/commands.md", "sh")
    for command in commands.splitlines():
        output = within(command)
        if " compare " in command:
            assert "THE SAME NETWORK on jax, torch, tensorflow" in output
        if " conform " in command:
            assert output.startswith("CONFORMANT: ")
    (replay,) = blocks("docs/kit.md", "sh")
    assert within(replay).count("within its bound") == 3
