"""Any image as a network's input: timm's pixels, every kind of image, and what is refused."""

import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import cbook
from PIL import ExifTags, Image
from sklearn.datasets import load_sample_image

import nfspec
from nfspec.data.images import fit, layout
from nfspec.data.preprocessing import Preprocessing, input_of

from standin import timm  # isort: skip  (before timm is imported by another way)
from timm.data import transforms_factory as factory

U = 2.0**-24  # unit roundoff of float32


@pytest.fixture(scope="module")
def photos():
    """Two landscapes, a portrait, and one whose sides leave halves of a pixel everywhere."""
    china = Image.fromarray(load_sample_image("china.jpg"))
    flower = Image.fromarray(load_sample_image("flower.jpg"))
    with Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as hopper:
        portrait = hopper.convert("RGB")
    return [china, flower.crop((1, 2, 334, 253)), portrait, china.resize((201, 77))]


# torchvision's transforms on PIL images, by its formulas (0.28, transforms/functional.py), since
# its builds do not match every build of torch.
class Resize:
    def __init__(self, size, interpolation):
        self.size, self.filter = size, interpolation

    def __call__(self, image):
        if isinstance(self.size, tuple):
            height, width = self.size
        else:
            shorter, longer = sorted(image.size)
            long = self.size if shorter == longer else int(self.size * longer / shorter)
            tall = image.height > image.width
            width, height = (self.size, long) if tall else (long, self.size)
        return image.resize((width, height), self.filter)


class CenterCrop:
    def __init__(self, size):
        self.size = (size, size) if isinstance(size, int) else size

    def __call__(self, image):
        height, width = self.size
        top = round((image.height - height) / 2.0)
        left = round((image.width - width) / 2.0)
        return image.crop((left, top, left + width, top + height))


def compose(steps):
    def run(image):
        for step in steps:
            image = step(image)
        return image

    return run


@pytest.fixture
def torchvision(monkeypatch):
    own = SimpleNamespace(Resize=Resize, CenterCrop=CenterCrop, Compose=compose)
    monkeypatch.setattr(factory, "transforms", own)
    monkeypatch.setattr(factory, "MaybePILToTensor", lambda: np.asarray)
    monkeypatch.setattr(factory, "str_to_interp_mode", lambda name: Image.Resampling[name.upper()])


NETWORKS = [f"dm_nfnet_f{n}" for n in range(7)]
NETWORKS += ["nfnet_l0", "eca_nfnet_l1", "nf_regnet_b1", "nf_resnet50", "test_nfnet"]


def timms(name):
    """timm's own configuration of a network, and its transform of a PIL image to pixels."""
    cfg = timm.models.nfnet.default_cfgs[name].default.to_dict()
    size = (cfg.get("test_input_size") or cfg["input_size"])[-1]
    crop = cfg.get("test_crop_pct") or cfg["crop_pct"]
    transform = factory.create_transform(
        size,
        interpolation=cfg["interpolation"],
        mean=cfg["mean"],
        std=cfg["std"],
        crop_pct=crop,
        crop_mode=cfg.get("crop_mode"),
        use_prefetcher=True,  # pixels, which timm normalises later
    )
    return cfg, size, crop, transform


@pytest.mark.parametrize("name", NETWORKS)
def test_pixels_are_those_of_timms_transform(name, torchvision, photos):
    """To the bit; the numbers after it but for float32 rounding:
    timm divides, subtracts and divides in float32, three roundings of numbers of at most
    1 / std and one of mean and std each, and the result here has one rounding."""
    cfg, size, crop, transform = timms(name)
    spec = nfspec.load(f"timm/{name}")
    assert (spec.input.mean, spec.input.std) == (cfg["mean"], cfg["std"])
    assert (spec.input.test, spec.input.crop) == (size, crop)
    how = spec.input
    for photo in photos:
        pixels = transform(photo)
        assert (np.asarray(fit(photo, how, size)) == pixels).all()
        mean, std = (np.asarray(cfg[key], np.float32) for key in ("mean", "std"))
        exact = (pixels.astype(np.float32) / np.float32(255) - mean) / std
        off = np.abs(Preprocessing(how, size)(photo)[0] - exact)
        assert off.max() <= 8 * U / min(cfg["std"])


def test_layouts_are_torchvisions_whatever_the_sides():
    how = nfspec.load("timm/nf_resnet50").input
    for width, height in ((500, 375), (375, 500), (333, 334), (64, 64), (1, 100), (640, 427)):
        for size in (32, 33, 96, 224, 225):
            side = math.floor(size / how.crop)
            image = Resize(side, Image.Resampling.NEAREST)(Image.new("1", (width, height)))
            across, down, left, top = layout(how, size, width, height)
            assert (across, down) == image.size
            assert left == round((image.width - size) / 2.0)
            assert top == round((image.height - size) / 2.0)


# every kind of image


SPEC = nfspec.load("nfnet-nano")


def test_a_path_bytes_an_image_and_an_array_are_one_thing(tmp_path, photos):
    photos[0].save(tmp_path / "a.png")
    prepare = nfspec.preprocess(SPEC)
    expected = prepare(photos[0])
    assert expected.shape == (1, 32, 32, 3) and expected.dtype == np.float32
    pixels = np.asarray(photos[0])
    kinds = [tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes(), pixels]
    assert (prepare(kinds) == expected).all() and prepare(kinds).shape == (4, 32, 32, 3)
    assert (prepare(pixels[None]) == expected).all()
    planar = nfspec.preprocess(nfspec.resolve(SPEC), layout="nchw")(pixels)
    assert (planar == expected.transpose(0, 3, 1, 2)).all() and planar.flags.c_contiguous
    assert nfspec.preprocess(SPEC, 24)(pixels).shape == (1, 24, 24, 3)


def test_arrays_of_one_and_four_channels(photos):
    prepare = nfspec.preprocess(SPEC)
    grey = np.asarray(photos[0].convert("L"))
    assert (prepare(grey) == prepare(np.stack([grey] * 3, 2))).all()
    assert (prepare(grey[:, :, None]) == prepare(grey)).all()
    pixels = np.asarray(photos[0].convert("RGBA"))
    assert (prepare(pixels) == prepare(photos[0])).all()


@pytest.mark.parametrize("turned", range(1, 9))
def test_a_photograph_is_turned_as_its_camera_says(turned, photos):
    """Its pixels as they are stored, and a tag that says how they are to be seen."""
    undone = {
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 2: Image.Transpose(0),
        7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
    }  # fmt: skip
    image = photos[1]
    stored = image.transpose(undone[turned]) if turned > 1 else image
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turned
    prepare = nfspec.preprocess(SPEC)
    for kind in ("PNG", "TIFF"):
        file = io.BytesIO()
        stored.save(file, kind, exif=exif)
        assert (prepare(file.getvalue()) == prepare(image)).all(), kind


def test_damaged_exif_data_turn_nothing(photos):
    for damage in (b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0", b"Exif\0\0" + bytes(20)):
        file = io.BytesIO()
        photos[1].save(file, "PNG", exif=damage)
        assert (
            nfspec.preprocess(SPEC)(file.getvalue()) == nfspec.preprocess(SPEC)(photos[1])
        ).all()


def test_a_plan_keeps_the_input_of_its_spec():
    for name in ("nfnet-f0", "timm/test_nfnet"):
        spec = nfspec.load(name)
        assert input_of(nfspec.resolve(spec)) == spec.input


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("nowhere.png", "nowhere.png: cannot be read (No such file or directory)"),
        (b"text", "image 0: cannot be read (none of "),
        (3, "image: expected a path, bytes, a PIL image or an array; found 3"),
        ([], "preprocess: no images given"),
        (np.zeros((0, 4, 4, 3), np.uint8), "preprocess: no images given"),
        (np.zeros((4, 4, 3)), "expected an array of uint8, of 0 to 255; found float64"),
        (np.zeros((3, 8, 8), np.uint8), "or (height, width, channels) with 1, 3 or 4 channels"),
        (np.zeros(4, np.uint8), "found the shape (4,)"),
        (np.zeros((0, 4, 3), np.uint8), "image 0: cannot be read (4 x 0 px"),
        ([Image.new("RGB", (1, 200))], "1 x 200 px: one side is over 100 times the other"),
        (Image.new("I", (4, 4), 1000), "more than 8 bits a channel"),
    ],
)
def test_what_is_no_image_is_a_sentence(image, message):
    with pytest.raises(nfspec.InputError) as error:
        nfspec.preprocess(SPEC)(image)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nfnet-nano",), "plan: expected what nfspec.resolve or nfspec.load returns"),
        ((SPEC, 0), "size: expected a whole number of px from 1 on; found 0"),
        ((SPEC, None, "hwc"), 'layout: expected one of "nhwc", "nchw"'),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(nfspec.InputError) as error:
        nfspec.preprocess(*arguments)
    assert str(error.value).startswith(message)
