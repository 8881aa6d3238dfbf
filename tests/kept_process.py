"""A worker's process that several commands or tests ask: to start one is most of a small run."""

from nfspec.conformance.workers.process import WorkerProcess


class Kept(WorkerProcess):
    """A process that goes on when a command is done with it, for the next command."""

    def close(self) -> None:
        """Do nothing; `end` ends the process."""

    def end(self) -> None:
        super().close()
