"""Fuzz every reader of files: `python -m fuzzing --help`, from the folder of the tests."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import sys
import time
from pathlib import Path

from fuzzing.drive import Driver, Progress
from fuzzing.targets import TARGETS


def main() -> int:
    """Exit status 1 where a finding is not fixed, or 0."""
    asked = arguments()
    state = asked.state / "progress.json"
    chosen = [TARGETS[name]() for name in asked.only or TARGETS]
    saved = json.loads(state.read_text()) if state.exists() else {}
    done = {t.name: Progress(**saved.get(t.name, {})) for t in chosen}
    driver = Driver(asked.state / "work", shrink=not asked.once)
    gc.freeze()  # or the process of each turn looks for garbage among all that frameworks have made
    start = time.monotonic()
    try:
        while True:
            for target in chosen:
                for finding in driver.turn(target, done[target.name], asked.executions):
                    place = asked.state / "findings" / finding.name
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.with_suffix(".input").write_bytes(finding.data)
                    text = f"{finding.what}\n\n{finding.details}\n"
                    place.with_suffix(".txt").write_text(text, errors="backslashreplace")
                    print(f"\n{finding.name}: {finding.what}", file=sys.stderr)
                saved |= {name: dataclasses.asdict(progress) for name, progress in done.items()}
                state.write_text(json.dumps(saved, indent=1))
                show(done, start, target.name)
                if time.monotonic() - start > asked.seconds and not asked.once:
                    return summary(done)
            if asked.once:
                return summary(done)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on", file=sys.stderr)
        summary(done)
        return 130


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fuzz every reader of files from strangers.")
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long; default an hour")
    parser.add_argument("--executions", type=int, default=1000, help="files in a turn of a target")
    parser.add_argument("--once", action="store_true", help="one turn of each target, no shrinking")
    parser.add_argument(
        "--only", nargs="*", default=[], choices=TARGETS, help="targets; default all"
    )
    parser.add_argument("--state", type=Path, default=Path("build/fuzz"), help="where to go on")
    asked = parser.parse_args()
    asked.state = asked.state.resolve()
    asked.state.mkdir(parents=True, exist_ok=True)
    return asked


def show(done: dict[str, Progress], start: float, name: str) -> None:
    """One line of progress, over the one before."""
    executions = sum(each.executions for each in done.values())
    findings = sum(len(each.findings) for each in done.values())
    text = f"{time.monotonic() - start:6.0f} s  {executions:,} files  {findings} findings  {name}"
    print(f"\r{text:<78}", end="", file=sys.stderr, flush=True)


def summary(done: dict[str, Progress]) -> int:
    """Print what was done; 1 if anything was found."""
    print(f"\n{'target':<14} {'files':>10} {'seconds':>8} {'limit, s':>8}  findings")
    for name, each in done.items():
        row = f"{name:<14} {each.executions:>10,} {each.seconds:>8.0f} {each.limit:>8.2f}"
        print(f"{row}  {len(each.findings)}")
        for what in each.findings.values():
            print(f"    {what}")
    return int(any(each.findings for each in done.values()))


if __name__ == "__main__":
    sys.exit(main())
