"""Names for subjects that are given as classes or objects, as a worker's process gets a name.

A class at the top level of a file is named by the file. Anything else is written to a pickle.
"""

from __future__ import annotations

import pickle
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from types import ModuleType

from nfspec.conformance.subjects.loading import PICKLE, SHIPPED, checked
from nfspec.errors import InputError


@contextmanager
def named(subject: object) -> Iterator[str]:
    """The name of a subject, with which it can be loaded in another process and from any folder.

    A class that was made in a function, or an object, is written to a temporary file. The file is
    left where it is after an AssertionError, whose text has lines that name it.

    Args:
        subject: A class or an object; a name is returned as it is.

    Raises:
        InputError: It is no subject, or it cannot be written.
    """
    if isinstance(subject, str):
        yield subject
        return
    checked(subject, f"subject {subject!r}")
    if (name := _importable(subject)) is not None:
        yield name
        return
    folder = Path(tempfile.mkdtemp(prefix="nfspec-subject-"))
    try:
        yield _pickled(subject, folder)
    except AssertionError:
        raise
    except BaseException:
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


def _importable(subject: object) -> str | None:
    """The name of a class that a module has at its top level; None for anything else."""
    if not isinstance(subject, type):
        return None
    module, path = sys.modules.get(subject.__module__), subject.__qualname__
    try:
        known = attrgetter(path)(module)
    except AttributeError:
        known = None
    file = None if module is None else _file(module)
    if known is not subject or file is None:
        return None
    by_module = f"{subject.__module__}:{path}"
    shipped = {where: name for name, where in SHIPPED.items()}
    if by_module in shipped:
        return shipped[by_module]
    return by_module if _installed(file) else f"{file}:{path}"


def _file(module: ModuleType) -> Path | None:
    """The Python file of a module; None if it has none."""
    try:
        file = module.__file__
    except AttributeError:
        return None
    return Path(file).absolute() if file is not None and file.endswith(".py") else None


def _installed(file: Path) -> bool:
    """True if every Python process of this environment finds the file's module."""
    folders = (sysconfig.get_path(scheme) for scheme in ("purelib", "platlib"))
    return any(file.is_relative_to(folder) for folder in folders)


def _pickled(subject: object, folder: Path) -> str:
    """The path of a new file of a class or an object, and of the folders that it is imported from.

    What is of the subject's own module is written with it, as a test's module cannot always be
    imported by its name.
    """
    import cloudpickle

    kind = subject if isinstance(subject, type) else type(subject)
    module = sys.modules.get(kind.__module__)
    file = None if module is None else _file(module)
    own = file is not None and not _installed(file) and not kind.__module__.startswith("nfspec.")
    if own:
        cloudpickle.register_pickle_by_value(module)
    try:
        data = cloudpickle.dumps(subject)
    except Exception as error:  # whatever one of the object's parts raises
        raise InputError(
            f"subject {subject!r}: it cannot be sent to the process that tests it: {error}; give "
            "a class at the top level of a file instead"
        ) from None
    finally:
        if own:
            cloudpickle.unregister_pickle_by_value(module)
    folders = [str(Path(each).absolute()) for each in sys.path]
    path = folder / f"{kind.__name__}{PICKLE}"
    path.write_bytes(pickle.dumps((folders, data)))
    return str(path)
