"""The reports that are committed: a small run here and now has the verdicts of the one kept."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from pages import blocks

import nfspec
from nfspec.conformance.cases.case import Case
from nfspec.conformance.report.markdown import compact_verdicts
from nfspec.conformance.report.small import SMALL
from nfspec.conformance.running.run import run
from nfspec.conformance.subjects.loading import SHIPPED

REPORTS = Path(__file__).parents[2] / "conformance" / "reports"


@pytest.mark.slow  # a minute and a half
def test_a_small_run_has_the_verdicts_of_the_report_that_is_kept():
    """`make reports` writes small.json by this very run."""
    kept = json.loads((REPORTS / "small.json").read_text())
    results = run(SMALL)
    assert compact_verdicts(results) == kept
    assert results.conformant
    assert {verdict for row in kept.values() for verdict in row.values()} == {"pass"}


@pytest.mark.parametrize("name", ["nfnet-f0", "nf-regnet-b0", "timm-eca_nfnet_l0", "moth"])
def test_the_reports_kept_are_of_the_specs_as_they_are(name):
    path = REPORTS / "moth.toml" if name == "moth" else name.replace("timm-", "timm/")
    text = (REPORTS / f"{name}.md").read_text(encoding="utf-8")
    assert "**CONFORMANT**" in text
    assert nfspec.load(str(path)).digest in text


def test_the_files_in_the_report_of_sources_are_of_the_specs_as_they_are():
    lines = (REPORTS / "SOURCES.md").read_text(encoding="utf-8").splitlines()
    found = [line for line in lines if line.startswith("| `")]
    rows = [[cell.strip("` ") for cell in line.split("|")[1:-1]] for line in found]
    assert {row[0] for row in rows} == {name for name in SHIPPED if "-source" in name}
    for _, network, digest, verdict, *_ in rows:
        path = REPORTS / "moth.toml" if network == "moth" else network
        assert nfspec.load(str(path)).digest.startswith(digest)
        assert verdict.startswith("CONFORMANT")


def test_the_cases_that_the_reports_name_are_those_of_today():
    """Their arrays are drawn from their lines, so that another line would be another case."""
    texts = {
        line
        for path in REPORTS.glob("*.md")
        for line in re.findall(r"nfspec replay '([^']*)'", path.read_text(encoding="utf-8"))
    }
    assert len(texts) > 100
    assert {Case.parse(text).line() for text in texts} == texts


def test_the_variant_of_the_report_is_the_readmes():
    (text,) = blocks("README.md", "toml")
    assert tomllib.loads((REPORTS / "moth.toml").read_text()) == tomllib.loads(text)
