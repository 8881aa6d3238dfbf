"""`nfspec signal`."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import nfspec
from nfspec import weights
from nfspec.cli import app

SMALL = ("nfnet-nano", "--count", "2")


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments):
    return CliRunner().invoke(app, ["signal", *map(str, arguments)])


def test_it_prints_the_statistics_and_a_sentence():
    result = run(*SMALL, "--gradients", "--plot", "spp.png")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "nfnet-nano: 2 images of 32 x 32 px (noise, seed 0)"
    assert lines[3].split() == ["expected", "variance", "mean^2", "branch", "gradient"]
    assert any(line.startswith("AS EXPECTED: variance grows by 0.04 a block") for line in lines)
    assert lines[-1] == "wrote  spp.png" and max(map(len, lines)) <= 80
    with Image.open("spp.png") as picture:
        assert picture.width > 1000


def test_json_has_what_python_has():
    plan = nfspec.resolve(nfspec.load("nfnet-nano"))
    params = nfspec.signal.with_skip_gain(plan, nfspec.init(plan, 3), 0.5)
    x = nfspec.signal.noise(plan, 2, 40, seed=3)
    wanted = nfspec.signal.measure(plan, params, x)
    result = run(*SMALL, "--size", 40, "--seed", 3, "--skip-gain", 0.5, "--json")
    (found,) = json.loads(result.stdout)
    assert [each["avg_var"] for each in found["signals"]] == [s.avg_var for s in wanted.signals]
    assert found["size"] == [40, 40] and found["as_expected"] is True
    assert found["pools"] == wanted.pools


def test_several_specs_and_a_change_of_all():
    result = run(*SMALL, "nf-regnet-b0", "--size", "32", "--set", "activation.gamma=1")
    assert result.exit_code == 0
    assert result.stdout.count("NOT AS EXPECTED: gamma is missing") == 2


def test_trained_weights_on_images_of_a_folder(tmp_path):
    plan = nfspec.resolve(nfspec.load("nfnet-nano"))
    weights.save("w.safetensors", plan, nfspec.init(plan))
    rng = np.random.default_rng(0)
    for n in range(3):
        pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{n}.png")
    result = run(*SMALL, "--weights", "w.safetensors", "--images", "photos", "--folded")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "weights: w.safetensors\n" in result.stdout and "(photos)" in result.stdout
    assert "mean square runs from" in result.stdout and "EXPECTED:" not in result.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("nowhere.toml",), "nowhere.toml: "),
        (("nfnet-nano", "--images", "nowhere"), "nowhere"),
        (("nfnet-nano", "nf-resnet-50", "--weights", "a.npz"), "--weights: for one SPEC"),
        (("nfnet-nano", "--size", "1", "--set", "stem.padding=valid"), "image of 1x1 px"),
        (("nfnet-nano", "--framework", "keras"), 'no backend "keras"'),
    ],
)
def test_what_cannot_be_used_is_a_sentence(arguments, message):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_training_has_clip_fractions(tmp_path):
    from nfspec.training.folders import write_facts

    folder, spec = tmp_path / "run", nfspec.load("nfnet-nano", {"head.classes": 2})
    folder.mkdir()
    write_facts(folder, spec, ["a", "b"], data="digits", backend="torch", seed=0, held_out=0.2)
    plan = nfspec.resolve(spec)
    weights.save(folder / "weights.safetensors", plan, nfspec.init(plan))
    step = {"epoch": 0.1, "loss": 1.0, "accuracy": 0.1, "rate": 0.1, "images_per_second": 9.0}
    shares = {"clip_fraction": 0.2, "clip_fraction_of": {"stem": 0.5, "stages.0": 0.125}}
    lines = [json.dumps({"step": n, **step, **shares}) for n in range(20)]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    result = run("run", "--count", "1")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "clipped at the training's end: stem 50.0%, stages.0 12.5%" in result.stdout


def test_json_has_null_for_what_is_not_finite():
    plan = nfspec.resolve(nfspec.load("nfnet-nano"))
    params = nfspec.init(plan)
    params["stages.1.blocks.0.conv1.kernel"][0, 0, 0, 0] = np.nan
    weights.save("w.safetensors", plan, params)
    (found,) = json.loads(run(*SMALL, "--weights", "w.safetensors", "--json").stdout)
    assert found["as_expected"] is False
    assert found["faults"][0].startswith("stages.1.blocks.0.conv1: its output is not finite")
    assert found["signals"][-1]["avg_var"] is None and "NaN" not in json.dumps(found)
