"""A Plan as plain source in somebody's framework: one file, which needs that framework alone.

A target is a folder with a template and, where it needs one, a small writer; `view.py` is the
common view of a plan that templates read. It imports `language`, `plan`, `weights`, `reference`,
`rewrites` and the root.
"""
