"""Weights that others have published: where they are, for which network, under which licence."""

from __future__ import annotations

from dataclasses import dataclass

DEEPMIND = "https://storage.googleapis.com/dm-nfnets/{}_haiku.npz"


@dataclass(frozen=True)
class Published:
    """Weights that somebody has published, trained on ImageNet (ILSVRC 2012).

    Attributes:
        name: Their name here.
        variant: The built-in network that they are of.
        where: A URL, or `hf-hub:owner/name`.
        license: Their licence, as the publisher states it.
        top1: Top-1 accuracy in per cent at the test size, as published; None where no source that
            could be read states it.
        source: Source of the name, the licence and the accuracy.
    """

    name: str
    variant: str
    where: str
    license: str
    top1: float | None
    source: str


def _deepmind() -> list[Published]:
    """DeepMind's Haiku files. F6 was trained with SAM."""
    top1 = (83.6, 84.7, 85.1, 85.7, 85.9, 86.0, 86.5)
    return [
        Published(
            f"deepmind/nfnet-f{n}",
            f"nfnet-f{n}",
            DEEPMIND.format(f"F{n}"),
            "Apache-2.0",
            figure,
            "deepmind-research/nfnets/README.md; arXiv:2102.06171 table 3",
        )
        for n, figure in enumerate(top1)
    ]


def _timm() -> list[Published]:
    names = (
        *(f"dm_nfnet_f{n}.dm_in1k" for n in range(7)),
        "nfnet_l0.ra2_in1k",
        "eca_nfnet_l0.ra2_in1k",
        "eca_nfnet_l1.ra2_in1k",
        "eca_nfnet_l2.ra3_in1k",
        "nf_regnet_b1.ra2_in1k",
        "nf_resnet50.ra2_in1k",
        "test_nfnet.r160_in1k",
    )
    return [
        Published(
            f"timm/{name}",
            f"timm/{name.partition('.')[0]}",
            f"hf-hub:timm/{name}",
            "Apache-2.0",
            None,
            "timm 1.0.31, timm/models/nfnet.py",
        )
        for name in names
    ]


PUBLISHED = {each.name: each for each in (*_deepmind(), *_timm())}
