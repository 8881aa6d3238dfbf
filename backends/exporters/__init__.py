"""A network as a file for the runtime of others: one module for each format.

A module here imports the core and, in its functions, the packages of its format. Whether a file is
right is judged in `nfspec.conformance.exporting`.
"""
