"""The blocks of the pages on networks, training, commands and the kit run as they are printed."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from pages import ROOT, blocks, blocks_of, python, within
from PIL import Image
from sklearn.datasets import load_sample_image

import nfspec
from nfspec.cli import app
from nfspec.compilation import BACKENDS
from nfspec.conformance import compare
from nfspec.conformance.workers import worker

from kept_process import Kept

TRAININGS = ("README.md", "docs/training.md")
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


def test_no_command_on_a_page_has_options_that_are_gone():
    """Those in blocks of text are not run: they need several devices, a TPU or a hub."""
    commands, found = typer.main.get_command(app).commands, 0
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = "\n".join(text for _, text in blocks_of(str(path.relative_to(ROOT))))
        for line in text.replace("\\\n", " ").splitlines():
            if line.startswith("nfspec "):
                _, name, *rest = shlex.split(line.partition("||")[0], comments=True)
                commands[name].make_context(name, rest)
                found += 1
    assert found > 50


def test_trainings_are_on_pages_that_slow_tests_run():
    """Blocks of `shell` are long: those of docs/variants.md are run by tests/test_cookbooks.py."""
    pages = ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
    trained = {page for page in pages if blocks(page, "shell")}
    assert trained == {*TRAININGS, "docs/variants.md"}


@pytest.mark.slow  # trains the page's network on digits, in a minute or two, and on photographs
@pytest.mark.parametrize("page", TRAININGS)
def test_the_trainings_run(page, folder):
    """F0 stands for itself at a size that a small machine trains: the nano network."""
    for name, photo in (("temple", "china.jpg"), ("flower", "flower.jpg")):
        (folder / "photos" / name).mkdir(parents=True)
        image = Image.fromarray(load_sample_image(photo))
        for n in range(8):
            image.crop((20 * n, 0, 20 * n + 200, 200)).save(folder / "photos" / name / f"{n}.jpg")
    (folder / "new").mkdir()
    image.save(folder / "new" / "a.jpg")
    plan = nfspec.resolve(nfspec.load("nfnet-nano"))
    nfspec.weights.save(folder / "f0.safetensors", plan, nfspec.init(plan, seed=0))
    (commands,) = blocks(page, "shell")
    for line in commands.splitlines():
        line = line.replace("nfnet-f0 photos", "nfnet-nano photos --size 32 --epochs 1")
        line = line.replace("nfnet-nano photos --backend", "nfnet-nano photos --epochs 1 --backend")
        assert within(line)
