"""The oracle: what each operation means, in float64 NumPy, written from the papers' formulas."""

from nfspec.reference.network import forward

__all__ = ["forward"]
