"""From a Plan and its parameters to another Plan with parameters that gives the same outputs.

It imports `plan`, `weights` and `reference`.
"""
