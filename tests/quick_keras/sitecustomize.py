"""Keras starts without what some of its modules import and no test uses: half of its start.

Python imports this module as it starts, where its folder is on PYTHONPATH.
"""

import sys

# Keras runs without each of them, as on a machine where it is not installed.
LEFT_OUT = ("jax", "matplotlib", "sklearn")  # on JAX, it is there before
WITHOUT = ("keras.src.callbacks", "keras.src.visualization", "keras.src.wrappers")


class LeftOut:
    """A finder of modules that refuses these packages to these parts of Keras."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in LEFT_OUT and _importer().startswith(WITHOUT):
            raise ModuleNotFoundError(f"{name} is left out of Keras in tests", name=name)


def _importer():
    """The name of the module that imports."""
    frame = sys._getframe(2)
    while frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame.f_globals.get("__name__", "")


sys.meta_path.insert(0, LeftOut)
