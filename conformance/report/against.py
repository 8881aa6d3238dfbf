"""A comparison of two implementations as a terminal shows it, and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

from nfspec.conformance.cases.results import finite
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.report import words
from nfspec.conformance.running.against import Against, Moved, Place
from nfspec.conformance.running.command import replay_command
from nfspec.console import table

# What a tier's places are called.
PLACES = {
    0: "operations",
    1: "operations",
    2: "blocks, each fed with the reference's input",
    3: "the network",
    4: "the optimizer and the weights",
}


def against_lines(comparison: Against) -> list[str]:
    """A table of all places, and in which of them the two differ first."""
    rows = [["", "A", "B", "A - B"]]
    rows += [
        [_label(place), _ratio(place.a), _ratio(place.b), _ratio(place.apart)]
        for place in comparison.places
    ]
    lines = [
        f"A: {comparison.a}",
        f"B: {comparison.b}",
        "A and B: the largest error / bound, against the reference; above 1 (!) it is beyond.",
        "A - B: their largest difference / twice the bound; above 1 (!) they differ.",
        "",
    ]
    if comparison.places:
        lines += [*table(rows, "<>>>"), ""]
    if comparison.unoffered:
        lines += [f"not offered by one of them: {', '.join(comparison.unoffered)}"]
    return [
        *lines,
        *comparison.errors,
        *comparison.problems,
        comparison.verdict,
        *_where(comparison),
    ]


def _label(place: Place) -> str:
    mode = "" if place.mode == "f32" else f" {place.mode}"
    return f"{place.property}{mode} {place.name}"


def _ratio(value: float) -> str:
    text = "wrong" if math.isinf(value) else words.ratio(value)  # bits, a shape, not finite
    return f"{text} !" if value > 1.0 else text


def _where(comparison: Against) -> list[str]:
    """The first place where they differ in each tier, which of the two moved there, and the
    command that shows it."""
    lines = []
    for place in comparison.first:
        where = PLACES[PROPERTIES[place.property].tier]
        lines.append(f"first in {where}: {_label(place)}: {_moved(comparison, place.moved)}")
        if place.moved != "neither":
            moved = comparison.a if place.moved == "A" else comparison.b
            lines.append(
                replay_command(place.case, moved, comparison.device, folder=comparison.folder)
            )
    return lines


def _moved(comparison: Against, moved: Moved) -> str:
    match moved:
        case "A":
            return f"{comparison.a} is beyond the reference's bound, {comparison.b} is within it"
        case "B":
            return f"{comparison.b} is beyond the reference's bound, {comparison.a} is within it"
        case "both":
            return "both are beyond the reference's bound"
        case "neither":
            return "both are within the reference's bound, on both sides of it"


def against_json(comparison: Against) -> str:
    """The comparison with its verdict; `moved` says who is beyond the reference's bound."""
    places = [
        {**asdict(place), "differ": place.differ, "moved": place.moved}
        for place in comparison.places
    ]
    first = [{"property": p.property, "name": p.name, "moved": p.moved} for p in comparison.first]
    data = {**asdict(comparison), "places": places, "first": first, "verdict": comparison.verdict}
    return json.dumps(finite(data), indent=1)
