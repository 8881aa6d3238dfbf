"""The blocks of the README and of the documents, and how they are run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from nfspec.cli import app

ROOT = Path(__file__).parent.parent


def blocks(page: str, language: str) -> list[str]:
    """The blocks of a page, named from the root, in one language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


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
