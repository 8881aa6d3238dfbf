"""The cores that read images as fast as a device trains."""

import pytest

import nfspec
from nfspec.cost.decoding import LAYER, READ, RESIZE, REST, decoding_seconds


def test_what_a_recipe_does_to_an_image_takes_its_time():
    recipe, pixels = nfspec.load("nfnet-f0").recipe, 192 * 192
    layers = recipe.randaugment_layers
    whole = 2 * (READ + RESIZE * pixels) + (LAYER * layers + REST) * pixels
    assert layers == 4 and decoding_seconds(recipe, 192) == pytest.approx(whole)
    alone = recipe.model_copy(update={"mixup_alpha": 0.0, "cutmix_alpha": 0.0})
    assert decoding_seconds(alone, 192) == pytest.approx(whole - READ - RESIZE * pixels)
    for kind in ("mixup_alpha", "cutmix_alpha"):
        assert decoding_seconds(alone.model_copy(update={kind: 0.2}), 192) == pytest.approx(whole)
    plain = alone.model_copy(update={"randaugment_layers": 0})
    assert decoding_seconds(plain, 64) == decoding_seconds(None, 64)
    assert decoding_seconds(None, 64) == pytest.approx(READ + (RESIZE + REST) * 4096)
