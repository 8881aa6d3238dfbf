"""Checkpoints as files: damaged, forged, and under names that are not theirs.

Once, on PyTorch: that every framework writes and restores the same is in test_training_loop.py.
"""

import keras
import numpy as np
import pytest

import nfspec
from nfspec.backends.training import checkpoints
from nfspec.training.failures import OtherTraining
from nfspec.weights.container import write
from nfspec.weights.store import read_all

pytestmark = pytest.mark.skipif(keras.backend.backend() != "torch", reason="once, on PyTorch")


class Layerless:
    """In place of a network and an optimizer: a few variables, so that a checkpoint is tiny."""

    def __init__(self):
        with keras.name_scope("sgd"):
            momentum = keras.Variable(np.arange(2, dtype="float32"), name="momentum")
            steps = keras.Variable(7, name="iteration", dtype="int32", trainable=False)
        self.variables = [momentum, steps]

    def _flatten_layers(self):
        return []


@pytest.fixture
def tiny_checkpoint(tmp_path):
    """The bytes of a small checkpoint, and what some bytes in its place are restored as."""
    held = Layerless()
    position = checkpoints.Position(6, 3, 0.5)
    checkpoints.save(tmp_path, held, held, position, "0" * 64)
    path = checkpoints.path_of(tmp_path, 6)

    def restored(content):
        path.write_bytes(content)
        for variable in held.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))
        progress = checkpoints.restore(path, held, held, "0" * 64)
        return progress, [keras.ops.convert_to_numpy(v).tolist() for v in held.variables]

    return path.read_bytes(), restored


def test_a_byte_of_a_checkpoint_that_is_not_what_it_was_is_noticed(tiny_checkpoint):
    """Every one of them: the file is damaged, which the training goes back from, or means what it
    meant. A name or a digit with one bit changed is another one; "2" becomes "1", "a" becomes "A".
    """
    whole, restored = tiny_checkpoint
    expected = (checkpoints.Position(6, 3, 0.5), [[0.0, 1.0], 7])
    assert restored(whole) == expected
    noticed = 0
    for place in range(len(whole)):
        for mask in (1, 3, 32, 255):
            flipped = bytearray(whole)
            flipped[place] ^= mask
            try:
                assert restored(bytes(flipped)) == expected, (place, mask)
            except OtherTraining as error:
                raise AssertionError((place, mask)) from error
            except nfspec.WeightError:
                noticed += 1
    assert noticed > 3.9 * len(whole.rstrip(b" "))  # of white space alone nothing depends


@pytest.mark.parametrize(
    "position",
    ["", "{", "[6, 3, 0.5]", '{"step": -1}', '{"step": "6"}', '{"step": 6, "best": NaN}', "null"],
)
def test_a_forged_position_is_no_traceback(tmp_path, tiny_checkpoint, position):
    """Whose checksum is right."""
    path = checkpoints.path_of(tmp_path, 6)
    tensors, metadata = read_all(path)
    metadata["position"] = position
    metadata["checksum"] = checkpoints.checksum(tensors, metadata)
    write(path, tensors, metadata)
    _, restored = tiny_checkpoint
    with pytest.raises(nfspec.WeightError, match="damaged: it does not state its step"):
        restored(path.read_bytes())


def test_a_checkpoint_under_another_steps_name_is_damaged(tmp_path, tiny_checkpoint):
    """So that the one before it is taken; and names that no training writes are none of its own."""
    held = Layerless()
    path = checkpoints.path_of(tmp_path, 99_999_999)
    path.write_bytes(tiny_checkpoint[0])
    with pytest.raises(
        nfspec.WeightError, match="damaged: it holds step 6, but its name says another"
    ):
        checkpoints.restore(path, held, held, "0" * 64)
    for name in ("step-000000007.safetensors", "step-99999999999999999999.safetensors"):
        (tmp_path / name).write_bytes(tiny_checkpoint[0])
    assert checkpoints.saved(tmp_path) == [6, 99_999_999]
