"""Subjects by name: `timm`, an entry point, `module:object`, `/path/file.py:object` or a pickle.

A name is all that a worker's process is given, and all that a line to replay a case needs. Loading
a subject runs its code.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pickle
import sys
import traceback
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from operator import attrgetter
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from nfspec.conformance.subjects import FRAMEWORKS, NotOffered, Subject
from nfspec.errors import InputError, suggest

SHIPPED = {
    "jax": "nfspec.conformance.subjects.nfspec:JAX",
    "torch": "nfspec.conformance.subjects.nfspec:Torch",
    "tensorflow": "nfspec.conformance.subjects.nfspec:TensorFlow",
    "jax-plain": "nfspec.conformance.subjects.nfspec:PlainJAX",
    "torch-plain": "nfspec.conformance.subjects.nfspec:PlainTorch",
    "tensorflow-plain": "nfspec.conformance.subjects.nfspec:PlainTensorFlow",
    "timm": "nfspec.conformance.subjects.timm:Timm",
    "optax": "nfspec.conformance.subjects.optax:Optax",
    "torch-source": "nfspec.conformance.subjects.generated.torch:TorchSource",
    "jax-source": "nfspec.conformance.subjects.generated.jax:JaxSource",
    "flax-source": "nfspec.conformance.subjects.generated.flax:FlaxSource",
    "keras-source": "nfspec.conformance.subjects.generated.keras:KerasSource",
    "keras-source-jax": "nfspec.conformance.subjects.generated.keras:KerasSourceJAX",
    "keras-source-torch": "nfspec.conformance.subjects.generated.keras:KerasSourceTorch",
    "mlx-source": "nfspec.conformance.subjects.generated.mlx:MlxSource",
    "numpy-source": "nfspec.conformance.subjects.generated.numpy:NumpySource",
    "onnxruntime": "nfspec.conformance.subjects.exported:OnnxRuntime",
    "openvino": "nfspec.conformance.subjects.exported:OpenVino",
    "litert": "nfspec.conformance.subjects.exported:LiteRT",
    "savedmodel": "nfspec.conformance.subjects.exported:SavedModel",
    "stablehlo": "nfspec.conformance.subjects.exported:StableHLO",
}
GROUP = "nfspec.subjects"
PICKLE = ".pkl"  # the ending of a file that `nfspec.conformance.check` wrote


def place(name: str) -> str:
    """The place of a subject: `module:object`, `file.py:object`, or the path of a pickle.

    Raises:
        InputError: No such name.
    """
    if ":" in name or name.endswith(PICKLE):
        return name
    if name in SHIPPED:
        return SHIPPED[name]
    installed = {point.name: point.value for point in entry_points(group=GROUP)}
    if name in installed:
        return installed[name]
    known = [*SHIPPED, *installed]
    module, dot, path = name.rpartition(".")
    if dot and all(part.isidentifier() for part in name.split(".")):
        raise InputError(
            f'no subject "{name}"; an object of a module is named with a colon: did you mean '
            f'"{module}:{path}"?'
        )
    raise InputError(
        f'no subject "{name}"; expected one of {", ".join(known)}, or module:object, or '
        f"file.py:object{suggest(name, known)}"
    )


def load(name: str) -> Any:
    """A subject: a class, or an object that has been made already. Runs its module's code, and so
    perhaps imports a framework.

    Raises:
        InputError: No such name, module, file or object, or the object is no subject.
    """
    where = place(name)
    if where.endswith(PICKLE):
        return checked(_unpickled(Path(where)), f"subject {name}")
    source, _, path = where.rpartition(":")
    if not source or not path:
        raise InputError(f'subject "{name}": expected module:object or file.py:object')
    module = _file(name, Path(source)) if source.endswith(".py") else _module(name, source)
    try:
        subject = attrgetter(path)(module)
    except AttributeError:
        public = [known for known in vars(module) if not known.startswith("_")]
        raise InputError(f"subject {name}: {source} has no {path}{suggest(path, public)}") from None
    return checked(subject, f"subject {name}")


def checked(subject: Any, name: str) -> Subject | type[Subject]:
    """A subject, once it is seen to be one.

    Args:
        subject: A class or an object.
        name: Its name in an error.

    Raises:
        InputError: It is no subject.
    """
    *first, last = FRAMEWORKS
    if isinstance(subject, FunctionType | ModuleType):
        kind = "function" if isinstance(subject, FunctionType) else "module"
        raise InputError(f"{name}: expected a class or an object; found a {kind}")
    try:
        framework = subject.framework
    except AttributeError:
        framework = None
    if framework not in FRAMEWORKS:
        stated = "has none" if framework is None else f"has {framework!r}"
        raise InputError(
            f"{name}: expected the attribute `framework`, one of {', '.join(first)} or {last}, "
            f"which says whose tensors its functions take; it {stated}"
        )
    return subject


def in_mode(subject: Any, mode: str, name: str) -> Subject:
    """The object that answers in a mode: a class is called with the mode, an object is used as it
    is.

    Raises:
        InputError: The class cannot be called with a mode.
        NotOffered: The object does not have the mode.
    """
    if not isinstance(subject, type):
        modes = getattr(subject, "modes", ("f32",))
        if mode not in modes:
            raise NotOffered(
                f"{type(subject).__name__}: an object that has been made already answers in mode "
                f"f32 alone, or in those of its attribute `modes`; it does not have {mode}"
            )
        return subject
    try:
        inspect.signature(subject).bind(mode)
    except TypeError as error:
        raise InputError(
            f"subject {name}: {subject.__name__} cannot be called with one argument, the mode "
            f"({error}); write `def __init__(self, mode)`, or give an object made already"
        ) from None
    return subject(mode)


def _module(name: str, module: str) -> ModuleType:
    """Import a module, which may lie in the present folder."""
    here = str(Path.cwd())
    sys.path.append(here)  # last, so that nothing there stands in for a framework
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _broken(name, error) from None
        raise InputError(
            f"subject {name}: no module {error.name}: it is neither installed nor in {here}; "
            "install it, go to its folder, or give the path of a file, /path/file.py:object"
        ) from None
    except Exception as error:  # whatever the module's code raises
        raise _broken(name, error) from None


def _file(name: str, path: Path) -> ModuleType:
    """Import a file: as a module of its package, if it is in one, or else by itself. Modules beside
    it can be imported, too."""
    path = path.absolute()
    if not path.is_file():
        raise InputError(f"subject {name}: no file {path}")
    folder, parts = path.parent, [path.stem]
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    sys.path.append(str(folder))
    try:
        if len(parts) > 1:
            return _of_package(name, path, folder, ".".join(parts))
        # Under a name of its own, so that a file called timm.py can import timm.
        spec = importlib.util.spec_from_file_location(f"_nfspec_subject_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module.__name__] = module
        spec.loader.exec_module(module)
    except InputError:
        raise
    except Exception as error:  # whatever the file's code raises
        raise _broken(name, error) from None
    return module


def _of_package(name: str, path: Path, folder: Path, module: str) -> ModuleType:
    """Import a file as a module of its package, which is the one beside it, and not another of that
    name that is found first."""
    top = module.partition(".")[0]
    if top not in sys.modules:
        spec = PathFinder.find_spec(top, [str(folder)])
        assert spec is not None and spec.loader is not None
        sys.modules[top] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[top])
    made = importlib.import_module(module)
    if made.__file__ is None or not path.samefile(made.__file__):
        raise InputError(
            f"subject {name}: {path} is the module {module} of a package, and another package of "
            f"that name comes first, {made.__file__}; give the subject as module:object"
        )
    return made


def _broken(name: str, error: Exception) -> InputError:
    """The error of a subject whose code raises when it is imported, with the line that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    last = next(frame for frame in reversed(frames) if not frame.filename.startswith("<frozen"))
    at = "" if isinstance(error, SyntaxError) else f" ({last.filename}, line {last.lineno})"
    return InputError(f"subject {name}: importing it failed: {type(error).__name__}: {error}{at}")


def _unpickled(path: Path) -> Any:
    """The object in a file that `nfspec.conformance.check` wrote, and the folders that it may be
    imported from."""
    try:
        folders, data = pickle.loads(path.read_bytes())
        sys.path.extend(folder for folder in folders if folder not in sys.path)
        return pickle.loads(data)
    except FileNotFoundError:
        raise InputError(f"subject {path}: no such file") from None
    except Exception as error:  # whatever importing the object's modules raises
        raise _broken(str(path), error) from None
