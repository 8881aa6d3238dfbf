"""A training's options and what is prepared of them, before any framework is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

import nfspec
from nfspec.training.options import Options
from nfspec.training.session import Outcome, prepare

from tiny import write_images, write_spec


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    write_spec(folder)
    write_images(folder / "data")
    return folder


def options(place, **others):
    return Options(place / "tiny.toml", place / "data", "torch", **others)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("seed", 2**32),
        ("accumulation", 0),
        ("devices", True),
        ("workers", 2.0),
        ("stop_at", -1),
        ("held_out", 0.0),
        ("held_out", float("nan")),
        ("checkpoint_minutes", -1.0),
    ],
)
def test_numbers_that_cannot_be_are_refused_by_name(name, value):
    with pytest.raises(nfspec.InputError, match=f"^{name}: expected a"):
        Options("nfnet-nano", "digits", **{name: value})


def test_a_recipe_for_many_images_suits_few(place):
    """The data has fewer images than the recipe's batch, and the run is shorter than its
    warm-up."""
    session = prepare(Options("nfnet-f0", place / "data", "torch", epochs=1))
    images, taken = len(session.source), session.spec.recipe
    assert taken.batch * 4 <= images < taken.batch * 8
    assert taken.warmup_epochs == 5 / 360
    batch, warmup = session.suited
    assert batch == (
        f"batch: {taken.batch}, because the recipe's 4,096 images are more than the {images} of "
        "the data; --batch takes another"
    )
    assert warmup == (
        "warm-up: 0.0139 epochs, the share that the recipe's 5 have of 360; --warmup takes another"
    )


def test_what_was_asked_for_is_not_replaced(place, tmp_path):
    (tmp_path / "over.toml").write_text("batch = 4096\n")
    for given in ({"batch": 4096}, {"recipe": tmp_path / "over.toml"}):
        with pytest.raises(nfspec.InputError, match=r"^--batch: 4096 images are more than"):
            prepare(Options("nfnet-f0", place / "data", "torch", epochs=1, **given))
    with pytest.raises(nfspec.InputError, match=r"leave none of .* shorter one .--warmup."):
        prepare(Options("nfnet-f0", place / "data", "torch", epochs=1, warmup=1.0))
    longer = prepare(Options("nfnet-f0", place / "data", "torch", epochs=20))
    assert longer.spec.recipe.warmup_epochs == 5 and len(longer.suited) == 1


def test_a_short_fine_tuning_warms_up_shortly(place, tmp_path):
    plan = nfspec.resolve(nfspec.load(place / "tiny.toml"))
    nfspec.weights.save(tmp_path / "w.safetensors", plan, nfspec.init(plan))
    session = prepare(options(place, init=tmp_path / "w.safetensors", epochs=1))
    assert session.spec.recipe.warmup_epochs == 1 / 10  # of [finetune]: 1 of 10 epochs


def test_options_replace_the_values_of_the_spec(place, tmp_path):
    (tmp_path / "over.toml").write_text("momentum = 0.8\nbatch = 6\n")
    session = prepare(
        options(
            place,
            recipe=tmp_path / "over.toml",
            epochs=3,
            batch=4,
            learning_rate=0.5,
            warmup=2,
            clipping=0.02,
            size=17,
            precision="bfloat16",
        )
    )
    recipe, spec = session.spec.recipe, session.spec
    assert (recipe.momentum, recipe.batch, recipe.epochs, recipe.warmup_epochs) == (0.8, 4, 3, 2)
    assert (recipe.learning_rate, recipe.learning_rate_images) == (0.5, 0)
    assert (recipe.precision, recipe.images) == ("bfloat16", 24)
    assert (spec.input.train, spec.input.test, spec.agc.clipping) == (17, 17, 0.02)
    assert (session.run.steps, session.run.batch) == (18, 4)
    assert not prepare(options(place, clipping="none")).spec.agc.enabled


def test_paths_may_be_text(place):
    of_text = Options(str(place / "tiny.toml"), str(place / "data"), "torch", out="run")
    session = prepare(of_text)
    assert session.folder == Path("run")
    assert session.spec.model_dump() == prepare(options(place)).spec.model_dump()
    assert prepare(options(place)).folder == Path("runs", "tiny-data-torch")


def test_a_number_of_devices_needs_processes_on_torch_alone(place, monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert not prepare(options(place)).needs_processes
    assert prepare(options(place, devices=2)).needs_processes
    monkeypatch.setenv("RANK", "0")
    assert not prepare(options(place, devices=2)).needs_processes
    jax = Options(place / "tiny.toml", place / "data", "jax", devices=2)
    assert not prepare(jax).needs_processes


def test_nothing_is_written_and_no_framework_imported(place, tmp_path):
    code = f"""
import sys
from nfspec.training.session import Options, prepare
prepare(Options({str(place / "tiny.toml")!r}, {str(place / "data")!r}, "torch"))
assert not {{"keras", "torch", "jax", "tensorflow"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_last_and_the_best_evaluation():
    """An evaluation that is as good as an earlier one is not better."""
    entries = [{"step": 1, "loss": 2.0}]
    outcome = Outcome(Path("run"), 9, 1, False, entries)
    assert (outcome.final, outcome.best) == (None, None)
    evaluations = [{"step": step, "top1": top1} for step, top1 in ((3, 0.5), (6, 0.9), (9, 0.9))]
    outcome = Outcome(Path("run"), 9, 9, False, [*entries, *evaluations, {"step": 9, "loss": 1.0}])
    assert outcome.final == evaluations[2]
    assert outcome.best == evaluations[1]
