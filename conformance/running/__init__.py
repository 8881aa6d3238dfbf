"""A run: it draws cases, asks the workers, judges replies, and keeps a journal.

It imports everything below `report`.
"""
