"""Image files as inputs."""

import numpy as np
import pytest
from PIL import Image

import nfspec
from nfspec.images import prepare, sample_photo
from nfspec.spec import Input

PLAIN = Input(
    channels=3,
    train=32,
    test=32,
    mean=(0.5, 0.25, 0.0),
    std=(0.5, 0.25, 2.0),
    resize="center",
    margin=0,
    crop=1.0,
)


def saved(tmp_path, pixels, mode="RGB"):
    path = tmp_path / "image.png"
    Image.fromarray(np.asarray(pixels, np.uint8), mode=None).convert(mode).save(path)
    return path


def test_pixels_are_normalised_channel_by_channel(tmp_path):
    path = saved(tmp_path, np.full((32, 32, 3), 255))
    found = prepare(path, PLAIN, 32)
    assert found.shape == (1, 32, 32, 3)
    assert found.dtype == np.float32
    assert np.unique(found.reshape(-1, 3), axis=0).tolist() == [[1.0, 3.0, 0.5]]


def test_center_keeps_the_middle_and_squash_keeps_everything(tmp_path):
    pixels = np.zeros((32, 96, 3))
    pixels[:, 32:64] = 255  # the middle third is white
    path = saved(tmp_path, pixels)
    how = PLAIN.model_copy(update={"mean": (0.0,) * 3, "std": (1.0,) * 3})
    assert (prepare(path, how, 32) == 1.0).all()
    squashed = prepare(path, how.model_copy(update={"resize": "squash"}), 32)
    assert squashed.mean() == pytest.approx(1 / 3, abs=0.02)  # two pixels of 32 at each edge blur
    assert (squashed[0, :, [0, -1]] == 0.0).all()


@pytest.mark.parametrize("changes", [{"margin": 32}, {"crop": 0.5}])
def test_margin_and_crop_cut_off_the_border(tmp_path, changes):
    pixels = np.full((64, 64, 3), 255)
    pixels[16:48, 16:48] = 0
    path = saved(tmp_path, pixels)
    how = PLAIN.model_copy(update={"mean": (0.0,) * 3, "std": (1.0,) * 3, **changes})
    assert not prepare(path, how, 32).any()


def test_one_channel(tmp_path):
    path = saved(tmp_path, np.full((40, 40, 3), 51))
    how = PLAIN.model_copy(update={"channels": 1, "mean": (0.0,), "std": (1.0,)})
    found = prepare(path, how, 32)
    assert found.shape == (1, 32, 32, 1)
    assert found == pytest.approx(0.2)


def test_the_sample_photo_is_a_photo():
    found = prepare(sample_photo(), nfspec.load("nfnet-f0").input, 64)
    assert 0.5 < found.std() < 2.0


def test_what_is_not_an_image_is_refused(tmp_path):
    text = tmp_path / "text.png"
    text.write_text("not an image")
    for path in (text, tmp_path / "missing.png", tmp_path):
        with pytest.raises(nfspec.InputError, match=r"not an image that can be read"):
            prepare(path, PLAIN, 32)
    how = PLAIN.model_copy(update={"channels": 4})
    with pytest.raises(
        nfspec.InputError, match="images have 1 or 3 channels, this network's have 4"
    ):
        prepare(text, how, 32)
