"""The built-in networks that differ once they are cut to a few narrow blocks.

The kit's `reduced_plan` cuts networks, and only 14 of the 75 cut plans have different operations.
tests/rewrites/test_scalars.py asserts that each of the others has those of one of these.
"""

REPRESENTATIVES = (
    "nfnet-f0",
    "nfnet-nano",
    "nf-regnet-b0",
    "nf-resnet-50",
    "nf-seresnet-50",
    "timm/dm_nfnet_f0",
    "timm/eca_nfnet_l0",
    "timm/nf_ecaresnet26",
    "timm/nf_regnet_b0",
    "timm/nf_resnet26",
    "timm/nf_seresnet26",
    "timm/nfnet_f0",
    "timm/nfnet_l0",
    "timm/test_nfnet",
)
