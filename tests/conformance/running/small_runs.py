"""Runs of a few cheap properties on subjects of NumPy."""

from dataclasses import replace

from nfspec.conformance.running.settings import Settings

IDS = ("EXACT-03", "ACT-01", "POOL-01", "AGC-01")
SETTINGS = Settings(properties=IDS, examples=2, timeout=60.0)


def subjects(*names):
    return tuple(f"fakes:{name}" for name in names)


def good(**changes):
    return replace(SETTINGS, **{"subjects": subjects("Good"), **changes})


def ratios(results):
    return [(c.property, c.median, c.worst, c.worst_case, c.histogram) for c in results.cells]
