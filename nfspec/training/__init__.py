"""A training from its recipe to its plots, as far as no framework is needed.

It imports every room of the core; `runs` opens `backends` when Keras objects are asked for.
"""
