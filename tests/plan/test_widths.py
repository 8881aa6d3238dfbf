"""A suggestion of a message on widths works, and nothing nearer does."""

import re

import pytest

from nfspec.errors import SpecError
from nfspec.language.loader import load
from nfspec.plan import bottleneck

CASES = [
    ("nf-regnet-b0", {"stages.width_factor": 0.05}),
    ("nfnet-f0", {"stages.width_factor": 0.3}),
    ("nfnet-f0", {"stages.group_width": 1000}),
    ("nfnet-f0", {"stages.group_width": [128, 300, 128, 128]}),
    ("nfnet-f0", {"stages.group_width": 100, "rounding.groups": "exact"}),
    ("nfnet-f0", {"stages.width": [384, 512, 1536, 1536], "rounding.groups": "exact"}),
    ("timm/nfnet_l0", {"stages.width_factor": 0.2}),
]
HINT = re.compile(r"stages\.(group_width|width_factor)(\[\d\])? = (\[[\d, ]+\]|[\d.]+\d)")


def messages(name, over):
    with pytest.raises(SpecError) as error:
        load(name, over)
    return [problem.message for problem in error.value.problems]


@pytest.mark.parametrize("name, over", CASES)
def test_each_suggestion_works_by_itself(name, over):
    (message, *_) = messages(name, over)
    found = HINT.findall(message)
    assert found, message
    for field, index, value in found:
        new = [int(n) for n in re.findall(r"\d+", value)] if "[" in value else float(value)
        new = int(new) if field == "group_width" and not isinstance(new, list) else new
        if index:
            column = list(over["stages.group_width"])
            column[int(index[1:-1])], new = new, None
        load(name, over | {f"stages.{field}": column if new is None else new})


def test_nothing_nearer_works():
    (message,) = messages("nfnet-f0", {"stages.width_factor": 0.3})
    assert "stages.group_width = [38, 76, 128, 128], or stages.width_factor = 1 " in message + " "
    messages("nfnet-f0", {"stages.width_factor": 0.3, "stages.group_width": [39, 76, 128, 128]})
    messages("nfnet-f0", {"stages.width_factor": 0.999})


def test_a_suggestion_is_made_once_for_a_stage(monkeypatch):
    """And not for each of its blocks."""
    asked = []

    def hint(spec, stage):
        asked.append(stage)
        return "none"

    monkeypatch.setattr(bottleneck, "group_hint", hint)
    over = {"stages.depth": [500] * 4, "stages.group_width": 60000}
    assert len(messages("nfnet-f0", over)) == 1
    assert asked == [0, 1, 2, 3]
