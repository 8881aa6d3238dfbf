"""report.html: that it says what the results say, loads nothing, and fits a phone and a desk."""

import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from nfspec.conformance.cases.results import HISTOGRAM_EDGES, Cell, histogram
from nfspec.conformance.report import causes, words, write
from nfspec.conformance.report.html import BAR, HEIGHT, LEFT, TOP, histogram_of, html, shade
from nfspec.errors import NfspecError

from ..sample_results import HOSTILE, all_pass, sample

VOID = {"meta", "wbr"}
CLOSED = {"rect", "path"}
LOADING = {"src", "srcset", "data", "action", "background", "poster", "xlink:href"}


class Page(HTMLParser):
    """Tags with their attributes, the text, and that every tag is closed where it should be."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        assert tag in CLOSED

    def handle_endtag(self, tag):
        assert tag == self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


def test_every_cell_with_its_verdict_in_the_order_of_the_table():
    results = sample()
    page = html(results)
    verdicts = re.findall(r'<span class="verdict">(.*?)</span>', page)
    assert verdicts == [
        words.verdict(results.cell(info.id, column.name))
        for _, infos in words.tiers(results).items()
        for info in infos
        for column in results.columns
    ]


def test_it_says_what_the_text_report_says():
    results = sample()
    text = Page(html(results)).text
    said = [
        results.verdict,
        *words.beside(results),
        *causes.answers(results),
        *results.notes,
        *(cause.heading for cause in causes.causes(results)),
        *words.TIERS.values(),
        words.summary(results),
        words.run_line(results),
        *(causes.explanation(results, entry) for entry in results.explanations),
        *(words.plain(cell.message) for cell in words.bad(results)),
        *(words.replay(results, cell) for cell in results.cells if cell.worst_case),
        *(words.figures(cell) for cell in results.cells),
        *(text for setting in words.run_settings(results) for text in setting),
        "eps 31 (kernels so flat that eps matters), odd size 88",
        "rounds where <erf> cancels",
        "torch has no bf16 optimizer state here",
        "switches.precision",
    ]
    assert [line for line in said if " ".join(line.split()) not in text] == []


def test_it_loads_and_runs_nothing():
    page = Page(html(sample()))
    assert not {"script", "link", "img", "image", "iframe", "object", "use"} & {
        tag for tag, _ in page.tags
    }
    for tag, attributes in page.tags:
        assert not LOADING & attributes.keys()
        assert not any(name.startswith("on") for name in attributes)
        assert "href" not in attributes or tag == "a"
    (style,) = re.findall(r"<style>(.*?)</style>", html(sample()), re.DOTALL)
    assert "url(" not in style and "@import" not in style
    policies = [a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a]
    assert policies == [
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    ]


def test_its_links_lead_to_what_is_there():
    page = Page(html(sample()))
    links = [str(attributes["href"]) for tag, attributes in page.tags if tag == "a"]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert [link for link in links if not link.startswith("#")] == ["https://example.org/issues/1"]


def test_hostile_text_stays_text():
    results = sample()
    results.deviations[0]["link"] = "javascript:alert(1)"
    results.columns[0] = replace(results.columns[0], facts={"version": HOSTILE})
    results.settings["note"] = '"><script>x</script>\x00\udc80'
    page = Page(html(results))
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any("javascript" in str(a.get("href")) for _, a in page.tags)
    assert r'"><script>x</script>\x00\udc80' in page.text
    assert page.text.count(words.plain(HOSTILE)) > 6
    html(results).encode()


def a_cell(verdict: str, worst: float, cases: int = 1) -> Cell:
    return Cell("P-01", "jax/cpu/f32", verdict, cases, worst, worst, histogram([worst]))


@pytest.mark.parametrize(
    "cell, classes",
    [
        (None, "none"),
        (a_cell("not offered", 0, 0), "none"),
        (a_cell("crashed", 0, 0), "bad broken"),
        (a_cell("pass", 0.0), "good w0"),
        (a_cell("pass", 2.0**-8), "good w0"),
        (a_cell("pass", 0.3), "good w4"),
        (a_cell("pass", 1.0), "good w5"),
        (a_cell("uncovered", 0.3), "bad w4"),
        (a_cell("deviates", 1.001), "good b0"),
        (a_cell("fail", 16.0), "bad b1"),
        (a_cell("fail", 1e30), "bad b2"),
        (a_cell("fail", math.inf), "bad b2"),
        (a_cell("fail", math.nan), "bad b2"),
    ],
)
def test_the_shade_of_a_cell(cell, classes):
    assert shade(cell) == classes


def test_a_histogram_is_drawn_to_scale():
    ratios = [0.3] * 10 + [0.7] * 5 + [3.0] + [math.inf]
    drawn = histogram_of(replace(a_cell("fail", math.inf), histogram=histogram(ratios)))
    meanings = ["2⁻² to 2⁻¹: 10 cases", "2⁻¹ to 1: 5 cases", "2¹ to 2²: 1 case"]
    assert [bar.meaning for bar in drawn.bars] == [*meanings, "2⁴ and above: 1 case"]
    assert [bar.height for bar in drawn.bars[:2]] == [HEIGHT, HEIGHT / 2]
    assert all(bar.y + bar.height == pytest.approx(TOP + HEIGHT, abs=0.1) for bar in drawn.bars)
    assert [bar.beyond for bar in drawn.bars] == [False, False, True, True]
    # The line at 1 is where the bin from 1/2 to 1 ends.
    assert drawn.one == drawn.bars[1].x + BAR == LEFT + BAR * (1 + HISTOGRAM_EDGES.index(1.0))
    assert (drawn.one, "1") in drawn.labels
    assert histogram_of(a_cell("fail", 2.0)).bars[0].x == drawn.one + BAR
    assert histogram_of(replace(a_cell("missing", 0), histogram=[])) is None


def test_few_among_many_can_be_seen():
    drawn = histogram_of(replace(a_cell("pass", 0.1), histogram=[100_000, 1] + [0] * 16))
    assert drawn.bars[1].height == 2


def test_a_run_without_columns_or_cells():
    results = replace(all_pass(), columns=[], cells=[], properties=[], spec=None, settings={})
    assert "NOTHING JUDGED" in Page(html(results)).text


def test_the_three_files(tmp_path):
    folder = tmp_path / "a" / "b"
    write(sample(), folder)
    names = {"results.json", "REPORT.md", "report.html"}
    assert {path.name for path in folder.iterdir()} == names
    write(all_pass(), folder)
    assert json.loads((folder / "results.json").read_text(encoding="utf-8"))["conformant"] is True
    assert "**CONFORMANT**" in (folder / "REPORT.md").read_text(encoding="utf-8")
    assert {path.name for path in folder.iterdir()} == names


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NfspecError, match="file/x: cannot be made: Not a directory"):
        write(sample(), tmp_path / "file" / "x")


# Two widths side by side; what a browser makes of the page, as JSON in the measuring page's DOM.
MEASURE = """<!DOCTYPE html><title>measure</title>
<iframe src="report.html" width="360" height="900"></iframe>
<iframe src="report.html" width="1280" height="900"></iframe>
<pre id="found"></pre>
<script>
onload = () => {
  const found = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument, root = page.documentElement;
    const cells = [...page.querySelectorAll(".heat .shade")];
    const closed = root.scrollWidth;
    const shown = cells.filter((cell) => {
      const box = cell.getBoundingClientRect();
      return box.width > 40 && box.left >= 0 && box.right <= root.clientWidth;
    }).length;
    const clipped = cells.filter((cell) => cell.scrollWidth > cell.clientWidth).length;
    for (const details of page.querySelectorAll("details")) details.open = true;
    const panels = [...page.querySelectorAll(".panel")].map((p) => p.getBoundingClientRect());
    return {
      width: root.clientWidth, closed, opened: root.scrollWidth, shown, clipped,
      panels: [Math.min(...panels.map((p) => p.width)), Math.max(...panels.map((p) => p.right))],
      requests: frame.contentWindow.performance.getEntriesByType("resource").length,
      cells: cells.map((cell) => cell.textContent.trim()),
    };
  });
  document.querySelector("#found").textContent = JSON.stringify(found);
};
</script>
"""


def browser() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(names)} is on PATH")
    return program


def test_in_a_browser_on_a_phone_and_on_a_desk(tmp_path):
    results = sample()
    write(results, tmp_path)
    (tmp_path / "measure.html").write_text(MEASURE, encoding="utf-8")
    options = "--headless --no-sandbox --disable-gpu --allow-file-access-from-files --dump-dom"
    console = ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
    page = (tmp_path / "measure.html").as_uri()
    done = subprocess.run(
        [browser(), *options.split(), *console, page], capture_output=True, text=True, timeout=120
    )
    assert [line for line in done.stderr.split("\n") if "CONSOLE" in line] == []
    dumped = re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.DOTALL)
    assert dumped, done.stderr
    phone, desk = json.loads(dumped[1])
    cells = [
        f"{column.name} {words.verdict(results.cell(info.id, column.name))}"
        for infos in words.tiers(results).values()
        for info in infos
        for column in results.columns
    ]
    for measured, width in ((phone, 360), (desk, 1280)):
        assert width - 20 <= measured["width"] <= width  # less a scroll bar
        assert measured["closed"] == measured["opened"] == measured["width"]
        assert measured["cells"] == cells
        assert (measured["shown"], measured["clipped"]) == (len(cells), 0)
        assert measured["requests"] == 0
        assert measured["panels"][0] > 0.85 * measured["width"]
        assert measured["panels"][1] <= measured["width"]
