"""Turns of targets, each in a forked process that is watched from here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fuzzing.child import Counter, Turn
from fuzzing.finding import Finding, as_json, from_json
from fuzzing.limits import show_where_it_hangs
from fuzzing.target import Target

WAIT = 5.0  # seconds of sleep, not of waiting for a processor, after which a reader waits for ever


@dataclass
class Progress:
    """Progress with a target.

    Attributes:
        turns: Number of turns; also the number of the next one.
        executions: Files read.
        seconds: Seconds that the turns took.
        findings: Names of faults found, and what they are.
        limit: Seconds of processor time for a file.
        room: Memory for a file, in bytes, not counting what is in proportion to its size.
    """

    turns: int = 0
    executions: int = 0
    seconds: float = 0.0
    findings: dict[str, str] = field(default_factory=dict)
    limit: float = 0.0
    room: int = 0


def forked(work: Callable[[], str], counter: Counter, out: Path) -> int:
    """Do something in a process of its own; its exit status, or the negative of its signal.

    Args:
        work: Returns the text that is written to `out`.
        counter: A number that the process counts up while it works.
        out: A file.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.setpgid(0, 0)
            text = work()
            out.write_text(text)
            status = 0
        except BaseException as error:
            import traceback

            out.write_text(traceback.format_exc(limit=-8)[:4000])
            del error
        finally:
            os._exit(status)
    last, since = counter.started + counter.ended, time.monotonic()
    try:
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            now = counter.started + counter.ended
            if now != last or counter.started == counter.ended or not _sleeps(child):
                last, since = now, time.monotonic()
            elif time.monotonic() - since > WAIT:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.002)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise


def _sleeps(process: int) -> bool:
    """Tell whether a process waits for something else than a processor or a disk."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "S"


@dataclass
class Driver:
    """Gives targets their turns.

    Attributes:
        folder: Folder to work in; its content is deleted.
        shrink: True to make the files of findings small.
    """

    folder: Path
    shrink: bool

    def turn(self, target: Target, progress: Progress, count: int) -> list[Finding]:
        """Read `count` files, those that are hostile first if this is the first turn.

        One process reads them all, as to start and to prepare one takes longer than to read them;
        if a file ends it, the next one goes on behind that file.
        """
        seen: list[Finding] = []
        start, read = time.monotonic(), 0
        hostile = target.to_be_read_first if progress.turns == 0 else ()
        while True:

            def work(turn: Turn, rest: Sequence[bytes] = hostile[read:]) -> None:
                for data in rest:
                    turn.keep(data)
                turn.generated(progress.turns, count, self.shrink)

            status, text, counter = self._run(target, progress, work)
            progress.executions += counter.ended
            seen += self._findings(target, status, text)
            read += counter.started
            if (status == 0 and text) or read > len(hostile):
                break
        once = {finding.name: finding for finding in seen}.values()
        checked = [finding for finding in once if self._again(target, progress, finding)]
        progress.turns += 1
        progress.seconds += time.monotonic() - start
        progress.findings |= {finding.name: finding.what for finding in checked}
        return checked

    def _run(
        self, target: Target, progress: Progress, work: Callable[[Turn], None]
    ) -> tuple[int, str, Counter]:
        """Do a part of a turn in a process; its exit status, what it says, what it counted."""
        place, counter = self.folder / target.name, Counter()
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        stack, out, measured = place / "stack", place / "out", place / "measured"

        def within() -> str:
            show_where_it_hangs(stack)
            turn = Turn(
                target,
                place / "input",
                counter,
                set(progress.findings),
                progress.limit,
                progress.room,
            )
            turn.prepare()
            measured.write_text(json.dumps([turn.limit, turn.room]))
            work(turn)
            return as_json(turn.found)

        status = forked(within, counter, out)
        if status == 70:
            raise RuntimeError(f"{target.name}: the harness failed\n{out.read_text()}")
        progress.limit, progress.room = json.loads(measured.read_text())
        return status, (out if out.exists() else stack).read_text(), counter

    def _findings(self, target: Target, status: int, text: str) -> list[Finding]:
        """The findings of a process, or the file that ended it."""
        if status == 0 and text:
            return from_json(text)
        data = (self.folder / target.name / "data").read_bytes()
        return [Finding(target.name, self._death(status, text), text, data)]

    @staticmethod
    def _death(status: int, stack: str) -> str:
        ours = [line for line in stack.splitlines() if "/nfspec/" in line or "/backends/" in line]
        where = f" in {ours[0].rpartition('/')[2]}" if ours else ""
        # The stack is written when the time is up, and frames that are just being made may crash
        # that; a crash of the reader's own begins with the words "Fatal Python error".
        if status == -signal.SIGPROF or stack.startswith("Stack (most recent call first)"):
            return f"time{where}"
        if status == -signal.SIGKILL:
            return "waits for ever, or was killed for its memory"
        return f"process ended with {status}{where}"

    def _again(self, target: Target, progress: Progress, finding: Finding) -> bool:
        """Tell whether a file shows a fault by itself, in a fresh process, twice."""
        for _ in range(2):
            fresh = Progress(limit=progress.limit, room=progress.room)
            status, text, _ = self._run(target, fresh, lambda turn: turn.keep(finding.data))
            if not self._findings(target, status, text):
                return False
        return True
