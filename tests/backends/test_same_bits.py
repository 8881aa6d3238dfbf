"""Batches of training images and initial weights: the same bits beside each framework, and in a
process without any."""

import json
import subprocess
import sys

# Draws tensors of each distribution and the last two of some networks.
DIGESTS = """
import hashlib, json
import numpy
from PIL import Image
import nfspec
from nfspec.data.batches import Examples, Share, batches
from nfspec.data.sources import Source
from nfspec.language.loader import load
from nfspec.language.overrides import given
from nfspec.plan.initialise import draw

recipe = {"mixup_alpha": 0.2, "cutmix_alpha": 1.0, "randaugment_layers": 4, "flip": True}
values = {("recipe", name): value for name, value in recipe.items()}
spec = load("nfnet-nano", [given("here", values)])
def opened(number):
    pixels = numpy.random.default_rng(number).integers(0, 256, (40, 56, 3), dtype=numpy.uint8)
    return Image.fromarray(pixels)
labels = numpy.arange(60) % 3
source = Source(("a", "b", "c"), labels, tuple(map(str, range(60))), opened)
examples = Examples(source, spec.input, spec.recipe, 5, 16, 6 * 16)
digest = hashlib.sha256()
for images, labels in batches(Share(examples, 16, 0), 3):
    digest.update(images.tobytes() + labels.tobytes())
digests = {"batches": digest.hexdigest()}
for name in ("nfnet-f0", "nf-regnet-b0", "nf-resnet-50", "timm/eca_nfnet_l0"):
    parameters = list(nfspec.resolve(nfspec.load(name)).parameters.values())
    for p in [*{p.init.kind: p for p in parameters[:-2]}.values(), *parameters[-2:]]:
        digests[f"{name}/{p.name}"] = hashlib.sha256(draw(p, 0).tobytes()).hexdigest()
"""


def test_the_same_bits_as_without_a_framework():
    alone = f"import sys; sys.modules['keras'] = None\n{DIGESTS}\nprint(json.dumps(digests))"
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=True)
    here: dict = {}
    exec(DIGESTS, here)
    assert here["digests"] == json.loads(done.stdout)
    assert len(here["digests"]) == 20  # the batches, one of each distribution, two more a network
