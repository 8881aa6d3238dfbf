"""Images, how they become a network's input, and their classes, without a framework.

It imports `language` and `plan`.
"""
