"""AGC where layers that are not nfspec's are trained with a network: heads and decoders."""

import keras
import numpy as np
import pytest

import nfspec
from nfspec.plan.clipping import part_like, rule_like
from nfspec.reference import training

from .small import small_params, small_plan, small_spec

LIKE = "head.fc.kernel"  # of NFNets, left as it is
CLIPPED = "stages.0.blocks.0.se.fc0.kernel"
U = 2.0**-24


def assert_clipped(clipped, gradient, parameter, like):
    """As the reference clips a kernel whose outputs are its last axis, within rounding of norms of
    a few dozen elements; and more than one unit is."""
    rule = rule_like(small_plan().agc, part_like(small_plan(), like), parameter.shape)
    exact, fraction = training.clip(gradient.astype(float), parameter.astype(float), rule)
    np.testing.assert_allclose(clipped, exact, rtol=64 * U)
    assert fraction == (0.0 if like is None or like == LIKE else 1.0)


def only_on(*backends):
    return pytest.mark.skipif(
        keras.backend.backend() not in backends, reason=f"of {' and '.join(backends)}"
    )


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@only_on("torch")
def test_heads_and_decoders_of_pytorchs_layers():
    """Kernels of PyTorch's own layers are OIHW, OI and, transposed, IOHW; a unit is an output."""
    import torch

    from nfspec.backends.torch import agc

    torch.manual_seed(0)
    module = torch.nn.ModuleDict(
        {
            "backbone": nfspec.compile(small_spec(), "torch", small_params()),
            "decoder": torch.nn.Sequential(
                torch.nn.Conv2d(4, 6, 3), torch.nn.ReLU(), torch.nn.ConvTranspose2d(6, 5, 2)
            ),
            "head": torch.nn.Linear(10, 3),
            "free": torch.nn.Embedding(7, 2),
        }
    )
    module["free"].weight.requires_grad_(False)
    parts = {"decoder.*": CLIPPED, "decoder.2.bias": None, "head.*": LIKE}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    clipping = agc(small_plan(), optimizer, module, treat_as=parts)
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    before = {}
    for i, (name, parameter) in enumerate(trained.items()):
        before[name] = 10 * drawn(*parameter.shape, seed=i)
        parameter.grad = torch.tensor(before[name])
    optimizer.step()
    axes = {
        "decoder.0.weight": (2, 3, 1, 0),
        "decoder.2.weight": (2, 3, 0, 1),
        "head.weight": (1, 0),
    }
    likes = {"decoder.2.bias": None, "head.weight": LIKE, "head.bias": LIKE}
    for name, parameter in trained.items():
        if name.startswith("backbone."):
            like, order = name.removeprefix("backbone."), range(parameter.ndim)
        else:
            like = likes.get(name, CLIPPED)
            order = axes.get(name, (0,))
        clipped, gradient, value = (
            np.transpose(a, order)
            for a in (parameter.grad.numpy(), before[name], parameter.detach().numpy())
        )
        if not name.startswith("backbone."):
            assert_clipped(clipped, gradient, value, like)
    assert clipping.clip_fraction["decoder.0.weight"] == 1.0
    assert "decoder.2.bias" not in clipping.clip_fraction
    assert clipping.clip_fraction["stem.conv0.kernel"] == 1.0


@only_on("torch")
def test_layers_that_nothing_is_said_of_are_as_the_classifier_in_pytorch():
    import torch

    from nfspec.backends.torch import agc

    module = torch.nn.ModuleDict(
        {
            "backbone": nfspec.compile(small_spec(), "torch", small_params()),
            "head": torch.nn.Linear(10, 3),
            "words": torch.nn.Embedding(7, 2),
        }
    )
    every = torch.optim.SGD(module.parameters(), lr=0.1)
    with pytest.warns(UserWarning, match=r"head.weight \(10, 3\), .* as the classifier is"):
        clipping = agc(small_plan(), every, module)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    every.step()
    # The classifier of NFNets is not clipped.
    for name in ("head", "words"):
        assert (module[name].weight.grad == 100.0).all()
    assert clipping.clip_fraction["stem.conv0.kernel"] == 1.0
    agc(small_plan(), every, module, treat_as={"head.*": None, "words.*": None})
    elsewhere = torch.optim.SGD(torch.nn.Linear(3, 2).parameters(), lr=0.1)
    with pytest.raises(nfspec.InputError, match="no parameters made by nfspec"):
        agc(small_plan(), elsewhere, torch.nn.Linear(3, 2))
    with pytest.raises(nfspec.InputError, match=r"words.weight \(7, 2\): the axis of its outputs"):
        agc(small_plan(), every, module, treat_as={"*": CLIPPED})
    agc(small_plan(), every, module, treat_as={"head.*": CLIPPED, "words.*": None})
    # What another optimizer trains is no business of this one's.
    agc(small_plan(), torch.optim.SGD(module["backbone"].parameters(), lr=0.1), module)


@only_on("jax")
def test_a_decoder_beside_the_backbone_in_a_tree():
    import jax

    from nfspec.backends.jax import agc

    params = {
        "backbone": small_params(),
        "decoder": {"conv": {"kernel": drawn(3, 3, 4, 6), "bias": drawn(6)}, "free": drawn(3)},
    }
    gradients = {
        "backbone": {n: 10 * drawn(*p.shape) for n, p in small_params().items()},
        "decoder": {
            "conv": {"kernel": 10 * drawn(3, 3, 4, 6, seed=1), "bias": 10 * drawn(6, seed=1)},
            "free": drawn(3, seed=1),
        },
    }
    clipping = agc(small_plan(), treat_as={"decoder/*": CLIPPED, "decoder/free": None})
    clipped, state = jax.jit(clipping.update)(gradients, clipping.init(params), params)
    for name in ("kernel", "bias"):
        pair = (tree["decoder"]["conv"][name] for tree in (gradients, params))
        assert_clipped(clipped["decoder"]["conv"][name], *pair, CLIPPED)
    np.testing.assert_array_equal(clipped["decoder"]["free"], gradients["decoder"]["free"])
    assert state.clip_fraction["decoder/conv/kernel"] == 1.0
    whole = agc(small_plan())
    start = whole.init(small_params())
    alone, _ = jax.jit(whole.update)(gradients["backbone"], start, small_params())
    for name, gradient in alone.items():
        np.testing.assert_array_equal(clipped["backbone"][name], gradient)
    with pytest.warns(UserWarning, match=r"decoder/conv/bias \(6,\), .* as the classifier is"):
        start = agc(small_plan()).init(params)
        clipped, state = agc(small_plan()).update(gradients, start, params)
    kernel = clipped["decoder"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel, gradients["decoder"]["conv"]["kernel"])
    assert state.clip_fraction["stem.conv0.kernel"] == 1.0
    listed = {"backbone": small_params(), "decoder": [drawn(4, 3), drawn(3)]}
    with pytest.warns(UserWarning, match=r"decoder/0 \(4, 3\), decoder/1 \(3,\)"):
        agc(small_plan()).init(listed)
    misspelt = {**small_params(), "head.fc.kernal": drawn(3, 3)}
    with pytest.raises(nfspec.InputError, match='did you mean "head'):
        agc(small_plan()).init(misspelt)
    with pytest.raises(nfspec.InputError, match="layers that are not nfspec's"):
        agc(small_plan()).init({"decoder": listed["decoder"][0]})
    agc(small_plan(), treat_as={"decoder/*": CLIPPED}).init(listed)


@only_on("tensorflow")
def test_a_decoder_beside_the_backbone_in_a_list():
    import tensorflow as tf

    from nfspec.backends.tensorflow import agc

    model = nfspec.compile(small_spec(), "tensorflow", small_params())
    decoder = keras.layers.Conv2D(6, 3, name="decoder")
    decoder.build((None, 8, 8, 4))
    variables = [*model.trainable_variables, *decoder.trainable_variables]
    gradients = [tf.constant(10 * drawn(*v.shape, seed=i)) for i, v in enumerate(variables)]
    with pytest.warns(UserWarning, match=r"decoder/kernel \(3, 3, 4, 6\), .* the classifier is"):
        clipped = agc(small_plan(), gradients, variables)
    np.testing.assert_array_equal(clipped[-2], gradients[-2])
    with pytest.raises(nfspec.InputError, match=r"decoder/kernel \(3, 3, 4, 6\)"):
        agc(small_plan(), gradients[-2:], variables[-2:])
    parts = {"decoder/*": CLIPPED, "decoder/bias": None}
    clipped = agc(small_plan(), gradients, variables, treat_as=parts)
    kernel = decoder.kernel.numpy()
    assert_clipped(clipped[-2].numpy(), gradients[-2].numpy(), kernel, CLIPPED)
    np.testing.assert_array_equal(clipped[-1], gradients[-1])
    alone = agc(small_plan(), gradients[:-2], model.trainable_variables)
    for one, other in zip(alone, clipped[:-2], strict=True):
        np.testing.assert_array_equal(one, other)


def test_decoders_of_keras_by_patterns():
    """Clipped like a parameter of the network, saved with that, and left as they are by None."""
    decoder, out = (keras.layers.Dense(6, name=name) for name in ("decoder", "decoder_out"))
    variables = []
    for layer in (decoder, out):
        layer.build((None, 10))
        variables += layer.trainable_variables
    parts = {"decoder/*": CLIPPED, "decoder_out/*": None}
    optimizer = nfspec.agc(small_plan(), keras.optimizers.SGD(1.0), parts)
    optimizer = type(optimizer).from_config(optimizer.get_config())
    optimizer.build(variables)
    before = [keras.ops.convert_to_numpy(v) for v in variables]
    gradients = [10 * drawn(*v.shape, seed=i) for i, v in enumerate(variables)]
    given = [keras.ops.convert_to_tensor(g) for g in gradients]
    if keras.backend.backend() == "torch":
        import torch

        with torch.no_grad():
            optimizer.apply(given)
    else:
        optimizer.apply(given)
    moved = [b - keras.ops.convert_to_numpy(v) for v, b in zip(variables, before, strict=True)]
    # A step of 1 adds a rounding of the parameter, of size 1, to each element.
    part = part_like(small_plan(), CLIPPED)
    rule = rule_like(small_plan().agc, part, before[0].shape)
    exact, fraction = training.clip(gradients[0].astype(float), before[0].astype(float), rule)
    np.testing.assert_allclose(moved[0], exact, rtol=64 * U, atol=2 * U)
    assert fraction == 1.0
    np.testing.assert_allclose(moved[2], gradients[2], rtol=64 * U, atol=64 * U)
    assert optimizer.clip_fractions()["decoder/kernel"] == (1.0, 6)
    assert not any(name.startswith("decoder_out") for name in optimizer.clip_fractions())


def test_layers_of_keras_that_nothing_is_said_of_are_as_the_classifier():
    model = nfspec.compile(small_spec(), keras.backend.backend(), small_params())
    whole = keras.Model(model.input, keras.layers.Dense(7, name="own")(model.output))
    optimizer = nfspec.agc(small_plan(), keras.optimizers.SGD(1.0))
    with pytest.warns(UserWarning, match=r"own/kernel \(10, 7\), .* as the classifier is"):
        optimizer.build(whole.trainable_variables)
    assert "own/kernel" not in optimizer.clip_fractions()
    apart = nfspec.agc(small_plan(), keras.optimizers.SGD(1.0))
    with pytest.raises(nfspec.InputError, match="own/kernel"):
        apart.build(whole.layers[-1].trainable_variables)
