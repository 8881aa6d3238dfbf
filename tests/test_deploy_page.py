"""The blocks of docs/deploy.md: a file is exported, run by onnxruntime alone, and verified."""

import re
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from nfspec.cli import app

TEXT = (Path(__file__).parent.parent / "docs" / "deploy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def test_the_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (commands,) = [text for language, text in BLOCKS if language == "sh"]
    # The second one is among JAX's tests: tests/backends/test_stablehlo.py.
    alone, _, own = [text for language, text in BLOCKS if language == "python"]
    for command in commands.splitlines():
        done = CliRunner().invoke(app, command.split()[1:])
        assert done.exit_code == 0, done.stderr
    assert len([line for line in alone.splitlines() if line]) <= 11
    # -I: nothing but what is installed, and nothing of nfspec is imported.
    program = alone + "\nimport sys\nassert 'nfspec' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("nfnet-nano {'pixels': 'uint8, 0 to 255'")
    exec(compile(own, "docs/deploy.md", "exec"), {})
