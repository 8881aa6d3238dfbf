"""The page of the explorer: what it says, and that nothing in a spec gets out of its text."""

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import combinations, pairwise

import pytest

import nfspec
from nfspec.cost.accelerators import ACCELERATORS
from nfspec.cost.roofline import step
from nfspec.design.explorer import operations
from nfspec.design.explorer import page as pages
from nfspec.design.explorer.networks import Networks, Shown
from nfspec.design.explorer.operations import TIMES
from nfspec.generation.targets import TARGETS
from nfspec.language.differences import differences, spec_fields
from nfspec.language.template import path_text
from nfspec.plan.clipping import clip_rules

from trained import trained

HOSTILE = '"><img src=x onerror=alert(1)></script><script>alert(2)</script><!--\u202e'
NAMES = ("nfnet-f0", "timm/test_nfnet", "nfnet-nano")
VOID = {"meta", "link", "img", "input", "br", "wbr", "hr"}


class Elements(HTMLParser):
    """Every element with its attributes and text, and the elements that it stands in."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.wrong = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", "in": [each["tag"] for each in self.open]}
        self.found.append(element | {"attributes": dict(attributes)})
        if tag not in VOID:
            self.open.append(self.found[-1])

    def handle_endtag(self, tag):
        if not self.open or self.open.pop()["tag"] != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def named(self, *tags):
        return [element for element in self.found if element["tag"] in tags]


def unpacked(elements, name):
    (element,) = [each for each in elements.found if each["attributes"].get("id") == name]
    return json.loads(gzip.decompress(base64.b64decode(element["text"])))


@pytest.fixture(scope="module")
def specs():
    known = {name: nfspec.load(name) for name in NAMES}
    known["hostile"] = nfspec.load("nfnet-nano", {"source": HOSTILE, "agc.clipping": 0.02})
    return known


@pytest.fixture(scope="module")
def text(specs):
    return nfspec.explore([*specs.values()], only=True, accelerators=["h100"], batch=64)


@pytest.fixture(scope="module")
def elements(text):
    return Elements(text)


@pytest.fixture(scope="module")
def data(elements):
    return unpacked(elements, "data")


def test_numbers_are_those_of_the_other_commands(specs, data):
    assert [net["name"] for net in data["networks"]] == [*NAMES, "nfnet-nano (2)"]
    for net, spec in zip(data["networks"], specs.values(), strict=True):
        plan = nfspec.resolve(spec)
        counted = nfspec.count(plan)
        assert (net["parameters"], net["macs"]) == (counted.parameters, counted.macs)
        parts = [net["stem"], *net["blocks"], net["head"]]
        assert [part["macs"] for part in parts] == [row.macs for row in counted.blocks]
        assert sum(part["parameters"] for part in parts) == counted.parameters
        assert [block["beta"] for block in net["blocks"]] == [each.beta for each in plan.blocks]
        expected = nfspec.signal.expected_variance(plan)
        assert [part["variance"] for part in parts[:-1]] == [*expected.values()]
        cost = step(plan, ACCELERATORS["h100"], 64, precision="bfloat16")
        assert net["seconds"] == {"h100": cost.seconds}


def test_the_signal_of_ones_own_networks_is_measured(specs, data):
    """The given ones are all somebody's own, but those that are built in."""
    assert [net["own"] for net in data["networks"]] == [True] * 4  # --only: none stands beside
    net, spec = data["networks"][2], specs["nfnet-nano"]
    plan = nfspec.resolve(spec)
    params = nfspec.signal.with_skip_gain(plan, nfspec.init(plan), 1.0)
    signal = nfspec.signal.measure(plan, params, nfspec.signal.noise(plan, 2, 32))
    assert net["measured"]["variances"] == [row.avg_var for row in signal.signals]
    assert net["measured"]["as_expected"] and net["measured"]["sentences"]
    wrong = nfspec.load("nfnet-nano", {"activation.gamma": 1.0})
    told = Networks([], 1, "float32").data(Shown("wrong", wrong, own=True))["measured"]
    assert not told["as_expected"] and "gamma" in told["sentences"][0]
    assert Networks([], 1, "float32").data(Shown("wrong", wrong))["measured"] is None


def test_accuracies_have_a_source(data):
    stated = {net["name"]: (net["top1"], net["top1_source"]) for net in data["networks"]}
    assert stated["nfnet-f0"] == (
        0.836,
        "deepmind-research/nfnets/README.md; arXiv:2102.06171 table 3",
    )
    assert stated["nfnet-nano"] == (None, "")


def test_specs_mean_the_same_when_they_are_copied(specs, data, tmp_path):
    for net, spec in zip(data["networks"], specs.values(), strict=True):
        (tmp_path / "copied.toml").write_text(net["toml"])
        assert nfspec.load(tmp_path / "copied.toml").digest == spec.digest == net["digest"]


def test_sources_are_those_of_generate(specs, elements):
    sources = {target: unpacked(elements, f"source-{target}") for target in TARGETS}
    assert sources["torch"][0] == nfspec.generate(specs["nfnet-f0"], to="torch")
    assert sources["numpy"][2] == nfspec.generate(specs["nfnet-nano"], to="numpy")
    assert {len(each) for each in sources.values()} == {len(specs)}


def test_fields_differ_where_the_specs_do(specs, data):
    for (a, one), (b, other) in combinations(zip(specs.values(), data["networks"], strict=True), 2):
        told = {path_text(each.path) for each in differences(spec_fields(a), spec_fields(b))}
        fields = one["fields"], other["fields"]
        found = {
            path
            for path in {**fields[0], **fields[1]}
            if fields[0].get(path) != fields[1].get(path)
        }
        assert found == told


def test_groups_have_every_parameter_with_its_rule(specs, data):
    for net, spec in zip(data["networks"], specs.values(), strict=True):
        plan = nfspec.resolve(spec)
        rules = clip_rules(plan).values()
        assert sum(group["tensors"] for group in net["groups"]) == len(plan.parameters)
        assert sum(group["numbers"] for group in net["groups"]) == net["parameters"]
        clipped = [group for group in net["groups"] if group["clipping"] is not None]
        assert sum(group["units"] for group in clipped) == sum(
            rule.units for rule in rules if rule.clipping is not None
        )
    hostile = data["networks"][-1]["groups"]
    assert {group["clipping"] for group in hostile} == {0.02, None}
    assert {group["decay"] for group in hostile if group["role"] in ("gain", "bias")} == {0.0}


def test_a_block_is_drawn_with_its_two_ways(data):
    """F0's first block pools nothing on its shortcut; the first of a later stage does."""
    f0 = data["networks"][0]
    first, second, third = (data["parts"][block["operations"]] for block in f0["blocks"][:3])
    assert [op[0] for op in second if op[3] == "shortcut"] == ["shortcut_pool", "conv_shortcut"]
    assert [op[0] for op in first if op[3] == "shortcut"] == ["conv_shortcut"]
    assert [op[0] for op in second if op[3] == "both"] == ["act0", "add"]
    assert {op[3] for op in third[:-1]} == {"branch"}  # a shortcut that is the block's input
    assert second[0][2] == "gelu_tanh, gamma 1.702, beta 0.9806 after it"
    assert ["conv1", "conv", f"3 {TIMES} 3, 256 → 256, 2 groups, stride 2", "branch"] in second
    assert second[-1][2] == f"0.2 {TIMES} skip gain {TIMES} branch + shortcut"


def test_nothing_in_a_spec_becomes_markup_or_a_script(text, elements, data):
    assert data["networks"][-1]["source"] == HOSTILE.replace("\u202e", "\\u202e")
    assert elements.wrong == [] and elements.named("img", "iframe", "object") == []
    loaded = {"src", "href", "srcset", "action", "data", "poster"}
    for element in elements.found:
        given = element["attributes"]
        assert not [name for name in given if name.startswith("on")]
        assert all(given[name].startswith("#") for name in loaded & {*given})
    scripts = [each for each in elements.named("script") if "id" not in each["attributes"]]
    assert len(scripts) == len(pages.SCRIPTS)
    (policy,) = [
        each["attributes"]["content"]
        for each in elements.named("meta")
        if "http-equiv" in each["attributes"]
    ]
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    digests = [hashlib.sha256(each["text"].encode()).digest() for each in scripts]
    assert allowed == [base64.b64encode(digest).decode() for digest in digests]
    assert policy.startswith("default-src 'none'") and "unsafe-eval" not in policy
    assert "script-src 'unsafe-inline'" not in policy


def test_text_of_a_network_is_escaped_in_the_table(data):
    """Names cannot have such letters; if they ever can, the table stays a table."""
    evil = data["networks"][0] | {"name": "a<b>&\"'</td>\x1b", "family": "<i>"}
    elements = Elements(pages._html([evil], "", {}, data))
    assert elements.wrong == [] and elements.named("b", "i") == []
    (link,) = [each for each in elements.named("a") if "tbody" in each["in"]]
    assert link["text"] == "a<b>&\"'</td>\\x1b"


def test_the_page_has_what_a_screen_reader_needs(elements):
    assert elements.named("html")[0]["attributes"]["lang"] == "en"
    assert [len(elements.named(tag)) for tag in ("title", "h1", "main", "header", "nav")] == [1] * 5
    levels = [int(each["tag"][1]) for each in elements.named("h1", "h2", "h3", "h4")]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    named = {each["attributes"].get("id") for each in elements.found}
    for section in elements.named("section"):
        assert section["attributes"]["aria-labelledby"] in named
    for control in elements.named("select", "input"):
        assert "label" in control["in"] or control["attributes"].get("aria-label")
    assert all(each["attributes"].get("scope") in ("row", "col") for each in elements.named("th"))
    rows = [each for each in elements.named("tr") if "data-number" in each["attributes"]]
    assert len(rows) == len(NAMES) + 1
    for region in elements.found:
        if region["attributes"].get("class", "").startswith("scroll"):
            assert region["attributes"]["role"] == "region" and region["attributes"]["aria-label"]
            assert region["attributes"]["tabindex"] == "0"  # so that the keys scroll it


def test_colours_can_be_read():
    """WCAG 2.2: 4.5 for text, 3 for what is drawn; in both schemes."""
    style = (pages.FOLDER / "explorer.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    for scheme in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", scheme))
        for ground in ("paper", "sunk", "chosen"):
            for ink in ("ink", "quiet", "link"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        for drawn in ("c0", "c1", "c2", "c3", "bar-even", "bar-odd", "bar-end", "edge"):
            assert contrast(colours[drawn], colours["paper"]) >= 3.0, drawn
        assert contrast(colours["warn"], colours["paper"]) >= 4.5


def contrast(one, other):
    def luminance(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_built_in_networks_stand_beside_those_that_are_given(specs, monkeypatch):
    monkeypatch.setattr(pages, "variants", lambda: ("nfnet-nano", "timm/test_nfnet"))
    monkeypatch.setattr(pages, "TARGETS", {})
    given = [specs["hostile"], specs["nfnet-nano"]]  # the second is there already
    data = unpacked(Elements(nfspec.explore(given, accelerators=[])), "data")
    found = [(net["name"], net["own"]) for net in data["networks"]]
    assert found == [("nfnet-nano", False), ("timm/test_nfnet", False), ("nfnet-nano (2)", True)]


def test_trainings_are_points_with_their_top1_and_their_specs(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "TARGETS", {"numpy": TARGETS["numpy"]})
    other = {"stages.alpha": 0.5}
    folders = [
        trained(tmp_path / "a" / "first"),
        trained(tmp_path / "b" / "first", seed=1, scores=(0.7,)),
        trained(tmp_path / "other", other, data=str(tmp_path / "photos"), scores=()),
    ]
    mine = nfspec.load("nfnet-nano", other)
    elements = Elements(nfspec.explore([mine], runs=folders, only=True, accelerators=[]))
    nets = unpacked(elements, "data")["networks"]
    assert [net["name"] for net in nets] == ["nfnet-nano", "first", "first (2)", "other"]
    assert [net["top1"] for net in nets] == [None, 0.9, 0.7, None]
    assert [net["of"] for net in nets] == [None, "digits", "digits", None]
    assert nets[1]["trained"] == "on digits, by jax, from seed 0" and nets[0]["trained"] == ""
    assert nets[3]["trained"].startswith(f"on {tmp_path / 'photos'}, by jax")
    assert all(net["own"] and net["measured"] for net in nets)
    assert nets[3]["fields"]["stages.alpha"] == "0.5" != nets[1]["fields"]["stages.alpha"]
    sources = unpacked(elements, "source-numpy")  # of seeds of one spec, once
    files = [net["file"] for net in nets]
    assert files[1] == files[2] != files[3] and len(sources) == max(files) + 1
    assert sources[files[1]] == nfspec.generate(nfspec.load("nfnet-nano"), to="numpy")
    rows = [each for each in elements.named("tr") if "data-number" in each["attributes"]]
    cells = rows[1]["text"].split()
    assert cells[:2] == ["first", "training"] and "90.0" in cells and "digits" in cells


def test_names_and_data_of_trainings_stay_text(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "TARGETS", {})
    evil = "<img src=x onerror=alert(1)><!--\u202e\x1b"
    folders = [trained(tmp_path / evil, data=f"photos{evil}"), trained(tmp_path / ("x" * 200))]
    text = nfspec.explore(runs=folders, only=True, accelerators=[])
    elements = Elements(text)
    assert elements.wrong == [] and elements.named("img") == []
    nets = unpacked(elements, "data")["networks"]
    assert nets[0]["name"] == "<img src=x onerror=alert(1)><!--\\u202e\\x1b"
    for shown in (text, *(value for net in nets for value in net.values())):
        assert not isinstance(shown, str) or not {"\u202e", "\x1b"} & {*shown}
    assert len(nets[1]["name"]) == 60


def test_a_folder_that_is_no_training_is_a_sentence(tmp_path):
    with pytest.raises(nfspec.InputError, match=r"no training in it \(no run\.json\)"):
        nfspec.explore(runs=[tmp_path], only=True)
    folder = trained(tmp_path / "run")
    (folder / "spec.toml").write_text("stem = 3\n")
    with pytest.raises(nfspec.SpecError, match="SPEC-SCHEMA"):
        nfspec.explore(runs=[folder], only=True)
    (folder / "run.json").write_bytes(b"\xff")
    with pytest.raises(nfspec.InputError, match="not what nfspec train wrote"):
        nfspec.explore(runs=[folder], only=True)
    with pytest.raises(nfspec.InputError, match="201 networks are too many for a page"):
        nfspec.explore(runs=[folder] * 201)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"only": True}, "no network to show"),
        ({"specs": ["nfnet-f0"]}, "^specs: expected what nfspec.load"),
        ({"accelerators": ["h1000"]}, "^accelerator: expected one of"),
        ({"accelerators": ["cpu"]}, "cpu is measured by nfspec cost"),
        ({"batch": 0}, "^batch: "),
        ({"precision": "int4"}, "precision"),
    ],
)
def test_what_cannot_be_shown_is_a_sentence(arguments, message):
    with pytest.raises(nfspec.InputError, match=message):
        nfspec.explore(**arguments)


def test_what_a_conv_does_with_its_kernel_is_told():
    changes = {"ws.eps_rule": ["max", "none", "max", "max"], "ws.gain": [True, True, False, True]}
    parts = operations.drawn(nfspec.resolve(nfspec.load("nfnet-f0", changes)))
    texts = {
        stage: next(op.text for op in parts[f"stages.{stage}.blocks.0"] if op.name == "conv0")
        for stage in range(3)
    }
    assert texts == {
        0: f"1 {TIMES} 1, 128 → 128",
        1: f"1 {TIMES} 1, 256 → 256, not standardised",
        2: f"1 {TIMES} 1, 512 → 768, no gain",
    }
