"""The blocks of the README and of the documents, and how they are run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from nfspec.cli import app

ROOT = Path(__file__).parent.parent


# A page in one process: its Python, and its commands, whose output is printed.
SESSION = """
import importlib, os, shlex, sys
os.environ.pop("KERAS_BACKEND", None)
from typer.testing import CliRunner
from nfspec.cli import app
names = {}
for language, text in BLOCKS:
    if language == "python":
        if "keras" in sys.modules:
            # It looks for TensorFlow's types in all that it saves: it is as where there is none.
            importlib.import_module("keras.src.utils.module_utils").tensorflow._available = False
        exec(compile(text, "a page", "exec"), names)
        continue
    for line in text.splitlines():
        done = CliRunner().invoke(app, shlex.split(line)[1:])
        assert done.exit_code == 0, (line, done.output, done.exception)
        print(done.stdout)
"""


def blocks_of(page: str) -> list[tuple[str, str]]:
    """The blocks of a page, named from the root, each with its language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    """The blocks of a page, named from the root, in one language."""
    return [block for name, block in blocks_of(page) if name == language]


def session(page: str, folder: Path, *shorter: tuple[str, str]) -> str:
    """Run the Python and the commands of a page, in the order in which a reader meets them, in one
    process; returns what the commands printed.

    Args:
        page: The page, named from the root.
        folder: The present folder of the process.
        shorter: Texts in the blocks, each with what takes its place, so that less is computed.
    """
    program = []
    for language, text in blocks_of(page):
        if language in ("python", "sh"):
            for long, short in shorter:
                text = text.replace(long, short)
            program.append((language, text))
    assert shorter == () or program != blocks_of(page)
    command = [sys.executable, "-c", f"BLOCKS = {program!r}\n{SESSION}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def within(line: str) -> str:
    """Output of a command line, run in this process; with `||` its exit status has to be 1."""
    program, *arguments = shlex.split(line.partition("||")[0], comments=True)
    assert program == "nfspec"
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == ("||" in line), done.output
    return done.stdout


def python(program: str, folder: Path) -> None:
    """Run a program in a process of its own."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
