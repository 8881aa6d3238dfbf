"""A watch on a process that reads a stranger's file: programs, code, files, sockets.

An audit hook stays for the life of a process, so that each target runs in a process of its own.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

# Prefixes of events after which something has been run, sent or changed.
FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile", "os.kill",
    "subprocess.", "pty.", "socket.", "urllib.", "ftplib.", "smtplib.", "http.client.",
    "webbrowser.", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink",
    "os.truncate", "os.chmod", "os.chown", "os.utime", "os.putenv", "os.unsetenv", "os.chdir",
    "os.setxattr", "shutil.", "tempfile.", "ctypes.dlopen", "cpython.run_", "pickle.find_class",
    "sqlite3.", "signal.pthread_kill", "resource.setrlimit", "builtins.input",
)  # fmt: skip
CHANGES = ("os.remove", "os.rename", "os.chmod")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Ran(BaseException):
    """Stops what was about to be run; no reader catches it as an error of its own."""


class Watch:
    """Notes what is forbidden between `reading()` and its end, and stops it.

    Args:
        folder: The folder of the file that is read.
        readable: Other folders in which files may be read.
        writes: True if files may be written in `folder`.
    """

    def __init__(self, folder: Path, readable: tuple[Path, ...], writes: bool = False) -> None:
        self.seen: list[str] = []
        self._on = False
        self._folder = str(folder) + os.sep
        self._writes = writes
        paths = sysconfig.get_paths()
        trusted = {paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"]}
        trusted |= {sys.prefix, sys.base_prefix, *map(str, readable)}
        self._trusted = tuple(os.path.realpath(path) + os.sep for path in trusted)
        sys.addaudithook(self._hook)

    @contextmanager
    def reading(self) -> Iterator[None]:
        self.seen = []
        self._on = True
        try:
            yield
        finally:
            self._on = False

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        self._on = False  # what is asked below is audited too
        what = self._forbidden(event, arguments)
        self._on = True
        if what:
            self.seen.append(what)
            raise Ran(what)

    def _forbidden(self, event: str, arguments: tuple[Any, ...]) -> str:
        if event == "open":
            return self._opened(*arguments)
        if event == "exec":
            return self._executed(arguments[0])
        if event == "compile":
            return self._compiled(arguments[1])
        if event == "import":
            return self._imported(arguments[1])
        if event in CHANGES and self._writes:
            places = [each for each in arguments if isinstance(each, str | Path)]
            outside = [each for each in places if not str(each).startswith(self._folder)]
            return f"{event} {outside}" if outside else ""
        if event.startswith(FORBIDDEN):
            return f"{event} {arguments!r}"[:300]
        return ""

    def _is_trusted(self, path: str) -> bool:
        return os.path.realpath(path).startswith(self._trusted)

    def _opened(self, path: Any, _mode: Any, flags: int) -> str:
        if isinstance(path, int):
            return ""
        name = os.path.normpath(Path.cwd() / os.fsdecode(path))
        if name == os.devnull:
            return ""
        if flags & WRITING and not (self._writes and name.startswith(self._folder)):
            return f"opened for writing: {name}"
        known = name.startswith((self._folder, "/proc/", "/sys/", "/dev/urandom"))
        return "" if known or self._is_trusted(name) else f"read a file that is not its own: {name}"

    def _executed(self, code: Any) -> str:
        if isinstance(code, CodeType) and self._is_trusted(code.co_filename):
            return ""
        return self._compiled(getattr(code, "co_filename", code))

    def _compiled(self, name: Any) -> str:
        # dataclasses, named tuples and their like are made of text by the library itself.
        made = isinstance(name, str) and name.startswith(
            ("<string>", "<frozen ", "<attrs generated")
        )
        named = isinstance(name, str | bytes) and self._is_trusted(os.fsdecode(name))
        return "" if name is None or made or named else f"code was run: {name!r}"[:300]

    def _imported(self, path: Any) -> str:
        return "" if not path or self._is_trusted(path) else f"module imported: {path}"
