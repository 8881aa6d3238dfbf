"""Processes that each run one subject on one framework, and how they are asked.

They import `properties`, `faults` and `subjects`; a worker's process opens `backends`.
"""
