"""The blocks of docs/data.md, in the order in which a reader meets them, in one process."""

import re

from pages import session

from folders import picture


def test_the_blocks_run(tmp_path, monkeypatch):
    """With one epoch of small images of two colours."""
    for n in range(10):
        name = "flower" if n % 3 else "temple"
        picture(tmp_path / "photos" / f"{name}-{n:02}.jpg", 20 * n)
    monkeypatch.chdir(tmp_path)
    shown = session("docs/data.md", tmp_path, ("--epochs 20", "--epochs 1"), ("size 64", "size 32"))
    assert re.search(r"^nfnet-nano, 10 images at 32 px$", shown, re.M)
    assert re.search(r"^data +\d+ cores? reads? images as fast as a device trains", shown, re.M)
    classes = (tmp_path / "runs" / "nfnet-nano-shards-torch" / "run.json").read_text()
    assert re.search(r'"classes": \[\s*"flower",\s*"temple"\s*\]', classes)
