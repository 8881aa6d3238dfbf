"""Proof that the frameworks run the same network: workers, and the comparison with the oracle."""
