"""A network with larger maps of features, on the same weights: strides that become dilation."""

from __future__ import annotations

import math
from itertools import accumulate

from nfspec.arguments import instance, refuse, whole
from nfspec.language.spec import Spec


def output_stride(spec: Spec, stride: int) -> Spec:
    """A spec of the same parameters whose features have a smaller stride.

    The strides of the last stages become 1, and the convs after them are dilated, so that each
    looks at pixels as far apart as before. At 8 and 16 it is what timm's argument `output_stride`
    makes (timm 1.0.31, models/nfnet.py).

    Args:
        spec: The spec.
        stride: That of the features, px: the stride that the network has after its stem or after
            one of its stages.

    Returns:
        A spec of the same name; its digest is another one.

    Raises:
        InputError: The network has no such stride anywhere, or something else than a spec.
        SpecError: A dilation is larger than the language takes.
    """
    spec = instance("spec", spec, Spec, "nfspec.load")
    wanted = whole("stride", stride, 1, "px")
    strides, dilations = spec.stages.column("stride"), list(spec.stages.column("dilation"))
    stem = spec.stem.stride
    in_stem = stem if isinstance(stem, tuple) else (stem,) * len(spec.stem.width)
    begin = math.prod(in_stem) * (2 if spec.stem.pool == "max" else 1)
    reached = list(accumulate(strides, lambda a, b: a * b, initial=begin))
    if wanted not in reached:
        there = ", ".join(map(str, sorted(set(reached))))
        raise refuse("stride", f"a stride that {spec.name} has, one of {there}", stride)
    keep = reached.index(wanted)  # stages up to this one keep their stride
    factor = 1
    for stage in range(keep, len(strides)):
        factor *= strides[stage]
        dilations[stage] *= factor
    if factor == 1:
        return spec
    kept = (*strides[:keep], *[1] * (len(strides) - keep))
    stages = spec.stages.model_copy(update={"stride": kept, "dilation": tuple(dilations)})
    return spec.model_copy(update={"stages": stages})
