"""A run as it might be: every verdict, numbers that are not finite, hostile text. Seeded."""

import math

import numpy as np

from nfspec.conformance.cases.results import Cell, Column, PropertyInfo, Results, histogram

HOSTILE = (
    "<script>alert(1)</script> | `ticks` ```fence``` *b* [x](javascript:alert(1)) & \x1b[2J \\"
)
PROPERTIES = (
    PropertyInfo("WS-01", 0, "integers through a weight-standardised conv, bit for bit"),
    PropertyInfo("WS-02", 1, "weight-standardised conv"),
    PropertyInfo("WS-03", 1, "two-pass variance"),
    PropertyInfo("WS-04", 1, "eps where the variance is small"),
    PropertyInfo("WS-05", 1, "groups and strides, odd sizes, padding"),
    PropertyInfo("WS-06", 1, "gradient of the kernel"),
    PropertyInfo("CONV-01", 0, "padding and layout, bit for bit"),
    PropertyInfo("ACT-01", 1, "activation and its gamma"),
    PropertyInfo("ACT-02", 1, "GELU: which of the two"),
    PropertyInfo("ACT-03", 1, "activation far from 0"),
    PropertyInfo("SE-01", 1, "squeeze and excitation"),
    PropertyInfo("ECA-01", 1, "efficient channel attention"),
    PropertyInfo("POOL-01", 0, "average pool, counts at the edge, bit for bit"),
    PropertyInfo("POOL-02", 1, "global average pool"),
    PropertyInfo("AGC-01", 1, "clipping by unit"),
    PropertyInfo("AGC-02", 1, "clipping at the boundary"),
    PropertyInfo("AGC-03", 1, "what is not clipped, bit for bit"),
    PropertyInfo("BLOCK-01", 2, "residual block on the reference's input"),
    PropertyInfo("BLOCK-02", 2, "transition block, expected std reset"),
    PropertyInfo("BLOCK-03", 2, "stochastic depth that drops nothing"),
    PropertyInfo("NET-01", 3, "logits of a small network"),
    PropertyInfo("NET-02", 3, "gradients of a small network"),
    PropertyInfo("NET-03", 3, "ten steps of training"),
    PropertyInfo("STEP-01", 4, "one step of SGD on the reference's state"),
    PropertyInfo("STEP-02", 4, HOSTILE),
)
EXACT = {info.id for info in PROPERTIES if info.tier == 0} | {"AGC-03"}
VERSIONS = {"jax": "0.10.2", "torch": "2.13.0+cpu", "tensorflow": "2.21.0"}


def columns() -> list[Column]:
    listed = []
    for framework, version in VERSIONS.items():
        for mode in ("f32", "bf16"):
            facts = {"version": version, "keras": "3.15.1", "device": "cpu", "flushes": False}
            facts["switches"] = {"allow_tf32": False, "precision": "highest"}
            listed.append(Column(framework, framework, "cpu", mode, facts))
    return listed


def case(info: PropertyInfo, column: Column) -> dict[str, object]:
    shape = {"kernel": [3, 3, 24, 48], "size": 9, "stride": 2, "groups": 2}
    return {"property": info.id, **shape, "regime": "outlier", "mode": column.mode, "seed": 17}


def passing(info: PropertyInfo, column: Column, generator: np.random.Generator) -> Cell:
    """A cell of 200 cases with ratios about 0.03, or of 0 where bits are compared."""
    ratios = [0.0] * 64
    if info.id not in EXACT:
        scale = 2.5 if column.mode == "bf16" else 1.0
        ratios = np.minimum(scale * 0.03 * np.exp(generator.normal(0, 0.8, 200)), 0.97).tolist()
    return Cell(
        info.id, column.name, "pass", len(ratios), float(np.median(ratios)), max(ratios),
        histogram(ratios), case(info, column), coverage={"eps": 31, "odd size": 88},
        seconds=1.5,
    )  # fmt: skip


def broken(cell: Cell, factor: float, message: str) -> None:
    """Make a passing cell fail, with all its ratios larger."""
    cell.verdict, cell.message = "fail", message
    cell.worst, cell.median = cell.worst * factor, cell.median * factor
    ratios = np.geomspace(cell.median / 8, cell.worst, cell.cases)
    cell.histogram = histogram(ratios.tolist())


def unjudged(cell: Cell, verdict: str, message: str = "") -> None:
    cell.verdict, cell.message = verdict, message
    cell.cases, cell.median, cell.worst = 0, 0.0, 0.0
    cell.histogram, cell.worst_case, cell.coverage = [], None, {}


def all_pass() -> Results:
    """A run of 25 properties in 6 columns in which nothing is wrong."""
    generator = np.random.default_rng(0)
    return Results(
        settings={"seed": 0, "examples": 200, "device": "cpu", "modes": ["f32", "bf16"]},
        spec={"name": "nfnet-f0", "source": "nfnet-f0.toml", "digest": "5f0c" * 16},
        columns=columns(),
        properties=list(PROPERTIES),
        cells=[passing(info, column, generator) for info in PROPERTIES for column in columns()],
        started="2026-11-24T08:15:00Z",
        seconds=312.4,
    )


def sample() -> Results:
    """A run with every verdict in it."""
    results = all_pass()

    def cell(property_id: str, column: str) -> Cell:
        judged = results.cell(property_id, column)
        assert judged
        return judged

    long = "\n".join(
        f"worst index (0, {n}, 4, 7): got -1.4901161e-06, expected -1.4332822e-06, bound 2.1e-09"
        for n in range(60)
    )
    broken(cell("WS-04", "torch/cpu/f32"), 9e4, long)
    broken(cell("ACT-02", "torch/cpu/f32"), 12.0, "ratio 1.6\nterms of the bound: shift 0.1")
    broken(cell("ACT-02", "torch/cpu/bf16"), 1.01 / cell("ACT-02", "torch/cpu/bf16").worst, "")
    broken(cell("STEP-02", "jax/cpu/f32"), 40.0, HOSTILE + "x" * 400)
    for column, value in (("jax/cpu/bf16", math.inf), ("tensorflow/cpu/bf16", math.nan)):
        broken(cell("NET-02", column), 30.0, "an output is not finite")
        cell("NET-02", column).worst = value
    broken(cell("ACT-03", "jax/cpu/f32"), 8.0, "deviation jax-tail, until 2027-05-24: rounds")
    cell("ACT-03", "jax/cpu/f32").verdict = "deviates"
    cell("ACT-03", "jax/cpu/bf16").verdict = "stale deviation"
    cell("ACT-03", "jax/cpu/bf16").message = "passes, though deviation jax-16 says that it fails"
    cell("AGC-02", "torch/cpu/bf16").verdict = "uncovered"
    cell("AGC-02", "torch/cpu/bf16").message = "no case met the regime: unit at the boundary"
    cell("AGC-02", "torch/cpu/bf16").coverage = {"clipped": 40, "unit at the boundary": 0}
    trace = 'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: no <bf16>'
    unjudged(cell("SE-01", "tensorflow/cpu/bf16"), "error", trace)
    unjudged(cell("NET-03", "tensorflow/cpu/f32"), "crashed", "exit status 139")
    unjudged(cell("NET-03", "tensorflow/cpu/bf16"), "hung", "no answer in 1800 s")
    for column in ("jax/cpu/f32", "jax/cpu/bf16", "torch/cpu/bf16"):
        unjudged(cell("ECA-01", column), "not offered")
    for judged in results.cells:
        if judged.column == "torch/cpu/bf16" and judged.property.startswith("STEP"):
            unjudged(judged, "missing", "torch has no bf16 optimizer state here")
    results.cells.remove(cell("BLOCK-03", "tensorflow/cpu/bf16"))
    cell("WS-05", "jax/cpu/f32").verdict = "pass in part"
    cell("WS-05", "jax/cpu/f32").unoffered = 3
    bits = cell("CONV-01", "jax/cpu/f32")
    bits.verdict, bits.message, bits.worst = "fail", "padding and layout", math.inf
    bits.infinite = "the bits differ"
    results.notes = ["jax: the public method wsconv is not one that the kit asks for"]
    results.deviations = [deviation()]
    results.explanations = explanations()
    return results


def deviation() -> dict[str, str]:
    return {
        "id": "jax-tail", "property": "ACT-03", "subject": "jax", "device": "cpu", "mode": "f32",
        "versions": ">=0.10,<0.11", "reason": "rounds where <erf> cancels",
        "link": "https://example.org/issues/1", "opened": "2026-11-24", "expires": "2027-05-24",
    }  # fmt: skip


def explanations() -> list[dict[str, object]]:
    fields = {"ws.eps_rule": "add", "ws.eps": 1e-05, "activation.kind": "gelu_erf"}
    explained = {
        "subject": "timm/dm_nfnet_f0", "property": "NET-01", "asked": "nfnet-f0",
        "fields": fields, "ratio_before": 12_345.6, "ratio_after": 0.31,
    }  # fmt: skip
    none = {**explained, "fields": {}, "ratio_before": "inf", "ratio_after": "inf"}
    return [explained, {**none, "subject": "timm/nf_resnet50"}]
