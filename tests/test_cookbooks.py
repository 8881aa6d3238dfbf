"""The blocks of the pages for each framework's users, and for those who invent variants."""

import os
import subprocess
import sys

import pytest
from pages import blocks, within

import nfspec
from nfspec.training.recipes import fine_tuning, read_recipe

from specs import HEAD, write


def run(page, folder, before=""):
    """The Python of a page in a process of its own, with two processor threads at most."""
    program = "\n".join([before, *blocks(page, "python")])
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def timms(tmp_path):
    """timm's file of the page's network."""
    plan = nfspec.resolve(nfspec.load("timm/test_nfnet"))
    path = tmp_path / "test_nfnet.safetensors"
    nfspec.weights.to_timm_file(path, plan, nfspec.init(plan, seed=0))
    return tmp_path


def test_pytorch(timms):
    """The network is not compiled here, which takes a C++ compiler and a minute: a slow test of
    tests/generation does it."""
    run("docs/pytorch.md", timms, "import os\nos.environ['TORCHDYNAMO_DISABLE'] = '1'")


@pytest.mark.parametrize("name", ["jax", "keras"])
def test_other_frameworks(name, tmp_path):
    run(f"docs/{name}.md", tmp_path)


def test_variants(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    *first, last = blocks("docs/variants.md", "sh")
    for command in "".join(first).splitlines():
        within(command)
    (program,) = blocks("docs/variants.md", "python")
    names: dict[str, object] = {}
    exec(compile(program, "docs/variants.md", "exec"), names)
    for command in last.splitlines():
        within(command)
    (stem,) = (block for block in blocks("docs/variants.md", "toml") if "[stem]" in block)
    assert nfspec.load(write(HEAD + stem)).stem.width == (24, 32, 64)


def test_the_recipes_of_variants(tmp_path):
    recipes = []
    for block in blocks("docs/variants.md", "toml")[-2:]:
        (tmp_path / "recipe.toml").write_text(block)
        spec = nfspec.load("nfnet-f7+", [read_recipe(tmp_path / "recipe.toml")])
        recipes.append(
            (
                spec,
                nfspec.load(
                    "nfnet-f7+", [read_recipe(tmp_path / "recipe.toml"), *fine_tuning(spec)]
                ),
            )
        )
    (large, _), (_, small) = recipes
    assert (
        large.recipe.learning_rate * large.recipe.batch / large.recipe.learning_rate_images == 1.6
    )
    steps = 5 * 1_281_167 / large.recipe.batch
    assert large.recipe.warmup_epochs * 4e9 / large.recipe.batch == pytest.approx(steps, rel=0.03)
    assert (large.input.train, large.input.test, large.agc.enabled) == (224, 256, True)
    steps = small.recipe.warmup_epochs * small.recipe.images / small.recipe.batch
    assert steps == pytest.approx(5000, rel=0.01)
    assert (small.recipe.epochs, small.recipe.sam_rho, small.input.test) == (50, 0.05, 480)
    assert small.recipe.learning_rate_images == 0


@pytest.mark.slow  # trains five networks, and starts each framework
def test_variants_are_trained(tmp_path, monkeypatch):
    """With fewer epochs and candidates, and two properties of one framework."""
    monkeypatch.chdir(tmp_path)
    page = "docs/variants.md"
    within(blocks(page, "sh")[0].splitlines()[0])
    (plan,) = (block for block in blocks(page, "toml") if "seeds" in block)
    plan = plan.replace("[0, 1, 2]", "[0, 1]").replace("[0.05, 0.2, 0.5, 1.0]", "[0.2]")
    (tmp_path / "plan.toml").write_text(plan.replace("[0.01, 0.1]", "[0.1]"))
    for line in "".join(blocks(page, "shell")).splitlines():
        line = line.replace("--epochs 10", "--epochs 1")
        line = line.replace("conform", "conform --backends torch --properties WS-01,EXACT-01")
        assert within(line)
    assert (tmp_path / "both.png").exists() and (tmp_path / "candidates.png").exists()
