"""A recipe's numbers for one run, against those of the original's experiments."""

from dataclasses import replace

import pytest

import nfspec


def planned(name):
    return nfspec.resolve(nfspec.load(name))


def test_f0_is_trained_as_the_original_trains_it():
    """experiment_nfnets.py: 4096 images a step, 360 epochs, 0.1 · 4096 / 256, 5 epochs' warm-up."""
    run = nfspec.recipe(planned("nfnet-f0"))
    assert (run.steps, run.batch, run.learning_rate) == (112_602, 4096, 1.6)
    assert run.warmup == pytest.approx(5 * 1_281_167 / 4096)
    assert run.recipe.sam_rho == 0.0


def test_nf_regnets_do_not_scale_their_rate_and_end_above_zero():
    """experiment_nf_regnets.py."""
    run = nfspec.recipe(planned("nf-regnet-b0"))
    assert (run.batch, run.learning_rate, run.recipe.final_learning_rate) == (1024, 0.4, 0.001)


def test_a_shorter_run_of_smaller_batches():
    run = nfspec.recipe(planned("nfnet-f0"), steps=720, batch=512, accumulation=4)
    assert (run.steps, run.batch, run.accumulation) == (720, 512, 4)
    assert run.learning_rate == pytest.approx(0.2)
    assert run.warmup == pytest.approx(10.0)


@pytest.mark.parametrize("name", ["nfnet-f5", "nf-regnet-b0", "nfnet-f0"])
def test_it_prints_as_a_summary_in_80_columns(name):
    lines = str(nfspec.recipe(planned(name))).splitlines()
    assert max(map(len, lines)) <= 80
    facts = {line[:13].strip(): line[15:] for line in lines}
    assert facts["optimizer"] == "SGD, Nesterov momentum 0.9"
    assert facts["average"] == "EMA 0.99999, warm"
    if name == "nfnet-f5":
        assert facts["learning rate"] == "0 to 1.6 over 1,563.9 steps, cosine to 0"
        assert facts["clipping"].startswith("AGC 0.01, eps 0.001, DeepMind's units, not head.fc.")
        assert facts["SAM"] == "rho 0.05 on 20% of the batch"
        assert facts["augmentation"].startswith("mixup 0.2, CutMix 1, then RandAugment 4 x 15")
    if name == "nf-regnet-b0":
        assert facts["clipping"] == "none"
        assert "SAM" not in facts


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("timm/test_nfnet", {}, "timm/test_nfnet has no [recipe]; add the table"),
        ("nfnet-f0", {"steps": 0}, "steps: expected a whole number from 1 on; found 0"),
        ("nfnet-f0", {"batch": -1}, "batch: expected a whole number of images from 1 on; found -1"),
        (
            "nfnet-f0",
            {"accumulation": 0},
            "accumulation: expected a whole number from 1 on; found 0",
        ),
        ("nfnet-f0", {"batch": 10, "accumulation": 4}, "10 images do not divide into 4"),
    ],
)
def test_what_makes_no_run_is_refused(name, arguments, message):
    with pytest.raises(nfspec.InputError) as error:
        nfspec.recipe(planned(name), **arguments)
    assert message in str(error.value)


def test_a_warm_up_that_takes_the_whole_run_is_refused():
    plan = planned("nfnet-f0")
    table = plan.recipe.model_copy(update={"warmup_epochs": 360.0})
    with pytest.raises(nfspec.InputError, match=r"warmup_epochs: 360 of 360 epochs leave none of"):
        nfspec.recipe(replace(plan, recipe=table))
