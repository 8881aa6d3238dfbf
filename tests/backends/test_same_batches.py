"""Batches of training images in a process of each framework, and in one without any."""

import subprocess
import sys

DIGEST = """
import hashlib
from nfspec.data.batches import Examples, Share, batches
from nfspec.data.sources import open_sources
from nfspec.language.loader import given, load

recipe = {"mixup_alpha": 0.2, "cutmix_alpha": 1.0, "randaugment_layers": 4, "flip": True}
values = {("recipe", name): value for name, value in recipe.items()}
spec = load("nfnet-nano", [given("here", values)])
source, _ = open_sources("digits", 0.2, 0)
examples = Examples(source, spec.input, spec.recipe, 5, 16, 20 * 16)
digest = hashlib.sha256()
for images, labels in batches(Share(examples, 16, 0), 3):
    digest.update(images.tobytes() + labels.tobytes())
"""


def test_the_same_bits_as_without_a_framework():
    alone = "import sys; sys.modules['keras'] = None\n" + DIGEST + "\nprint(digest.hexdigest())"
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=True)
    here: dict = {}
    exec(DIGEST, here)
    assert here["digest"].hexdigest() == done.stdout.strip()
