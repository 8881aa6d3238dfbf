"""The explorer in a browser, at the widths of a phone, a tablet and a desk, light and dark.

Pictures are written into the folder that NFSPEC_PICTURES names, or a temporary one.
"""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nfspec
from nfspec.design.explorer import page as pages

from chromium import PROGRAM, Page
from trained import trained

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PROGRAM, reason="needs Chromium; on Debian: apt install chromium"),
]
MOST_BYTES, MOST_SECONDS = 5e6, 60.0
WIDTHS = (390, 768, 1440)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    mine = nfspec.load("nfnet-f0", {"name": "moth", "stages.alpha": [0.2, 0.3, 0.3, 0.2]})
    begun = time.process_time()
    text = nfspec.explore([mine])
    assert time.process_time() - begun < MOST_SECONDS
    assert len(text.encode()) < MOST_BYTES
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    path.write_text(text, encoding="utf-8")
    opened = Page(path)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return Path(os.environ.get("NFSPEC_PICTURES") or tmp_path_factory.mktemp("pictures"))


def marks(page):
    """Numbers of dots, lines and bars that are drawn in the three charts."""
    counted = {"scatter": ".dots path", "signal": "path", "costs": "rect"}
    script = "document.querySelectorAll('#{} svg {}').length"
    return [page.run(script.format(name, what)) for name, what in counted.items()]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["nfnet-f0", "nf-resnet-600"])
def test_it_fits_and_is_drawn(page, pictures, name, width, dark):
    page.open(width, dark, f"#n={name}&d=moth")
    page.run("document.querySelectorAll('.tile')[1].click()")
    page.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.run("document.documentElement.scrollWidth") == width
    assert page.run("document.querySelector('#network-title').textContent") == name
    blocks = len(nfspec.resolve(nfspec.load(name)).blocks)
    dots, lines, bars = marks(page)
    assert dots == 1 + len(nfspec.variants()) and lines >= 2 and bars >= blocks + 2
    assert page.run("document.querySelectorAll('.tile').length") == blocks
    assert page.run("document.querySelector('.opened:not([hidden]) h5').textContent").startswith(
        "Block"
    )
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(21, 24, 27)" if dark else "rgb(252, 252, 250)")
    picture = pictures / f"{name}-{width}-{'dark' if dark else 'light'}.png"
    page.picture(picture)
    with Image.open(picture) as image:
        assert image.width == width and np.asarray(image.convert("L")).std() > 5
    assert page.problems == []


def test_the_signal_of_ones_own_network_is_drawn_and_read(page):
    heads = "[...document.querySelectorAll('#blocks thead th')].map((each) => each.textContent)"
    page.open(768, False, "#n=nfnet-f0")
    assert page.run("document.querySelector('#reading').hidden")
    assert "Measured" not in page.run(heads)
    page.open(768, False, "#n=moth")
    assert page.run("document.querySelector('#reading li').textContent").startswith("As expected")
    assert "Measured" in page.run(heads)
    assert page.run("document.querySelectorAll('#signal svg path').length") >= 14  # and crosses
    assert page.problems == []


def focused(page, what):
    return page.run(f"document.activeElement.{what}")


def test_the_keyboard_reaches_everything(page):
    page.open(1440, False)
    seen = []
    for _ in range(12):
        page.press("Tab")
        seen.append(focused(page, "id || document.activeElement.textContent.trim()"))
        if focused(page, "getAttribute('role')") == "button":
            break
    assert seen[:5] == ["To the networks", "Networks", "One network", "Difference of two", "across"]
    first = focused(page, "dataset.name")
    assert first == "moth"  # the user's own is chosen
    page.press("ArrowRight")
    second = focused(page, "dataset.name")
    assert second != first
    ring = "document.querySelector('.ring.shown').getAttribute('transform')"
    assert page.run(f"{ring} === document.activeElement.getAttribute('transform')")
    assert page.run("document.querySelector('.focused').textContent").startswith(f"{second}: MACs ")
    page.press("Enter")
    assert page.run("document.querySelector('#network-title').textContent") == second
    assert focused(page, "id") == "pick"
    page.press("Tab")
    assert focused(page, "className") == "tile"
    page.press("Enter")
    assert focused(page, "getAttribute('aria-expanded')") == "true"
    assert page.run("document.querySelectorAll('.opened:not([hidden]) li').length") > 5
    assert page.problems == []


def test_the_table_sorts_and_filters_and_links(page):
    page.open(768, False)
    page.run("document.querySelector('[data-key=top1]').click()")
    page.run("document.querySelector('[data-key=top1]').click()")
    rows = "[...document.querySelectorAll('#all tbody tr:not([hidden]) a')]"
    assert page.run(f"{rows}[0].textContent") == "nfnet-f6"
    assert page.run("document.querySelector('th[aria-sort=descending]').textContent") == "Top-1"
    page.run(
        "const box = document.querySelector('#filter'); box.value = 'eca_';"
        "box.dispatchEvent(new Event('input'))"
    )
    assert page.run(f"{rows}.length") == 4
    assert page.run("document.querySelectorAll('.dots path').length") == 4
    page.run(f"{rows}[0].click()")
    page.run("new Promise((done) => setTimeout(done, 100))")
    assert page.run("document.querySelector('#network-title').textContent").startswith("timm/eca_")
    assert page.problems == []


def test_files_and_differences(page):
    page.open(768, False, "#n=nfnet-f0&d=moth")
    told = page.run(
        "[...document.querySelectorAll('#differences tbody th')].map((e) => e.textContent)"
    )
    assert told == ["stages.alpha"]
    for target in ("toml", "torch", "numpy"):
        page.run(
            f"document.querySelector('#file').value = '{target}';"
            "document.querySelector('#file').dispatchEvent(new Event('change'));"
            "new Promise((done) => setTimeout(done, 500))"
        )
        text = page.run("document.querySelector('#text').textContent")
        if target == "toml":
            assert 'name   = "nfnet-f0"' in text
        else:
            assert text == nfspec.generate(nfspec.load("nfnet-f0"), to=target)
    assert page.problems == []


def test_a_hostile_text_is_text(page, tmp_path):
    evil = '"><img src=x onerror=alert(1)></script><script>document.title="bad"</script>'
    spec = nfspec.load("nfnet-nano", {"source": evil})
    path = tmp_path / "evil.html"
    path.write_text(nfspec.explore([spec], only=True, accelerators=[]), encoding="utf-8")
    own, page.url = page.url, path.resolve().as_uri()
    page.open(390, False)
    assert page.run("document.title") == "nfspec explorer"
    assert page.run("document.querySelector('#facts dd').textContent") == evil
    assert page.run("document.querySelectorAll('img').length") == 0
    page.url = own
    assert page.problems == []


def test_trainings_are_stars_with_their_top1(page, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "TARGETS", {"numpy": pages.TARGETS["numpy"]})
    long = "x" * 200
    runs = [trained(tmp_path / f"seed-{n}", seed=n, scores=(0.5 + n / 10,)) for n in range(2)]
    runs.append(trained(tmp_path / long, {"stages.alpha": 0.5}, data=f"/{long}"))
    path = tmp_path / "runs.html"
    path.write_text(nfspec.explore(runs=runs, only=True, accelerators=["h100"]), encoding="utf-8")
    own, page.url = page.url, path.resolve().as_uri()
    page.open(390, False, "#n=seed-1")
    page.run("byId('up').value = 'top1'; byId('up').dispatchEvent(new Event('change'))")
    labels = "[...document.querySelectorAll('.dots path')].map((e) => e.getAttribute('aria-label'))"
    assert any("Top-1 60.0 %" in label and "seed-1" in label for label in page.run(labels))
    assert page.run("document.documentElement.scrollWidth") == 390
    facts = page.run("document.querySelector('#facts').textContent")
    assert "on digits, by jax, from seed 1" in facts and "60.0 % on digits" in facts
    page.run("document.querySelector('[data-key=of]').click()")
    page.run(
        "document.querySelector('#file').value = 'numpy';"
        "document.querySelector('#file').dispatchEvent(new Event('change'));"
        "new Promise((done) => setTimeout(done, 500))"
    )
    text = page.run("document.querySelector('#text').textContent")
    assert text == nfspec.generate(nfspec.load("nfnet-nano"), to="numpy")
    page.url = own
    assert page.problems == []
