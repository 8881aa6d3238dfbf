"""Rows of a table of candidates, and the Pareto front."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import nfspec
from nfspec.cost.accelerators import ACCELERATORS
from nfspec.cost.roofline import step
from nfspec.design.candidates import (
    IMAGENET,
    Estimate,
    candidate,
    front,
    run_candidate,
    trainings_in,
)
from nfspec.training.folders import write_facts

H100 = ACCELERATORS["h100"]


def test_a_row_has_what_the_other_commands_say():
    spec = nfspec.load("nfnet-f1")
    plan = nfspec.resolve(spec)
    counted, cost = nfspec.count(plan), step(plan, H100, 64, precision="bfloat16")
    row = candidate(spec, [H100], 64)
    assert (row.parameters, row.macs, row.size) == (counted.parameters, counted.macs, 320)
    assert row.activation_bytes == counted.activation_bytes
    (found,) = row.on.values()
    hours = nfspec.recipe(plan, batch=64).steps * cost.seconds / 3600
    speed = 64 / cost.seconds
    assert found == Estimate("bfloat16", cost.memory.total, cost.seconds, speed, hours)
    assert (row.top1, row.data) == (0.847, IMAGENET)


def test_published_figures_are_of_published_networks_alone():
    spec = nfspec.load("nfnet-f1", {"stages.alpha": 0.1})
    assert candidate(spec).top1 is None
    assert candidate(nfspec.load("timm/nf_resnet26"), [H100], 8).on["h100"].hours is None


def test_a_training_has_its_highest_top1(tmp_path):
    spec = nfspec.load("nfnet-nano")
    write_facts(tmp_path, spec, ["a", "b"], data="digits", backend="jax", seed=0, held_out=0.2)
    assert run_candidate(tmp_path).top1 is None
    entries = [
        {"step": n, "epoch": n, "top1": top1, "top5": 1, "held_out_loss": 1, "held_out_images": 9}
        for n, top1 in enumerate((0.5, 0.9, 0.8))
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(each) + "\n" for each in entries))
    row = run_candidate(tmp_path)
    assert (row.name, row.top1, row.data) == (tmp_path.name, 0.9, "digits")
    with pytest.raises(nfspec.InputError, match=r"no run\.json"):
        run_candidate(tmp_path / "nowhere")


def test_trainings_are_found_in_their_folder_and_in_that_of_a_sweep(tmp_path, monkeypatch):
    """A folder that is called as a spec is none, whatever trainings are in it."""
    spec = nfspec.load("nfnet-nano")
    for name in ("plan/b-1", "plan/a-1", "nfnet-nano/a", "parts/a"):
        (tmp_path / name).mkdir(parents=True)
        write_facts(tmp_path / name, spec, ["a"], data="d", backend="jax", seed=0, held_out=0.2)
    (tmp_path / "plan" / "sweep.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert trainings_in("plan/b-1") == [Path("plan/b-1")]
    assert trainings_in("plan") == [Path("plan/a-1"), Path("plan/b-1")]
    (tmp_path / "plan" / "sweep.json").rename(tmp_path / "plan" / "parts")
    assert len(trainings_in("plan")) == 2
    for none in ("nfnet-nano", "nowhere", "\0", "x" * 5_000):
        assert trainings_in(none) == []


@pytest.mark.parametrize("name", ["empty", "swept"])
def test_a_folder_without_a_training_is_said_to_be_one(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("swept", "parts").mkdir(parents=True)  # no run has begun
    with pytest.raises(nfspec.InputError, match=f"^{name}: no training in it; give a folder"):
        trainings_in(name)
    Path("nfnet-f0").mkdir()  # stands in the way of no built-in spec
    assert trainings_in("nfnet-f0") == []


def test_the_front_has_no_row_that_another_beats():
    row = candidate(nfspec.load("nfnet-nano"))
    scores = [(1, 0.5, "a"), (2, 0.6, "a"), (3, 0.6, "a"), (3, 0.55, "a"), (4, 0.7, "a"),
              (9, 0.1, "b"), (1, None, ""), (1, 0.5, "a")]  # fmt: skip
    rows = [replace(row, macs=macs, top1=top1, data=data) for macs, top1, data in scores]
    assert front(rows) == {0, 1, 4, 5, 7}


def test_steps_are_the_cost_where_there_is_an_accelerator():
    row = candidate(nfspec.load("nfnet-nano"))

    def with_step(macs, seconds, top1):
        estimate = Estimate("float32", 1, seconds, 1.0, None)
        return replace(row, macs=macs, on={"h100": estimate}, top1=top1, data="a")

    assert front([with_step(1, 2.0, 0.5), with_step(2, 1.0, 0.5)]) == {1}


def test_a_device_that_no_image_fits_has_no_estimate():
    large, small = nfspec.load("nfnet-f7+"), nfspec.load("nfnet-f6")
    device = replace(ACCELERATORS["tpu-v5e"], memory=12 * 2**30)
    rows = [replace(candidate(each, [device]), top1=0.5, data="a") for each in (large, small)]
    assert rows[0].on["tpu-v5e"] is None and rows[1].on["tpu-v5e"] is not None
    assert front(rows) == {1}
