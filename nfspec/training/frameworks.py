"""The framework of a training or an evaluation, started in this process."""

from __future__ import annotations

import os
import tempfile

from nfspec.compilation import select


def start(backend: str) -> None:
    """Make Keras run on a backend in this process, with Keras's own settings.

    The user's keras.json may say other dtypes, layouts and epsilons, or be damaged. Keras reads it
    when it is imported. Workers of `conform` and `compare` are started without it, too.

    Raises:
        BackendError: As `nfspec.compilation.select`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's remarks on the machine
    users = os.environ.get("KERAS_HOME")
    with tempfile.TemporaryDirectory(prefix="nfspec-") as home:
        os.environ["KERAS_HOME"] = home
        try:
            select(backend)
        finally:
            del os.environ["KERAS_HOME"]
            if users is not None:
                os.environ["KERAS_HOME"] = users
