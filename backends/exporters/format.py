"""A format: what writes a file of it, what runs it, and what reads it back."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nfspec.backends.exporters.settings import Network
from nfspec.errors import BackendError, InputError, NfspecError
from nfspec.outputs import require_free, require_free_folder
from nfspec.plan.initialise import Params
from nfspec.wording import reason_of

Outputs = Mapping[str, NDArray[Any]]
Run = Callable[[NDArray[Any]], Outputs]
Batches = Callable[[], Iterator[NDArray[Any]]]


@dataclass(frozen=True)
class Facts:
    """Facts about a file that was written.

    Attributes:
        nodes: Kind of node to the number of such nodes; empty where a format has none.
        opset: The version of the operators; empty where a format has none.
    """

    nodes: Mapping[str, int]
    opset: str = ""


@dataclass(frozen=True)
class Read:
    """A network, read back from a file.

    Attributes:
        network: The network that its metadata describe.
        params: The folded plan's parameters, from the file's own weights.
    """

    network: Network
    params: Params


@dataclass(frozen=True)
class Runtime:
    """A program that runs files.

    Attributes:
        package: The module, which is the name of its distribution, too.
        name: Its name in reports.
        load: A function of a path, which returns a function of images in the file's layout: its
            outputs by name. It raises InputError for a file that it cannot load.
    """

    package: str
    name: str
    load: Callable[[Path], Run]

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None

    @property
    def version(self) -> str:
        """Name and version."""
        return f"{self.name} {importlib.metadata.version(self.package)}"


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        name: Its name, as `nfspec export --to` takes it.
        suffix: The ending of its files' names.
        summary: What it is, for help texts.
        packages: Modules that write and run it.
        command: What installs them.
        write: A function of a path and a network, which writes the file.
        read: A function of a path, which reads metadata and weights.
        parts: A function of a path, which returns the files of which it is one.
        runtimes: What runs them. The first is in `packages`; others are used where installed.
        least: Pixels of a side that images of any size must leave to the last stage.
        marker: Where a file of it is a folder, a file in it that is nfspec's; else empty.
        quantise: A function of a path, a network, and batches of images as the file takes them,
            which writes the network with weights and arithmetic of int8. It is called with a
            function that begins the batches anew. None where the format has no such files.
        note: A sentence about what the proof does not show; empty if there is nothing.
    """

    name: str
    suffix: str
    summary: str
    packages: tuple[str, ...]
    command: str
    write: Callable[[Path, Network], Facts]
    read: Callable[[Path], Read]
    parts: Callable[[Path], list[Path]]
    runtimes: tuple[Runtime, ...]
    least: int = 1
    marker: str = ""
    quantise: Callable[[Path, Network, Batches], None] | None = None
    note: str = ""

    def require_free(self, path: Path, force: bool) -> None:
        """Require that nothing is at a path, or with `force` a file of this format.

        Raises:
            InputError: Something is there, or the name does not end as those of the format.
        """
        if path.suffix != self.suffix:
            raise InputError(
                f"{path}: expected a name that ends in {self.suffix}, by which nfspec verify and "
                "nfspec predict know the format"
            )
        if self.marker:
            require_free_folder(path, self.marker, force)
        else:
            require_free(path, force)

    def written(self, path: Path, network: Network) -> Facts:
        """Write a file, as `write`; an error of the packages that write it is told in a sentence.

        Raises:
            BackendError: One of them fails.
        """
        with self._told():
            return self.write(path, network)

    def write_int8(self, path: Path, network: Network, batches: Batches) -> None:
        """Write a file in int8, as `quantise`, of a format that has such files.

        Raises:
            BackendError: A package fails.
        """
        assert self.quantise is not None
        with self._told():
            self.quantise(path, network, batches)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (NfspecError, OSError):
            raise
        except Exception as error:  # of classes of their own
            reason = reason_of(error)
            raise BackendError(f"{self.name}: what writes such files fails: {reason}") from error

    def require(self) -> None:
        """Require the packages that write and run such files.

        Raises:
            BackendError: One is not installed.
        """
        absent = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if absent:
            are = "is" if len(absent) == 1 else "are"
            named = " and ".join([*([", ".join(absent[:-1])] if absent[1:] else []), absent[-1]])
            raise BackendError(
                f"{self.name} needs {named}, which {are} not installed; run: {self.command}"
            )
