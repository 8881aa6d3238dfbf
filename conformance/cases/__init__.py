"""Records of the kit: what is tested (cases, targets, weights) and what was found (results).

They import the core alone.
"""
