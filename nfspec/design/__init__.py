"""Helps for those who design a variant: its signal, its size, its place in a table of others.

It imports every room of the core, and computes a network on a framework through
`nfspec.compilation`.
"""
