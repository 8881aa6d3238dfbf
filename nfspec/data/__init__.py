"""Training images and their labels, made without a framework.

It imports `language` and `plan`.
"""
