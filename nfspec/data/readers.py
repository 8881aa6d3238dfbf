"""Processes that read images for a training.

A process makes every so many-th piece of the batches, and sends its pixels through a socket. It
knows what to make from the share of the examples that it is sent first, and ends when the other end
of the socket is closed, in whatever way.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nfspec.data.images import normalise
from nfspec.errors import InputError

if TYPE_CHECKING:
    from nfspec.data.batches import Batch, Share

PIECE = 8  # images that are sent together
PROGRAM = "import sys, nfspec.data.readers as r; r.main(*map(int, sys.argv[1:]))"
AHEAD = 2  # pieces that a process has ready, and batches that are


@dataclass(frozen=True)
class Piece:
    """Some examples of a batch.

    Attributes:
        pixels: (images, S, S, C), uint8.
        labels: (images, classes), float32.
        bad: Messages on images that the process met for the first time.
        error: Why there are no examples; None if there are.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.float32]
    bad: tuple[str, ...] = ()
    error: str | None = None


def pieces(size: int) -> list[tuple[int, int]]:
    """The pieces of a batch: the first place in it, and the one after the last."""
    return [(start, min(start + PIECE, size)) for start in range(0, size, PIECE)]


def made(share: Share, batch: int, start: int, end: int, bad: list[str]) -> Piece:
    """A piece of a batch; `bad` has the messages since the last one, and is emptied."""
    try:
        drawn = [
            share.examples.drawn(share.place(batch * share.size + n)) for n in range(start, end)
        ]
        pixels, labels = (np.stack(each) for each in zip(*drawn, strict=True))
        piece = Piece(pixels, labels, tuple(bad))
    except (InputError, MemoryError) as error:
        nothing = np.zeros(0, np.uint8), np.zeros(0, np.float32)
        piece = Piece(*nothing, tuple(bad), str(error) or "memory does not suffice")
    bad.clear()
    return piece


def in_processes(share: Share, workers: int) -> Iterator[Batch]:
    """Read a share of the examples, batch after batch, in several processes ahead of the caller.

    Args:
        share: The examples.
        workers: Number of processes.

    Raises:
        InputError: An example cannot be made, or a process ended.
    """
    ready: queue.Queue[Batch | Exception] = queue.Queue(AHEAD)
    ended = threading.Event()
    readers: list[_Reader] = []
    thread = threading.Thread(target=_gather, args=(share, readers, ready, ended), daemon=True)
    try:
        readers += [_Reader(share, rank, workers) for rank in range(workers)]
        thread.start()
        for _ in range(len(share) // share.size):
            batch = ready.get()
            if isinstance(batch, Exception):
                raise batch
            yield batch
    finally:
        ended.set()
        for reader in readers:
            reader.process.kill()
            reader.process.wait()
        if thread.ident is not None:
            thread.join()
        for reader in readers:
            reader.pipe.close()


def _gather(
    share: Share, readers: list[_Reader], ready: queue.Queue[Any], ended: threading.Event
) -> None:
    """Put batches together, in a thread of its own, until there are no more or nobody waits."""
    turn = count()
    try:
        for _ in range(len(share) // share.size):
            parts = [readers[next(turn) % len(readers)].receive() for _ in pieces(share.size)]
            for message in (message for part in parts for message in part.bad):
                share.examples.on_bad(message)
            if errors := [part.error for part in parts if part.error is not None]:
                raise InputError(errors[0])
            how = share.examples.how
            images = np.stack([normalise(image, how) for part in parts for image in part.pixels])
            _put(ready, (images, np.concatenate([part.labels for part in parts])), ended)
    except Exception as error:  # whatever it is, the one who waits raises it
        _put(ready, error, ended)


def _put(ready: queue.Queue[Any], batch: Any, ended: threading.Event) -> None:
    while not ended.is_set():
        with contextlib.suppress(queue.Full):
            return ready.put(batch, timeout=0.2)


class _Reader:
    """A process that reads images."""

    def __init__(self, share: Share, rank: int, world: int):
        ours, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            # -P: what lies in the present folder must not stand in for a module.
            [sys.executable, "-P", "-c", PROGRAM, *map(str, (theirs.fileno(), rank, world))],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # so that Ctrl-C reaches it through this process alone
        )
        theirs.close()
        self.pipe = Connection(ours.detach())
        with contextlib.suppress(OSError):  # it has ended: `receive` says so
            self.pipe.send(share)

    def receive(self) -> Piece:
        """The next piece.

        Raises:
            InputError: The process has ended.
        """
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            status = self.process.wait()
            raise InputError(
                f"a process that reads images ended with status {status}, for want of memory, "
                "perhaps; give fewer --workers"
            ) from None


def main(descriptor: int, rank: int, world: int) -> None:
    """Make every `world`-th piece of a share, and send it, until nobody reads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = Connection(descriptor)
    waiting: queue.Queue[Piece] = queue.Queue(AHEAD)

    def send() -> None:
        while True:
            try:
                pipe.send(waiting.get())
            except OSError:  # nobody reads
                os._exit(0)
            waiting.task_done()

    with contextlib.suppress(EOFError, OSError):  # nobody is there
        _make(pipe.recv(), rank, world, waiting, send)
        pipe.recv()


def _make(
    share: Share, rank: int, world: int, waiting: queue.Queue[Piece], send: Callable[[], None]
) -> None:
    """Make the pieces of a process; return when all are sent."""
    bad: list[str] = []
    share.examples.on_bad = bad.append
    threading.Thread(target=send, daemon=True).start()
    turn = count()
    for batch in range(len(share) // share.size):
        for start, end in pieces(share.size):
            if next(turn) % world == rank:
                waiting.put(made(share, batch, start, end, bad))
    waiting.join()
