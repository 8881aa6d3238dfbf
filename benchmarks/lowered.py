"""A training step compiled for a TPU beside the plain port's, by the TPU's own compiler.

    python -m nfspec.benchmarks.lowered nfnet-f0 --target tpu-v3:2x2 --batch 32

prints the figures of both and their ratios. Both are steps of the same network in bfloat16 with
float32 parameters, adaptive gradient clipping and SGD with Nesterov's momentum, and no moving
average. Each takes minutes to compile. With --shard both have their parameters in parts, the plain
port as XLA's partitioner divides the work.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from nfspec import compilation
from nfspec.backends.lowering.lower import Changed, Lowered, Places, compile_for, lower
from nfspec.backends.lowering.targets import target_of
from nfspec.console import print_lines, say, table
from nfspec.language.loader import load
from nfspec.language.overrides import ON_COMMAND_LINE, overriding, parsed
from nfspec.plan import Plan
from nfspec.plan.resolver import resolve

PRECISION = "bfloat16"
NO_AVERAGE = ("recipe.ema_decay=0",)


def plain(plan: Plan, target: str, batch: int, shard: bool) -> Lowered:
    """The plain port's step; its labels are whole numbers, one for each image."""
    import jax
    import jax.numpy as jnp

    from nfspec.benchmarks.optax import updating

    aimed = target_of(target)
    devices = tuple(aimed.devices())
    places, count = Places(devices, shard), batch * len(devices)
    model = compilation.compile(plan, "jax", dtype="mixed_bfloat16", plain=True)
    optimizer, update = updating(model)
    params = [places.variable(v) for v in model.trainable_variables]
    rest = [places.variable(v) for v in model.non_trainable_variables]
    state = jax.tree.map(places.array, jax.eval_shape(optimizer.init, params))
    images = places.images((count, plan.train_size, plan.train_size, plan.channels))
    labels = jax.ShapeDtypeStruct((count,), jnp.int32, sharding=images.sharding)
    return compile_for(
        aimed,
        jax.jit(update, donate_argnums=(0, 2)).trace(params, rest, state, images, labels),
        Changed(params, state),
        name=plan.name,
        work="step",
        precision=PRECISION,
        devices=len(devices),
        batch=batch,
        size=plan.train_size,
    )


def rows(ours: Lowered, theirs: Lowered) -> list[tuple[str, str, str, str]]:
    """The figures of both that the compiler has, and their ratios."""
    figures = [
        ("GFLOP", ours.flops, theirs.flops, 1e9),
        ("GB read and written", ours.bytes_accessed, theirs.bytes_accessed, 1e9),
        ("estimate, ms", ours.seconds, theirs.seconds, 1e-3),
        ("peak memory, GB", ours.peak, theirs.peak, 1e9),
        ("time to compile, s", ours.compile_seconds, theirs.compile_seconds, 1),
    ]
    return [
        ("on one device", "nfspec", "plain port", "ratio"),
        *(
            (name, f"{a / unit:.4g}", f"{b / unit:.4g}", f"{a / b:.3f}")
            for name, a, b, unit in figures
            if a and b
        ),
    ]


def _facts(done: Lowered) -> dict[str, Any]:
    return {
        name: value for name, value in vars(done).items() if name not in ("text", "collectives")
    }


def main(
    variant: Annotated[str, typer.Argument(metavar="SPEC", help="A spec with a recipe.")],
    target: Annotated[str, typer.Option(metavar="NAME", help="As nfspec lower has it.")],
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Images on each device.")] = 32,
    shard: Annotated[bool, typer.Option("--shard", help="Split the parameters of both.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the compiled step with the plain port's."""
    plan = resolve(load(variant, overriding(parsed(NO_AVERAGE), ON_COMMAND_LINE)))
    compilation.select("jax")
    say(f"compiling {plan.name} for {target} ...")
    ours = lower(plan, "step", target, batch=batch, precision=PRECISION, shard=shard)
    say("compiling the plain port ...")
    theirs = plain(plan, target, batch, shard)
    if as_json:
        print(json.dumps({"nfspec": _facts(ours), "plain": _facts(theirs)}, indent=1))
    else:
        print_lines(table(rows(ours, theirs), "<>>>"))


if __name__ == "__main__":
    typer.run(main)
