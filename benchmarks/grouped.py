"""A grouped conv on a TPU as one operation beside a conv for each group, by the TPU's compiler.

    python -m nfspec.benchmarks.grouped --target tpu-v3:2x2

prints operations, bytes, the compiler's estimate and the time to compile of the forward pass with
all gradients, in bfloat16 with float32 kernels, on one device. It is why `kernels/jax.py` splits
grouped convs for TPUs where a group is 128 channels wide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from nfspec import compilation
from nfspec.backends.lowering.lower import Lowered, Places, compile_for
from nfspec.backends.lowering.targets import target_of
from nfspec.console import print_lines, say, table


@dataclass(frozen=True)
class Shape:
    """A conv of 3 x 3 with stride 1, as a network has it in training.

    Attributes:
        network: The network.
        batch, side, channels, groups: Images, their side in px, channels in and out, groups.
    """

    network: str
    batch: int
    side: int
    channels: int
    groups: int


SHAPES = (
    Shape("nfnet-f0, stage 2", 32, 24, 256, 2),
    Shape("nfnet-f0, stage 3", 32, 12, 768, 6),
    Shape("nf-regnet-b0, stage 2", 64, 24, 56, 7),
    Shape("nf-regnet-b0, stage 4", 64, 6, 344, 43),
)


def one(x: Any, kernel: Any, groups: int) -> Any:
    from jax import lax

    return lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def split(x: Any, kernel: Any, groups: int) -> Any:
    import jax.numpy as jnp

    parts = zip(jnp.split(x, groups, 3), jnp.split(kernel, groups, 3), strict=True)
    return jnp.concatenate([one(*part, 1) for part in parts], axis=3)


def lowered(conv: Callable[..., Any], shape: Shape, target: str) -> Lowered:
    """The forward pass, and the gradients by images and kernel."""
    import jax
    import jax.numpy as jnp

    aimed = target_of(target)
    places = Places(tuple(aimed.devices())[:1], False)

    def function(x: Any, kernel: Any, dy: Any) -> Any:
        y, back = jax.vjp(lambda x, kernel: conv(x, kernel, shape.groups), x, kernel)
        return y, back(dy)

    image = jax.ShapeDtypeStruct(
        (shape.batch, shape.side, shape.side, shape.channels), jnp.bfloat16
    )
    width = shape.channels // shape.groups
    kernel = jax.ShapeDtypeStruct((3, 3, width, shape.channels), jnp.float32)
    arrays = [places.array(each) for each in (image, kernel, image)]
    return compile_for(
        aimed,
        jax.jit(function).trace(*arrays),
        None,
        name=shape.network,
        work="conv",
        precision="bfloat16",
        devices=1,
        batch=shape.batch,
        size=shape.side,
    )


def main(
    target: Annotated[str, typer.Option(metavar="NAME", help="As nfspec lower has it.")],
) -> None:
    """Compare one grouped conv with its split."""
    compilation.select("jax")
    rows = [("conv", "groups", "", "GFLOP", "MB", "estimate, us", "compiled in, s")]
    for shape in SHAPES:
        for name, conv in (("one", one), ("split", split)):
            say(f"compiling {shape.network}, {name} ...")
            done = lowered(conv, shape, target)
            estimate = f"{1e6 * done.seconds:.3g}" if done.seconds else "none"
            figures = (f"{done.flops / 1e9:.3g}", f"{done.bytes_accessed / 1e6:.3g}", estimate)
            rows.append(
                (shape.network, str(shape.groups), name, *figures, f"{done.compile_seconds:.1f}")
            )
    print_lines(table(rows, "<>" + "<" + ">>>>"))


if __name__ == "__main__":
    typer.run(main)
