"""Two implementations against each other and the reference."""

import json
import shlex
from math import inf

import pytest
from typer.testing import CliRunner

from nfspec.cli import app
from nfspec.conformance.report.against import against_lines
from nfspec.conformance.running.against import Against, Place, against
from nfspec.errors import InputError

from .small_runs import good, subjects


def compared(a, b, *properties):
    return against(good(subjects=subjects(a, b), properties=properties))


def test_which_of_two_has_moved_and_where_first(folder):
    comparison = compared("Good", "Off", "EXACT-03", "ACT-01")
    assert comparison.verdict == "THEY DIFFER"
    bits, activation = comparison.places
    assert (bits.property, bits.name, bits.a, bits.b) == ("EXACT-03", "y", 0.0, inf)
    assert activation.a <= 1.0 < activation.b
    # Twice the bound, and A's own error on either side.
    half = activation.b / 2
    assert abs(activation.apart - half) <= 0.5
    assert {place.moved for place in comparison.places} == {"B"}
    assert json.loads(activation.case)["property"] == "ACT-01"
    assert comparison.first == [bits]
    *_, verdict, sentence, command = against_lines(comparison)
    assert [verdict, sentence] == [
        "THEY DIFFER",
        "first in operations: EXACT-03 y: fakes:Off is beyond the reference's bound, fakes:Good is "
        "within it",
    ]
    line = shlex.quote(bits.case)
    assert command == f"cd {folder} && nfspec replay {line} --subject fakes:Off"


def test_two_that_are_wrong_in_the_same_way_agree(folder):
    comparison = compared("Off", "Off2", "ACT-01")
    (place,) = comparison.places
    assert (comparison.verdict, place.moved, place.apart) == ("THEY AGREE", "both", 0.0)


def test_an_error_of_one_is_a_difference_and_what_is_not_offered_is_none(folder):
    comparison = compared("Patchy", "Shy", "ACT-01", "AGC-01")
    assert comparison.verdict == "THEY DIFFER"
    assert [place.differ for place in comparison.places] == [False]
    assert comparison.errors == [
        "ACT-01: fakes:Patchy: ValueError: elu", "ACT-01: fakes:Patchy: ValueError: selu",
    ]  # fmt: skip
    assert comparison.unoffered == ["AGC-01"]


def test_the_first_place_of_each_kind_in_the_order_of_the_network():
    names = ("stem", "stages.0.blocks.0", "logits")
    places = zip(names, (0.0, 4.0, 5.0), strict=True)
    net = [Place("NET-01", name, "f32", 0.1, 9.0, apart) for name, apart in places]
    blocks = [Place("BLOCK-01", "stages.1.blocks.0", "f32", 9.0, 9.0, 2.0)]
    comparison = Against("a", "b", places=[*blocks, *net])
    assert [place.name for place in comparison.first] == ["stages.1.blocks.0", "stages.0.blocks.0"]
    assert [place.moved for place in comparison.first] == ["both", "B"]


def test_the_command(folder):
    def command(a, b, *options):
        two = ("--against", f"fakes:{a}", f"fakes:{b}")
        arguments = ("conform", *two, "--properties", "EXACT-03,AGC-01", *options)
        return CliRunner().invoke(app, arguments)

    done = command("Good", "Off", "--json")
    assert done.exit_code == 1
    data = json.loads(done.stdout)
    assert (data["verdict"], data["a"], data["b"]) == ("THEY DIFFER", "fakes:Good", "fakes:Off")
    assert data["places"][0]["moved"] == "B" and data["places"][0]["b"] == "inf"
    assert data["first"][0]["property"] == "EXACT-03"
    done = command("Good", "Wide")
    assert done.exit_code == 0
    assert "THEY AGREE" in done.stdout.splitlines()
    done = command("Shy", "Good", "--properties", "AGC-01")
    assert done.exit_code == 2
    assert done.stdout.splitlines()[-2:] == [
        "not offered by one of them: AGC-01", "NOTHING COMPARED",
    ]  # fmt: skip
    assert not (folder / "conformance-results").exists()


@pytest.mark.parametrize("names", [("Good",), ("Good", "Off", "Shy")])
def test_two_are_needed(names):
    with pytest.raises(InputError, match="against: expected two subjects; found "):
        against(good(subjects=subjects(*names)))
