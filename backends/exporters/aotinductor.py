"""PyTorch's AOTInductor: the ExportedProgram of the network as native code for one kind of CPU.

Loading such a file runs the code in it, so nfspec loads none but the one that it has just written,
to prove it. With free sizes, what PyTorch 2.13 compiles for CPUs computes other values altogether.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec.backends.exporters import torch as format_torch
from nfspec.backends.exporters.format import Facts, Format, Outputs, Read, Run, Runtime
from nfspec.backends.exporters.quiet import quiet
from nfspec.backends.exporters.settings import Network
from nfspec.errors import BackendError, InputError
from nfspec.wording import reason_of


def write(path: Path, network: Network) -> Facts:
    """Write a network as a package of native code.

    Raises:
        InputError: Sizes are free, or a choice is not offered by this format.
        BackendError: PyTorch cannot compile it, as where there is no C++ compiler.
        OSError: It cannot be written.
    """
    settings = network.settings
    if settings.size is None or settings.batch is None:
        raise InputError(
            "size and batch: native code is for images of one size and number; give both, such as "
            "--size 256 --batch 1"
        )
    import torch

    program = format_torch.program_of(network)
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    configs = {"aot_inductor.metadata": network.metadata()}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        package = Path(folder, "network.pt2")  # PyTorch wants this ending
        try:
            with quiet("torch._inductor"), torch.no_grad():
                torch._inductor.aoti_compile_and_package(
                    program, package_path=str(package), inductor_configs=configs
                )
        except Exception as error:  # PyTorch's compiler raises many
            reason = reason_of(error)
            raise BackendError(
                f"aotinductor: PyTorch cannot compile the network ({reason}); it needs a C++ "
                "compiler, such as g++"
            ) from None
        shutil.move(package, path)
    return Facts(Counter(str(node.target).removesuffix(".default") for node in calls))


def load(path: Path) -> Run:
    """The package in PyTorch on the CPU. Its code is run: for files that were just written."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "network.pt2")
        link.symlink_to(path.resolve())
        compiled = torch._inductor.aoti_load_package(str(link))

    def run(images: NDArray[Any]) -> Outputs:
        found = compiled(torch.from_numpy(np.ascontiguousarray(images)))
        return {name: value.numpy() for name, value in found.items()}

    return run


def read(path: Path) -> Read:
    """Refuse to read a package.

    Raises:
        InputError: Always.
    """
    raise InputError(
        f"{path}: native code, which runs as it is loaded; nfspec loads no such file but the one "
        "that it has just exported, to prove it. Export to torch, too, for nfspec verify, predict "
        "and evaluate"
    )


FORMAT = Format(
    name="aotinductor",
    suffix=".aoti",
    summary="PyTorch's AOTInductor, native code",
    packages=format_torch.FORMAT.packages,
    command=format_torch.FORMAT.command,
    write=write,
    read=read,
    parts=lambda path: [path],
    runtimes=(Runtime("torch", "AOTInductor of PyTorch", load),),
)
