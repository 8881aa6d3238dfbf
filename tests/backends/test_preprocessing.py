"""Preprocessing as a layer beside the function, and DeepMind's formulas in TensorFlow."""

import keras
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

import nfspec
from nfspec.backends.preprocessing import Preprocess
from nfspec.backends.running import forward_function

import networks

U = 2.0**-24


@pytest.fixture(scope="module")
def photos():
    china, flower = load_sample_image("china.jpg"), load_sample_image("flower.jpg")
    return [china[:300, :401], flower[:201, :133]]


# squash with a margin, center with a margin, center with a crop, other mean and std.
NETWORKS = ("nfnet-f0", "nf-regnet-b0", "timm/nf_resnet50", "timm/test_nfnet")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_layer_is_the_function_but_for_two_levels(name, photos):
    """Each rounds to levels after a pass, half a level, which the next pass carries on with its
    weights, 1.25 in absolute value in all, and rounds: 1.125 levels for each of the two, so 2 whole
    ones, whichever pass Pillow does first. Nothing here is cut off at 0 or 255, which would depend
    on that."""
    spec = nfspec.load(name)
    for photo in photos:
        photo = photo // 2 + 64
        exact = nfspec.preprocess(spec, 64)(photo)
        found = keras.ops.convert_to_numpy(Preprocess(spec, 64)(photo[None]))
        levels = np.abs(found - exact) * 255 * np.asarray(spec.input.std)
        assert found.dtype == np.float32
        assert levels.max() < 2.01
        assert (levels > 0.01).mean() < 0.2


def test_where_pillow_goes_across_first_nearly_all_values_are_the_same(photos):
    spec, photo = nfspec.load("nfnet-f0"), photos[0]
    exact = nfspec.preprocess(spec, 64)(photo)
    found = keras.ops.convert_to_numpy(Preprocess(spec, 64)(photo[None]))
    assert (np.abs(found - exact) > 1e-3).mean() < 0.001


def test_without_resizing_it_is_float32_rounding_away(photos):
    spec = nfspec.load("nfnet-nano")
    pixels = np.stack([photo[:32, :32] for photo in photos])
    exact = nfspec.preprocess(spec)(list(pixels))
    layer = Preprocess(nfspec.resolve(spec), resize=False)
    found = keras.ops.convert_to_numpy(layer(pixels))
    assert np.abs(found - exact).max() <= 8 * U / min(spec.input.std)
    first = Preprocess(spec, resize=False, data_format="channels_first")
    planar = keras.ops.convert_to_numpy(first(pixels.transpose(0, 3, 1, 2)))
    assert (planar.transpose(0, 2, 3, 1) == found).all()


def test_it_stands_before_a_network_and_is_saved_with_it(photos, backend, tmp_path):
    """Outputs of float32 are off by under 1e-5 of their norm: see test_golden.py."""
    spec = networks.network("plain", tmp_path)
    plan = nfspec.resolve(spec)
    params = nfspec.init(plan, seed=1)
    pixels = keras.Input((None, None, 3), dtype="uint8")
    model = nfspec.compile(spec, backend, params)
    whole = keras.Model(pixels, model(Preprocess(spec)(pixels)))
    assert whole.output.shape == (None, 3)
    x = keras.ops.convert_to_numpy(Preprocess(spec)(photos[0][None]))
    exact = nfspec.reference.forward(plan, params, x)["logits"]
    whole.save(tmp_path / "whole.keras")
    for each in (whole, nfspec.load_model(tmp_path / "whole.keras")):
        found = forward_function(each)(photos[0][None])
        assert np.linalg.norm(found - exact) < 1e-5 * np.linalg.norm(exact)


def test_it_computes_in_float32_under_another_policy(photos):
    spec = nfspec.load("nfnet-nano")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        found = Preprocess(spec)(photos[0][None].astype(np.float32))
    finally:
        keras.config.set_dtype_policy(before)
    assert (
        keras.ops.convert_to_numpy(found) == np.asarray(Preprocess(spec)(photos[0][None]))
    ).all()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="its formulas are TensorFlow's")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_originals_formulas_to_the_bit(name, photos):
    """deepmind-research, nfnets/dataset.py: `_decode_and_resize_then_crop` where all is squashed,
    `_decode_and_center_crop` where the aspect ratio is kept, then `_normalize_image`."""
    import tensorflow as tf

    spec, size = nfspec.load(name), 64
    margin = spec.input.margin or 32  # as the original, which has no other
    spec = spec.model_copy(
        update={"input": spec.input.model_copy(update={"margin": margin, "crop": 1.0})}
    )
    mean, std = ([255 * n for n in each] for each in (spec.input.mean, spec.input.std))
    for photo in (*photos, photos[0][:31, :40], photos[1][:65]):
        if spec.input.resize == "squash":
            side = size + margin
            image = tf.image.resize(photo, (side, side), tf.image.ResizeMethod.BICUBIC)
            edge = (side - size + 1) // 2
            image = tf.image.crop_to_bounding_box(image, edge, edge, size, size)
        else:
            height, width = photo.shape[:2]
            scale = tf.minimum(
                tf.cast(height, tf.float32) / (size + margin),
                tf.cast(width, tf.float32) / (size + margin),
            )
            side = int(tf.cast(scale * size, tf.int32))
            top, left = ((n - side + 1) // 2 for n in (height, width))
            image = tf.image.crop_to_bounding_box(photo, top, left, side, side)
            image = tf.image.resize(image, (size, size), tf.image.ResizeMethod.BICUBIC)
        image -= tf.constant(mean, shape=[1, 1, 3], dtype=image.dtype)
        image /= tf.constant(std, shape=[1, 1, 3], dtype=image.dtype)
        found = nfspec.preprocess(spec, size, original=True)(photo)
        assert (found[0] == image.numpy()).all()


def test_a_size_that_is_not_known_is_refused():
    layer = Preprocess(nfspec.load("nfnet-f0"))
    with pytest.raises(nfspec.InputError, match="height and width of the images are not known"):
        layer._fitted(keras.KerasTensor((None, None, None, 3)))
