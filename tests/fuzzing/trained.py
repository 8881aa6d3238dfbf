"""The reader of checkpoints of a training, on PyTorch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import nfspec

from fuzzing import hostile
from fuzzing.archives import PIECES, opened, spoilt_safetensors
from fuzzing.archives import safetensors as safetensors_file
from fuzzing.mutation import by_pieces
from fuzzing.networks import SMALL, plan
from fuzzing.target import Target, asserted
from fuzzing.texts import tokens


def checkpoint() -> Target:
    """Checkpoints, as `train --resume` reads them."""
    os.environ["KERAS_BACKEND"] = "torch"
    import safetensors.numpy
    from safetensors import SafetensorError

    from nfspec.backends.training import checkpoints

    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "x.toml").write_text(SMALL)
        spec = nfspec.load(folder / "x.toml")
        model = nfspec.compile(spec, backend="torch")
        optimizer = nfspec.recipe(plan(SMALL), steps=100, batch=8).optimizer()
        optimizer.build(model.trainable_variables)
        seeds = []
        for best in (0.5, 0.25):
            position = checkpoints.Position(1, best_step=1, best=best)
            checkpoints.save(folder, model, optimizer, position, "digest")
            seeds.append(checkpoints.path_of(folder, 1).read_bytes())

    def read(path: Path) -> None:
        position = checkpoints.restore(path, model, optimizer, "digest")
        asserted(type(position.step) is int and position.step >= 0, "a step that is none")
        asserted(-1 <= position.best <= 1, "a share that is none")

    def with_checksum(pieces: Sequence[bytes]) -> bytes:
        """A file whose checksum is right, so that it is not all that is wrong."""
        file = safetensors_file(b"".join(pieces[:-1]), pieces[-1])
        try:
            tensors = safetensors.numpy.load(file)
            header = json.loads(opened(file)[0])
            metadata = header["__metadata__"]
            metadata["checksum"] = checkpoints.checksum(tensors, metadata)
        except (SafetensorError, LookupError, TypeError, ValueError):
            return file
        return safetensors_file(header, pieces[-1])

    parts = [opened(seed) for seed in seeds]
    pieces = [[*tokens(header), data] for header, data in parts]
    return Target(
        "checkpoint",
        "step-00000001.safetensors",
        read,
        seeds,
        seeds[0],
        hostile.safetensors_files(seeds[0]),
        by_pieces(pieces, PIECES, with_checksum) | spoilt_safetensors(seeds),
    )
