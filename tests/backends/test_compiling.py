"""Programs of JAX that are compiled for a target before they run; here the target is the CPU."""

import os

import numpy as np
import pytest

from nfspec.errors import BackendError

if os.environ.get("KERAS_BACKEND") != "jax":
    pytest.skip("of JAX", allow_module_level=True)

import jax
import jax.numpy as jnp

from nfspec.conformance.workers.compiling import Compiling


@pytest.fixture
def compiling(monkeypatch):
    monkeypatch.setattr(jax, "jit", jax.jit)  # puts it back in the end
    return Compiling("cpu")


def test_each_shape_is_compiled_once_and_its_value_is_that_of_the_cpu(compiling, monkeypatch):
    compiled = []
    monkeypatch.setattr(compiling, "_compile", compiled.append)

    @jax.jit
    def function(x, y):
        return {"sum": x + y}

    for shape in ((2,), (3,), (2,)):
        assert (function(np.ones(shape, np.float32), 1.0)["sum"] == 2.0).all()
    assert (len(compiled), compiling.calls) == (2, 3)
    function(np.ones(2, np.int32), 1)
    assert len(compiled) == 3


def test_what_is_traced_within_another_is_compiled_with_it(compiling):
    inner = jax.jit(lambda x: x * 2.0)
    assert float(jax.jit(lambda x: inner(x) + 1.0)(1.0)) == 3.0
    assert compiling.calls == 1
    by_option = jax.jit(donate_argnums=0)(lambda x: x + 1.0)
    assert float(by_option(jnp.zeros(()))) == 1.0
    assert compiling.calls == 2


def test_functions_of_constants_are_left_alone(compiling):
    assert jax.jit(lambda x, n: x * n, static_argnums=1)(2.0, 3) == 6.0
    assert compiling.calls == 0


def test_a_call_to_the_host_is_refused(compiling):
    def function(x):
        return jax.pure_callback(np.sin, x, x)

    with pytest.raises(BackendError, match=r"^cpu: host: the program waits for the host"):
        jax.jit(function)(np.ones(3, np.float32))


def test_a_program_that_cannot_be_compiled(compiling, monkeypatch):
    def refuse(self):
        raise ValueError("no such tile")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    with pytest.raises(BackendError, match=r"^cpu: the compiler refuses the program: .*no such t"):
        jax.jit(lambda x: x)(np.ones(3, np.float32))
