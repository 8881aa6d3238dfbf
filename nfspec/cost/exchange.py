"""Seconds in which devices exchange gradients, and kernels that they keep in parts."""

from __future__ import annotations

from nfspec.cost.accelerators import Accelerator
from nfspec.cost.memory import width_of
from nfspec.plan import Operation, Plan
from nfspec.plan.counting import divided_count, parameter_count


def exchange_seconds(
    plan: Plan, accelerator: Accelerator, devices: int, precision: str, shard: bool = False
) -> dict[str, float]:
    """Seconds of what devices exchange each time that they compute gradients.

    To add up an array over n devices, each takes a part of it, to which the others add theirs on
    the way around: (n - 1) / n of its bytes leave each device. To have it whole again everywhere,
    the parts go around once more, and as many bytes leave. Gradients are float32, and both is done
    with them (an all-reduce), but for those of kernels in parts: of these each device keeps its
    part. Kernels in parts go around once in the dtype of the passes, and again where the backward
    pass computes again what reads them (`remat`). So it is on JAX; on PyTorch they go around twice,
    in float32.

    Args:
        plan: The network.
        accelerator: Kind of each device, with links to others if there are several.
        devices: Number of devices.
        precision: Dtype of the passes.
        shard: Kernels are in parts over the devices.
    """
    if devices == 1:
        return {"all-reduce": 0.0, "all-gather": 0.0}
    summed, gathered, share = 8 * parameter_count(plan), 0, (devices - 1) / devices
    if shard:
        divided, again = divided_count(plan.ops, devices), _computed_again(plan)
        summed -= 4 * divided
        gathered = width_of(precision) * (divided + divided_count(again, devices))
    return {
        "all-reduce": share * summed / accelerator.link,
        "all-gather": share * gathered / accelerator.link,
    }


def _computed_again(plan: Plan) -> list[Operation]:
    """The operations whose forward pass is computed again: all but the head's, if any."""
    if plan.recipe is None or plan.recipe.remat == "none":
        return []
    return [op for op in plan.ops if plan.section(op) != "head"]
