"""Proof that the frameworks run the same network: cases, workers and the comparison with the oracle."""
