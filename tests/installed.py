"""An nfspec that is installed without any framework does what it can, and says what it lacks.

`make dist` runs this file with the Python of an environment that has only the wheel, or the sdist.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

NFSPEC = Path(sys.executable).with_name("nfspec")
RUN = (
    "--version",
    "list",
    "list --pretrained",
    "check nfnet-f0",
    "show nfnet-f0",
    "diff nfnet-f0 nfnet-f0",
    "new mine.toml --from nfnet-f0",
    "cost nfnet-f0",
    "explain SPEC-GROUPS",
)
LACK = (
    "export nfnet-f0 --to onnx",
    "generate nfnet-f0 --to torch",
    "train nfnet-nano digits",
    "predict nfnet-nano cat.jpg --weights a.npz",
    "compare nfnet-nano",
    "conform",
    "lower nfnet-nano --target cpu",
)


def run(line: str, folder: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [NFSPEC, *line.split()], cwd=folder, capture_output=True, text=True, timeout=300
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for line in RUN:
            done = run(line, folder)
            assert (done.returncode, done.stderr) == (0, ""), (line, done.stdout, done.stderr)
        for line in LACK:
            done = run(line, folder)
            assert (done.returncode, done.stdout) == (2, ""), (line, done.stdout, done.stderr)
            (said,) = done.stderr.splitlines()
            assert "installed" in said and " run: pip install " in said, (line, said)
        print(f"{len(RUN)} commands run, {len(LACK)} say what is missing")


if __name__ == "__main__":
    main()
