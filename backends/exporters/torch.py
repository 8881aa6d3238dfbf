"""PyTorch's ExportedProgram (.pt2): the folded network's generated source, exported by PyTorch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfspec.backends.exporters.format import Facts, Format, Outputs, Read, Run, Runtime
from nfspec.backends.exporters.settings import Network, network_of
from nfspec.errors import InputError
from nfspec.files import opened
from nfspec.generation.native import native
from nfspec.generation.targets import target_of
from nfspec.rewrites.folding import fold
from nfspec.wording import reason_of

METADATA = "nfspec.json"  # the file within the archive
TRACED = (3, 66, 71)  # images, height and width; any do, as all are free


def module_of(network: Network) -> Any:
    """A module of images in the file's layout, which returns a dict of outputs."""
    import torch

    settings, how = network.settings, network.input
    assert network.params is not None
    inner = native(fold(network.plan, network.params), "torch").eval()
    _cut(inner, network)
    seen = _watched(inner, settings.outputs)
    mean = torch.tensor(how.mean).reshape(-1, 1, 1)
    std = torch.tensor(how.std).reshape(-1, 1, 1)
    nhwc = settings.layout == "nhwc"

    class Exported(torch.nn.Module):  # type: ignore[misc]  # PyTorch has no types here
        def __init__(self) -> None:
            super().__init__()
            self.network = inner

        def forward(self, images: Any) -> dict[str, Any]:
            x = images.permute(0, 3, 1, 2) if nhwc else images
            if settings.preprocess:
                x = (x.to(torch.float32) - 255.0 * mean) / (255.0 * std)
            features = self.network.forward_features(x)
            pool = self.network.forward_head(features, pre_logits=True)
            values = {
                **seen,
                "features": features,
                "pool": pool,
                "logits": self.network.head["fc"](pool),
            }
            found = {name: values[name] for name in settings.outputs}
            images_in = {name for name, value in found.items() if nhwc and value.ndim == 4}
            return {
                name: value.permute(0, 2, 3, 1) if name in images_in else value
                for name, value in found.items()
            }

    return Exported().eval()


def _cut(inner: Any, network: Network) -> None:
    """Put nothing in the place of blocks and layers that no output needs."""
    import torch

    def needed(name: str) -> bool:
        return any(key.startswith(f"{name}.") for key in network.folded.parameters)

    for i, stage in enumerate(inner.stages):
        for j in range(len(stage.blocks)):
            if not needed(f"stages.{i}.blocks.{j}"):
                stage.blocks[j] = torch.nn.Identity()
    if not needed("final_conv"):
        inner.final_conv = torch.nn.Identity()
    if not needed("head.fc"):
        inner.head["fc"] = torch.nn.Identity()


def _watched(inner: Any, outputs: tuple[str, ...]) -> dict[str, Any]:
    """A dict that a forward pass fills with the outputs of the stem and of blocks."""
    seen: dict[str, Any] = {}

    def watch(name: str) -> Callable[..., None]:
        def keep(*called: Any) -> None:
            seen[name] = called[-1]

        return keep

    for name in outputs:
        if name == "stem":
            inner.stages[0].register_forward_pre_hook(lambda module, given: watch("stem")(given[0]))
        elif name.startswith("stages."):
            inner.get_submodule(name).register_forward_hook(watch(name))
    return seen


def program_of(network: Network, most: tuple[int, int] | None = None) -> Any:
    """The ExportedProgram of a network, with free sizes where the settings have them free.

    Args:
        network: The network.
        most: Images, and px of a side, that free sizes have at most; None for any.

    Raises:
        InputError: The dtype is not float32.
    """
    settings = network.settings
    if settings.dtype != "f32":
        raise InputError(f"dtype: a file for PyTorch is f32; found {settings.dtype}")
    import torch

    batch, *sides = (settings.batch or TRACED[0], *(settings.size or TRACED[1:]))
    channels, nhwc = network.plan.channels, settings.layout == "nhwc"
    shape = (batch, *sides, channels) if nhwc else (batch, channels, *sides)
    free = [torch.export.Dim.AUTO] * 2
    if most is not None:
        free = [torch.export.Dim.AUTO(max=each) for each in most]
    axes: dict[int, Any] = {0: free[0]} if settings.batch is None else {}
    if settings.size is None:
        axes |= {1: free[1], 2: free[1]} if nhwc else {2: free[1], 3: free[1]}
    images = torch.zeros(shape, dtype=torch.uint8 if settings.preprocess else torch.float32)
    with torch.no_grad():
        return torch.export.export(module_of(network), (images,), dynamic_shapes=(axes,))


def write(path: Path, network: Network) -> Facts:
    """Write a network as an ExportedProgram.

    Raises:
        InputError: A choice is not offered by this format.
        OSError: It cannot be written.
    """
    import torch

    program = program_of(network)
    torch.export.save(program, path, extra_files={METADATA: json.dumps(network.metadata())})
    calls = (node for node in program.graph.nodes if node.op == "call_function")
    return Facts(Counter(str(node.target).removesuffix(".default") for node in calls))


def load(path: Path) -> Run:
    """The file in PyTorch on the CPU.

    Raises:
        InputError: PyTorch cannot load it.
    """
    import torch

    module = _program(path)[0].module()

    def run(images: NDArray[Any]) -> Outputs:
        with torch.no_grad():
            found = module(torch.from_numpy(np.ascontiguousarray(images)))
        return {name: value.numpy() for name, value in found.items()}

    return run


def _program(path: Path) -> tuple[Any, dict[str, Any]]:
    """An ExportedProgram and the metadata beside it.

    Raises:
        InputError: PyTorch cannot load it.
        OSError: It is not a regular file that can be opened.
    """
    import torch

    opened(path).close()
    extra: dict[str, Any] = {METADATA: ""}
    try:
        program = torch.export.load(path, extra_files=extra)
        said = json.loads(extra[METADATA] or "{}")
    except Exception as error:  # PyTorch raises many
        reason = reason_of(error)
        raise InputError(f"{path}: not a .pt2 file that can be read ({reason})") from None
    return program, said if isinstance(said, dict) else {}


def read(path: Path) -> Read:
    """Metadata and weights of a file.

    Raises:
        InputError: It is not a .pt2 file of nfspec.
        OSError: It is not a regular file that can be opened.
    """
    program, said = _program(path)
    network = network_of(said, str(path))
    params = {}
    for name, parameter in network.folded.parameters.items():
        key = "network." + (name[: -len("kernel")] + "weight" if name.endswith("kernel") else name)
        if key not in program.state_dict:
            raise InputError(f"{path}: no weight {key} in it")
        value = program.state_dict[key].detach().numpy()
        if len(parameter.shape) == 4:
            value = value.transpose(2, 3, 1, 0)
        elif len(parameter.shape) == 2:
            value = value.reshape(value.shape[:2]).T
        params[name] = np.array(value.reshape(parameter.shape), np.float32, order="C")
    return Read(network, params)


def parts(path: Path) -> list[Path]:
    return [path]


FORMAT = Format(
    name="torch",
    suffix=".pt2",
    summary="PyTorch's ExportedProgram",
    packages=("torch", "jinja2", "ruff"),
    command=f"{target_of('torch').command} jinja2 ruff",
    write=write,
    read=read,
    parts=parts,
    runtimes=(Runtime("torch", "PyTorch", load),),
    least=2,  # the program refuses images that leave one pixel to a layer
)
