"""timm's models and their specs: same weights, same image, each in float32."""

import numpy as np
import pytest
import torch

import nfspec
from nfspec.conformance.cases.weights import trial_params
from nfspec.conformance.subjects.torchvision_standin import timm

from .small import slow_on_jax
from golden import relative

# An odd size where padding rules part ways, and one that the stem halves evenly.
CASES = [
    ("dm_nfnet_f0", 96),
    ("nfnet_f0", 96),
    ("eca_nfnet_l0", 97),
    ("nf_regnet_b1", 97),
    ("nf_resnet50", 96),
    ("nf_seresnet26", 97),
    ("nf_ecaresnet26", 97),
    ("test_nfnet", 97),
]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_logits_are_timms(name, size, backend):
    spec = nfspec.load(f"timm/{name}")
    plan = nfspec.resolve(spec)
    # Without kernel means: with them timm, which does not centre twice, is itself up to 1.3e-6 away
    # from the float64 reference, which leaves no room to measure in.
    params = trial_params(plan, 0, kernel_mean=0.0)
    theirs = timm.create_model(name).eval()
    state = nfspec.weights.to_timm(plan, params)
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    x = np.random.default_rng(0).standard_normal((2, size, size, 3)).astype(np.float32)
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    model = nfspec.compile(spec, backend, params)
    logits = model.predict_on_batch(x)
    assert relative(logits, expected.astype(np.float64)) <= 2e-6


@slow_on_jax
@pytest.mark.parametrize(("name", "size"), CASES)
def test_kernels_with_a_mean_stay_near_the_reference(name, size, backend):
    """The same networks where standardisation has a mean to remove, against the exact result."""
    spec = nfspec.load(f"timm/{name}")
    plan = nfspec.resolve(spec)
    params = trial_params(plan, 0)
    x = np.random.default_rng(0).standard_normal((2, size, size, 3)).astype(np.float32)
    exact = nfspec.reference.forward(plan, params, x)["logits"]
    assert relative(nfspec.compile(spec, backend, params).predict_on_batch(x), exact) <= 2e-6
