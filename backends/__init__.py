"""The Plan as Keras 3 layers. Importing a module of this package imports Keras and a framework.

It imports the core (`nfspec`) without the command line.
"""
