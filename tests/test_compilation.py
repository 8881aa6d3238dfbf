"""The door to the frameworks: what it says when it cannot open."""

import os
import subprocess
import sys

import pytest

import nfspec
from nfspec import compilation


def test_a_backend_that_does_not_exist_is_refused_with_a_suggestion():
    spec = nfspec.load("timm/test_nfnet")
    known = "expected one of jax, torch, tensorflow"
    message = f'no backend "tensroflow"; {known}; did you mean "tensorflow"?'
    with pytest.raises(nfspec.BackendError) as error:
        nfspec.compile(spec, "tensroflow")
    assert str(error.value) == message


def test_a_missing_framework_is_named_with_the_command_that_adds_it(monkeypatch):
    real = compilation.importlib.util.find_spec
    monkeypatch.setattr(
        compilation.importlib.util, "find_spec", lambda n: None if n == "jax" else real(n)
    )
    assert compilation.missing("jax") == "jax not installed; run: pip install jax"
    assert compilation.missing("torch") is None
    with pytest.raises(nfspec.BackendError, match=r"jax: jax not installed; run: pip install"):
        nfspec.compile(nfspec.load("timm/test_nfnet"), "jax")


def test_an_environment_variable_or_a_keras_json_does_not_override_the_call(tmp_path):
    program = """
import nfspec
model = nfspec.compile(nfspec.load("timm/test_nfnet"), "torch")
import keras
print(keras.backend.backend())
"""
    (tmp_path / "keras.json").write_text('{"backend": "tensorflow"}')
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            "KERAS_BACKEND": "tensorflow",
            "KERAS_HOME": str(tmp_path),
            "PATH": "",
            "PYTHONPATH": os.environ["PYTHONPATH"],
        },
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["torch"], done.stderr


def test_keras_settings_that_keras_refuses_are_a_sentence(tmp_path):
    """Each at a first import of Keras, all in one process, as PyTorch takes long to start."""
    program = """
import os, pathlib, sys
import nfspec
for text in sys.argv[1:]:
    pathlib.Path(os.environ["KERAS_HOME"], "keras.json").write_text(text)
    try:
        nfspec.compile(nfspec.load("timm/test_nfnet"), "torch")
    except nfspec.BackendError as error:
        print(str(error).replace(chr(10), " "))
    for name in [name for name in sys.modules if name.partition(".")[0] == "keras"]:
        del sys.modules[name]
"""
    texts = ['{"floatx": "int9"}', '{"epsilon": 1}', "[]"]
    done = subprocess.run(
        [sys.executable, "-c", program, *texts],
        env={**os.environ, "KERAS_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(texts), done.stderr
    for line in lines:
        assert line.startswith("Keras cannot be imported on torch: "), line
        assert f"{tmp_path}/keras.json" in line
