"""Put one fault at a time into a copy of the code, and see that the tests near it fail.

    PYTHONPATH=tests python -m mutations [--only AREA] [--state FILE.json]

A test that fails with a fault notices it if it passes without: the tests that failed run again at
the end, without a fault. Results are in the state file and in a Markdown table beside it. A run
that was interrupted goes on with the same state file; if the code or the tests have changed, it
begins anew.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mutations.mutants import LIST, Mutation, MutationError, read

ROOT = Path(__file__).parent.parent.parent
LINKED = ("backends", "benchmarks", "conformance")  # folders at the root, packages of nfspec
LONGEST = 600  # seconds of the tests of one mutation; a fault that hangs is noticed by that
FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)


def copied(root: Path, to: Path) -> str:
    """Copy the files of a checkout that git knows; returns the sha256 of them all."""
    listed = subprocess.run(
        ["git", "-C", root, "ls-files", "-z"], check=True, capture_output=True, text=True
    )
    digest = hashlib.sha256()
    for name in sorted(filter(None, listed.stdout.split("\0"))):
        source, target = root / name, to / name
        if not source.is_file():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
        digest.update(f"{name}\0".encode() + source.read_bytes())
    for name in LINKED:
        (to / "nfspec" / name).symlink_to(Path("..") / name)
    return digest.hexdigest()


def pytest(
    root: Path, framework: str, tests: Sequence[str], *options: str, longest: float = LONGEST
) -> tuple[int | None, str]:
    """Run tests of the copy; returns the exit status, None if it took too long, and the output."""
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    environment["PYTHONPATH"] = f"{root}{os.pathsep}{root / 'tests'}"
    if framework:
        environment["KERAS_BACKEND"] = framework
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *tests]
    process = subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that what the tests start can be ended with them
    )
    try:
        output, _ = process.communicate(timeout=longest)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def checked(root: Path, state: dict[str, Any]) -> None:
    """Run the tests that failed with a fault once without one, with any parameters.

    Args:
        root: The copy.
        state: Changed in place: `passed` gets the tests that pass, and `results` loses those that
            rest on a test that fails.

    Raises:
        MutationError: Some of them fail; all are named.
    """
    wrong: set[tuple[str, str]] = set()
    for framework in sorted({result["framework"] for result in state["results"]}):
        by = {function(r["by"]) for r in state["results"] if r["framework"] == framework}
        known = {test for name, test in state["passed"] if name == framework}
        if not (tests := sorted(test for test in by - known if test.startswith("tests/"))):
            continue
        print(f"without a fault: {len(tests)} tests, {framework or 'no framework'}")
        sys.stdout.flush()
        status, output = pytest(root, framework, tests, longest=len(tests) * LONGEST)
        failed = set(map(function, FAILED.findall(output))) or (set(tests) if status else set())
        state["passed"] += [[framework, test] for test in tests if test not in failed]
        wrong |= {(framework, test) for test in failed}
    if wrong:
        state["results"] = [
            r for r in state["results"] if (r["framework"], function(r["by"])) not in wrong
        ]
        names = "\n".join(f"{test} {framework}".strip() for framework, test in sorted(wrong))
        raise MutationError(f"tests that fail without a fault, too:\n{names}")


def function(test: str) -> str:
    """A test's id without its parameters."""
    return test.partition("[")[0]


def result_of(root: Path, mutation: Mutation) -> dict[str, Any]:
    """Put one fault into the copy, run its tests, and take the fault out again."""
    path = root / mutation.file
    text = path.read_text(encoding="utf-8")
    compiled = Path(importlib.util.cache_from_source(path.resolve()))
    began = time.monotonic()
    try:
        path.write_text(mutation.applied_in(root), encoding="utf-8")
        compiled.unlink(missing_ok=True)  # Python compares whole seconds and sizes alone
        status, output = pytest(root, mutation.framework, mutation.tests, "-x")
    finally:
        path.write_text(text, encoding="utf-8")
        compiled.unlink(missing_ok=True)
    seconds = round(time.monotonic() - began, 1)
    return {
        **mutation.fields(),
        "killed": status != 0,
        "by": killer(mutation, status, output),
        "seconds": seconds,
    }


def killer(mutation: Mutation, status: int | None, output: str) -> str:
    """Name of the first test that failed, and so found a fault; empty if none failed.

    Raises:
        MutationError: pytest ended otherwise than by a test that failed.
    """
    if status is None:
        return f"time: over {LONGEST} s"
    if status == 0:
        return ""
    if first := FAILED.search(output):
        return first[1]
    if status < 0:
        return f"a crash (signal {-status})"
    raise MutationError(f"{mutation.id}: pytest ended with {status}:\n{output[-3000:]}")


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown."""
    survived = [result["id"] for result in results if not result["killed"]]
    lines = [
        f"{len(results)} mutations, {len(results) - len(survived)} killed"
        + (f", survived: {', '.join(survived)}" if survived else ""),
        "",
        "| id | area | fault | killed by | s |",
        "|---|---|---|---|--:|",
    ]
    for result in results:
        framework = f" ({result['framework']})" if result["framework"] else ""
        by = f"`{result['by']}`{framework}" if result["killed"] else f"**survived**{framework}"
        cells = (result["id"], result["area"], result["fault"], by, f"{result['seconds']:.0f}")
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def earlier(file: Path) -> dict[str, Any]:
    """Content of a state file; an empty dict if there is no file.

    Raises:
        MutationError: It is another file than a state file.
    """
    if not file.exists():
        return {}
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        state = None
    if not isinstance(state, dict) or "tree" not in state:
        raise MutationError(f"--state: {file} exists and is no state of mutations")
    return state


def judged(root: Path, wanted: Sequence[Mutation], file: Path, tree: str) -> list[dict[str, Any]]:
    """The result of each mutation: those of the state file, and the others now."""
    file.parent.mkdir(parents=True, exist_ok=True)
    state = earlier(file)
    if state.get("tree") != tree:
        state = {"tree": tree, "passed": [], "results": []}
    fields = {m.id: m.fields() for m in wanted}
    kept = {r["id"]: r for r in state["results"] if fields.get(r["id"], r).items() <= r.items()}
    for mutation in wanted:
        if mutation.id in kept:
            continue
        kept[mutation.id] = result = result_of(root, mutation)
        text = "killed by " + result["by"] if result["killed"] else "SURVIVED"
        print(f"{mutation.id}: {text} ({result['seconds']:.0f} s)")
        sys.stdout.flush()
        state["results"] = list(kept.values())
        save(file, state)
    try:
        checked(root, state)
    finally:
        save(file, state)
    return [kept[mutation.id] for mutation in wanted]


def save(file: Path, state: dict[str, Any]) -> None:
    """Write the state file, and the table beside it."""
    file.write_text(json.dumps(state, indent=1), encoding="utf-8")
    file.with_suffix(".md").write_text(table(state["results"]), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutations", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout to test")
    parser.add_argument("--list", type=Path, default=LIST, help="list of mutations, TOML")
    parser.add_argument("--only", action="append", help="area or id of mutations to run")
    parser.add_argument(
        "--state", type=Path, default=ROOT / "build" / "mutations.json", help="file of results"
    )
    asked = parser.parse_args()
    if asked.state.suffix != ".json":
        parser.error("--state: expected a name that ends in .json")
    try:
        mutations = read(asked.list)
        wanted = [m for m in mutations if not asked.only or {m.area, m.id} & {*asked.only}]
        if not wanted:
            areas = ", ".join(dict.fromkeys(m.area for m in mutations))
            raise MutationError(f"--only: no such area or id; areas are {areas}")
        with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
            root = Path(folder)
            tree = copied(asked.root, root)
            for mutation in wanted:
                mutation.applied_in(root)
            results = judged(root, wanted, asked.state, tree)
    except (MutationError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(results).partition("\n")[0])
    return 0 if all(result["killed"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
