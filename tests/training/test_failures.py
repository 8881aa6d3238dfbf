"""Failures that end a training early, and messages that say what is left to go on with."""

import pytest

from nfspec.errors import InputError, NfspecError
from nfspec.training.failures import (
    Diverged,
    OtherTraining,
    TrainingError,
    explained,
    out_of_memory,
)


def named(name, base, *arguments):
    """An exception of a framework, which a test of names and texts need not import."""
    return type(name, (base,), {})(*arguments)


OUT_OF_MEMORY = {
    "Python": MemoryError(),
    "torch, CUDA": named("OutOfMemoryError", RuntimeError, "CUDA out of memory"),
    "torch, CPU": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you "
        "tried to allocate 8 bytes."
    ),
    "TensorFlow": named("ResourceExhaustedError", Exception, "OOM when allocating tensor"),
    "JAX": named("XlaRuntimeError", RuntimeError, "RESOURCE_EXHAUSTED: Out of memory"),
}


@pytest.mark.parametrize("framework", OUT_OF_MEMORY)
def test_memory_that_does_not_suffice_is_known_by_its_error(tmp_path, framework):
    error = OUT_OF_MEMORY[framework]
    assert out_of_memory(error)
    message = r"^8 images of 16 px at a time do not fit the memory;"
    with pytest.raises(TrainingError, match=message), explained(tmp_path, 8, 16):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError(), KeyError("memory")])
def test_any_other_error_is_not_taken_for_that(tmp_path, error):
    with pytest.raises(type(error)) as raised, explained(tmp_path, 8, 16):
        raise error
    assert raised.value is error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InputError("bad"), TrainingError("bad")),
        (Diverged("step 6: nan"), Diverged("step 6: nan")),
        (OSError(28, "No space", "/run/log.jsonl"), TrainingError("/run/log.jsonl: No space")),
    ],
    ids=["of nfspec", "divergence", "of the file system"],
)
def test_what_there_is_to_go_on_with_follows_the_message(tmp_path, error, expected):
    def said():
        with pytest.raises(NfspecError) as raised, explained(tmp_path, 8, 16):
            raise error
        assert type(raised.value) is type(expected)
        return str(raised.value).split("\n")

    assert said() == [str(expected)]
    (tmp_path / "run.json").touch()
    rest = "no checkpoint was written yet; --resume starts from the first step"
    assert said() == [str(expected), rest]
    (tmp_path / "checkpoints").mkdir()
    for step in (9, 10):
        (tmp_path / "checkpoints" / f"step-{step:08d}.safetensors").touch()
    newest = tmp_path / "checkpoints" / "step-00000010.safetensors"
    assert said() == [str(expected), f"{newest} is whole; --resume goes on from there"]


def test_an_error_of_the_file_system_without_a_name_is_of_the_folder(tmp_path):
    with pytest.raises(TrainingError) as raised, explained(tmp_path, 8, 16):
        raise OSError("odd")
    assert str(raised.value) == f"{tmp_path}: odd"


def test_a_checkpoint_of_another_training_says_all_itself(tmp_path):
    (tmp_path / "run.json").touch()
    with pytest.raises(OtherTraining, match=r"^another$"), explained(tmp_path, 8, 16):
        raise OtherTraining("another")
