"""Bounds of rounding error, per element, computed in float64 from an operation's operands.

A bound is a dict of named terms whose sum no correct implementation exceeds, in whatever order it
adds, fused or not. They are first-order in the unit roundoff u and probabilistic: with rounding
errors that are independent and of mean zero, an error exceeds LAMBDA standard-deviation-like units
with probability at most 2·exp(-LAMBDA²/2) = 2.5e-14 (Azuma's inequality over the partial sums;
Ipsen and Zhou 2020, arXiv:1906.10465; Higham and Mary 2019).

They import `cases` and the reference.
"""
