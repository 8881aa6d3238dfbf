"""Forward pass of NFNet-F0 against timm's, batch 4 at 192 px, float32, in one run.

    KERAS_BACKEND=jax python -m pytest benchmarks --benchmark-only

Compare the rows of a run with one another, by their ratio, and never with another run's.
"""

import numpy as np
import pytest
import torch

import nfspec
from nfspec.compilation import BACKENDS
from nfspec.conformance.subjects.torchvision_standin import timm
from nfspec.conformance.trial import trial_params

pytestmark = pytest.mark.benchmark(group="forward, NFNet-F0, 4 x 192 px", warmup=True, min_rounds=5)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4, 192, 192, 3)).astype(np.float32)


def test_timm_eager(benchmark, images):
    model = timm.create_model("dm_nfnet_f0").eval()
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    with torch.inference_mode():
        benchmark(model, x)


def test_nfspec(benchmark, images):
    import keras

    from nfspec.backends.running import forward_function

    backend = keras.backend.backend()
    assert backend in BACKENDS
    spec = nfspec.load("nfnet-f0")
    model = nfspec.compile(spec, backend, trial_params(nfspec.resolve(spec), 0))
    logits = keras.Model(model.input, {"logits": model.output})
    benchmark.extra_info["backend"] = backend
    benchmark(forward_function(logits), images)
