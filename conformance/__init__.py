"""Proof that implementations run the same network: cases, bounds, workers, faults, reports."""
