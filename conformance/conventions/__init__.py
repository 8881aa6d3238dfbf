"""Conventions that explain a failure, of one subject or, in a matrix, of all that are shipped.

It imports the rest of the kit.
"""
