"""A network's JAX programs, compiled ahead of time for a device that this machine need not have.

It imports the layers, the optimizers and `nfspec.cost`, and is imported by the command line.
"""
