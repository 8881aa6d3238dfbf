"""REPORT.md: what it says, that it is the same for the same run, and that text cannot break it."""

import json
import re
import shlex
from dataclasses import replace

import pytest

from nfspec.conformance.cases.results import Results
from nfspec.conformance.report import causes, messages, words
from nfspec.conformance.report.markdown import code, compact_verdicts, escaped, markdown

from ..sample_results import HOSTILE, all_pass, sample, unjudged


def section(text: str, title: str) -> list[str]:
    """The lines of a section, by the start of its heading."""
    lines = text.split("\n")
    start = next(n for n, line in enumerate(lines) if re.match(rf"#+ {re.escape(title)}", line))
    level = lines[start].split(" ")[0]
    heads = (
        n
        for n, line in enumerate(lines[start + 1 :], start + 1)
        if line.startswith("#") and len(line.split(" ")[0]) <= len(level)
    )
    return lines[start + 1 : next(heads, len(lines))]


def commands(text: str) -> list[dict]:
    """The cases of the replay commands, read as a shell and `nfspec replay` would."""
    lines = re.findall(r"^(?:- .*?`)?(nfspec replay .*?)`?$", text, re.MULTILINE)
    split = [shlex.split(line) for line in lines]
    assert all(words[:2] == ["nfspec", "replay"] and len(words) == 5 for words in split)
    assert {words[3] for words in split} <= {"--backends"}
    return [json.loads(words[2]) for words in split]


@pytest.mark.parametrize(
    "value, text",
    [
        (0.0, "0"),
        (0.12345, "0.12"),
        (0.996, "1"),
        (1.0, "1"),
        (1.004, "1.004"),
        (1.0000001, "1.0000001"),
        (12_345.6, "1.2e+04"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
        ("inf", "inf"),
    ],
)
def test_a_ratio_is_never_on_the_other_side_of_the_bound(value, text):
    assert words.ratio(value) == text


def test_the_verdict_on_the_whole():
    nothing = all_pass()
    for cell in nothing.cells:
        unjudged(cell, "missing")
    heads = [markdown(run).split("\n")[:3] for run in (sample(), all_pass(), nothing)]
    title = ["# Conformance of nfnet-f0", ""]
    assert heads == [
        [*title, "**NOT CONFORMANT**"],
        [*title, "**CONFORMANT**"],
        [*title, "**NOTHING JUDGED**"],
    ]
    assert markdown(replace(nothing, spec=None)).startswith("# Conformance\n")


def test_the_summary():
    text = markdown(sample())
    assert (
        "\n24,936 cases of 25 properties in 6 columns, of which 6 ran; "
        "the worst case: the bits differ, at CONV-01 on jax/cpu/f32.\n"
    ) in text
    nothing = all_pass()
    for cell in nothing.cells:
        unjudged(cell, "hung")
    assert "\n0 cases of 25 properties in 6 columns, of which 6 ran.\n" in markdown(nothing)
    assert "\nCells: 130 pass, 7 fail, 3 not offered, 2 missing, 1 crashed, " in text


def test_every_cell_in_the_tables_of_its_tier():
    results = sample()
    text = markdown(results)
    for info in results.properties:
        (line,) = (t for t in section(text, f"Tier {info.tier}") if t.startswith(f"| {info.id} "))
        cells = [results.cell(info.id, column.name) for column in results.columns]
        entries = re.split(r"(?<!\\)\|", line.strip("|"))[1:]
        assert [entry.strip(" *") for entry in entries] == [words.verdict(cell) for cell in cells]
    assert "| fail 2.3 |" not in text and "| **fail 2.3** |" in text


def test_cases_median_and_worst_of_every_cell():
    results = sample()
    lines = section(markdown(results), "Ratios")
    cell = results.cell("WS-02", "torch/cpu/f32")
    (line,) = (line for line in lines if line.startswith("| WS-02 |"))
    expected = f"200 / {words.ratio(cell.median)} / {words.ratio(cell.worst)}"
    assert line.split(" | ")[3] == expected
    assert any(line.endswith("| 200 / 2.2 / nan |") for line in lines)


def test_what_is_wrong_has_its_message_and_its_command():
    results = sample()
    text = markdown(results)
    wrong = "\n".join(section(text, "What is wrong"))
    assert len(re.findall("^#### ", wrong, re.MULTILINE)) == len(words.bad(results)) == 12
    for cell in words.bad(results):
        for part in messages.parts(cell.message):
            assert words.plain(part.text) in wrong
    told = [cell for cause in causes.causes(results) for cell in cause.cells]
    assert commands(wrong) == [cell.worst_case for cell in told if cell.worst_case]
    assert "Cases by regime: clipped 40, unit at the boundary 0." in wrong
    assert "What is wrong" not in markdown(all_pass())


def test_the_worst_case_of_every_property_that_passes():
    results = all_pass()
    cases = commands("\n".join(section(markdown(results), "Worst cases")))
    assert [case["property"] for case in cases] == [info.id for info in results.properties]
    cells = (c for c in results.cells if c.property == "WS-05")
    assert max(cells, key=lambda cell: cell.worst).worst_case in cases


def test_a_case_with_quotes_can_be_pasted():
    results = sample()
    case = {"property": "ACT-02", "name": "it's `x` \\ é\n"}
    results.cell("ACT-02", "torch/cpu/f32").worst_case = case
    assert case in commands(markdown(results))


def test_deviations_and_other_conventions():
    text = markdown(sample())
    assert section(text, "Known deviations")[1] == (
        "- **jax-tail**, ACT-03 on jax/cpu/f32, versions `>=0.10,<0.11`: rounds where \\<erf\\> "
        "cancels <https://example.org/issues/1> (opened 2026-11-24, expires 2027-05-24)"
    )
    assert section(text, "Other conventions")[1:3] == [
        '- timm/dm_nfnet_f0 asked for nfnet-f0: behaves as ws.eps_rule = "add", '
        'ws.eps = 1e-05, activation.kind = "gelu_erf" (NET-01: ratio 1.2e+04 before, '
        "ratio 0.31 after)",
        "- timm/nf_resnet50 asked for nfnet-f0: no other conventions were found with which it "
        "conforms (NET-01: no bound holds)",
    ]
    assert "Known deviations" not in markdown(all_pass())


def test_the_environment_and_the_run():
    results = sample()
    results.columns[1] = replace(results.columns[1], facts={}, problem="jax: no bf16")
    text = markdown(results)
    environment = section(text, "Environment")
    rest = "2.13.0+cpu | 2.13.0+cpu | 2.21.0 | 2.21.0"
    assert f"| version | 0.10.2 | - | {rest} |" in environment
    assert "| switches.precision | highest | - |" in "\n".join(environment)
    assert "- jax/cpu/bf16: jax: no bf16" in environment
    assert f"| spec digest | {'5f0c' * 16} |" in section(text, "Run")
    assert '| modes | \\["f32", "bf16"\\] |' in section(text, "Run")
    assert "of which 5 ran" in text


def test_equal_runs_differ_in_one_line():
    later = sample()
    later.started, later.seconds = "2026-12-01T00:00:00Z", 999.0
    for cell in later.cells:
        cell.seconds += 1
    lines = zip(markdown(sample()).split("\n"), markdown(later).split("\n"), strict=True)
    assert [a for a, b in lines if a != b] == ["Started 2026-11-24T08:15:00Z; took 312 s."]


def test_a_run_read_from_json_gives_the_same_report():
    results = sample()
    assert markdown(Results.from_json(results.to_json())) == markdown(results)


def test_the_order_in_which_cells_finished_does_not_matter():
    results = sample()
    results.cells.reverse()
    assert section(markdown(results), "What is wrong") == section(
        markdown(sample()), "What is wrong"
    )


def test_hostile_text_stays_text():
    text = markdown(sample())
    fences = re.sub(r"^(`{3,})\w+\n.*?\n\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    outside = re.sub(r"(?<![\\`])(`+)(?!`).*?(?<!`)\1(?!`)", "", fences)
    tags = re.findall(r"(?<!\\)<(?!https:)/?\w+", outside)
    assert set(tags) == {
        "<details", "<summary", "<code", "</code", "</summary", "</details"
    }  # fmt: skip
    assert "\x1b" not in text and r"\\x1b\[2J" in text
    assert f"````text\n{words.plain(HOSTILE)}" in text


def test_one_line_of_text_and_of_code():
    assert escaped("a|b\n`c` <d> [e](f) *g* & \\ \x07") == (
        r"a\|b \`c\` \<d\> \[e\](f) \*g\* \& \\ \\x07"
    )
    assert code("a ``b`` c") == "```a ``b`` c```"
    assert code("`a") == "`` `a ``"


def test_the_verdicts_that_two_runs_are_compared_by():
    verdicts = compact_verdicts(sample())
    assert len(verdicts) == 25 and all(len(columns) == 6 for columns in verdicts.values())
    assert verdicts["ACT-03"]["jax/cpu/f32"] == "deviates"
    assert verdicts["BLOCK-03"]["tensorflow/cpu/bf16"] == "no result"
    assert json.loads(json.dumps(verdicts)) == verdicts
