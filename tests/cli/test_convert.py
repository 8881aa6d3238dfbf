"""`nfspec convert`, on a network of a few thousand weights."""

import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

import nfspec
from nfspec import weights
from nfspec.cli import app

TINY = """
schema = "nfspec/1"
name = "tiny"
extends = "nfnet-f0"
source = "a test"
[stem]
width = [4, 4, 4, 8]
[stages]
depth = [1, 1]
width = [16, 24]
stride = [1, 2]
group_width = 4
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the spec and its weights in it, to run in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(TINY)
    plan = nfspec.resolve(nfspec.load("tiny.toml"))
    weights.save("tiny.safetensors", plan, nfspec.init(plan, seed=3))
    return tmp_path


def run(*arguments, variant="tiny.toml"):
    return CliRunner().invoke(app, ["convert", *arguments, "--variant", variant])


def done(result):
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def same(a, b):
    plan = nfspec.resolve(nfspec.load("tiny.toml"))
    one, two = weights.load(a, plan), weights.load(b, plan)
    return all(np.array_equal(one[name], two[name]) for name in plan.parameters)


GREY = (
    TINY.replace('"tiny"', '"grey"')
    + """
[input]
channels = 1
mean = [0.5]
std = [0.25]
[head]
classes = 7
"""
)


def test_other_classes_and_channels_are_fitted(folder):
    (folder / "grey.toml").write_text(GREY)
    plan = nfspec.resolve(nfspec.load("grey.toml"))
    stored = weights.load("tiny.safetensors", plan, own_shapes=True)
    fitted = weights.fit(stored, plan)
    result = run("tiny.safetensors", "grey.npz", "--fit", variant="grey.toml")
    assert done(result).splitlines()[:-1] == list(fitted.changes)
    assert len(fitted.changes) == 2
    actual = weights.from_deepmind("grey.npz", plan)
    assert all(np.array_equal(actual[name], value) for name, value in fitted.params.items())


def test_other_classes_and_channels_are_not_taken_unasked(folder):
    (folder / "grey.toml").write_text(GREY)
    result = run("tiny.safetensors", "grey.npz", variant="grey.toml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("tiny.safetensors: 3 tensors do not fit grey:\n")
    assert "`nfspec convert --fit`" in result.stderr
    assert not (folder / "grey.npz").exists()


def test_fitting_weights_that_fit_says_nothing(folder):
    stdout = done(run("tiny.safetensors", "again.safetensors", "--fit"))
    assert stdout.startswith("wrote again.safetensors: ")
    assert same("tiny.safetensors", "again.safetensors")


def test_to_deepmind_and_back_by_suffix_alone(folder):
    plan = nfspec.resolve(nfspec.load("tiny.toml"))
    total = nfspec.count(plan).parameters
    expected = f"{len(plan.parameters)} tensors, {total / 1000:.1f} k parameters"
    there = run("tiny.safetensors", "tiny.npz")
    assert done(there) == f"wrote tiny.npz: {expected}, deepmind\n"
    assert (
        done(run("tiny.npz", "back.safetensors")) == f"wrote back.safetensors: {expected}, nfspec\n"
    )
    assert same("tiny.safetensors", "back.safetensors")


def test_a_safetensors_file_says_itself_whose_it_is(folder):
    assert done(run("tiny.safetensors", "timm.safetensors", "--to", "timm")).endswith(", timm\n")
    assert "stem.conv1.weight" in load_file("timm.safetensors")
    assert done(run("timm.safetensors", "back.safetensors")).endswith(", nfspec\n")
    assert same("tiny.safetensors", "back.safetensors")


def test_torch_files_are_timm(folder):
    assert done(run("tiny.safetensors", "tiny.pth")).endswith(", timm\n")
    done(run("tiny.pth", "back.safetensors"))
    assert same("tiny.safetensors", "back.safetensors")


def test_from_says_what_a_file_does_not(folder):
    save_file(load_file("tiny.safetensors"), "bare.safetensors")
    assert run("bare.safetensors", "back.safetensors").exit_code == 2
    done(run("bare.safetensors", "back.safetensors", "--from", "nfspec"))
    assert same("tiny.safetensors", "back.safetensors")
    done(run("tiny.safetensors", "tiny.npz"))
    (folder / "tiny.npz").rename("download")
    done(run("download", "again.safetensors", "--from", "deepmind"))
    assert same("tiny.safetensors", "again.safetensors")


def test_an_existing_file_is_left_unless_forced(folder):
    (folder / "out.safetensors").write_text("precious")
    result = run("tiny.safetensors", "out.safetensors")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "out.safetensors exists" in result.stderr and "--force" in result.stderr
    assert (folder / "out.safetensors").read_text() == "precious"
    done(run("tiny.safetensors", "out.safetensors", "--force"))
    assert same("tiny.safetensors", "out.safetensors")


def test_the_input_is_never_replaced_not_even_under_another_name(folder):
    (folder / "link.safetensors").symlink_to("tiny.safetensors")
    before = (folder / "tiny.safetensors").read_bytes()
    for out in ("tiny.safetensors", "./tiny.safetensors", "link.safetensors"):
        result = run("tiny.safetensors", out, "--force", "--to", "timm")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "is the input" in result.stderr
    assert (folder / "link.safetensors").is_symlink()
    assert (folder / "tiny.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.safetensors", "out.npz"), "none.safetensors: cannot be read: No such file"),
        (("tiny.safetensors", "out.dat"), "out.dat: its name does not say what it is; give --to"),
        (("tiny.toml", "out.npz"), "tiny.toml: its name does not say what it is; give --from"),
        (("tiny.safetensors", "out.npz", "--to", "nfspec"), "for nfspec ends in .safetensors"),
        (("tiny.safetensors", "out.safetensors", "--to", "deepmind"), "for deepmind ends in .npz"),
        (("tiny.safetensors", "out.safetensors", "--to", "keras"), "Invalid value for '--to'"),
        (("tiny.safetensors", "none/out.npz"), "none/out.npz: cannot be written"),
        (("cut.safetensors", "out.npz"), "cut.safetensors: "),
    ],
)
def test_what_cannot_be_converted_is_said_and_nothing_written(arguments, message, folder):
    (folder / "cut.safetensors").write_bytes((folder / "tiny.safetensors").read_bytes()[:-9])
    before = sorted(folder.iterdir())
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(folder.iterdir()) == before


def test_weights_of_another_network_are_refused(folder):
    result = run("tiny.safetensors", "out.npz", variant="nfnet-f0")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "do not fit nfnet-f0" in result.stderr
    assert not (folder / "out.npz").exists()


def test_weights_saved_for_another_meaning_are_converted_with_a_warning(folder):
    (folder / "other.toml").write_text(TINY + "[ws]\neps = 1e-3\n")
    result = run("tiny.safetensors", "out.npz", variant="other.toml")
    assert result.exit_code == 0
    assert result.stdout.startswith("wrote out.npz: ")
    assert result.stderr.startswith("warning: tiny.safetensors: ")
    assert "ws.eps" in result.stderr


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth", "x.npz"])
def test_a_pipe_is_said_to_be_one_and_not_waited_for(name, folder):
    os.mkfifo(name)
    result = run(name, "out.safetensors")
    message = f"{name}: cannot be read: a named pipe, where a regular file was expected\n"
    assert (result.exit_code, result.stderr) == (2, message)


@pytest.mark.parametrize("end", ["safetensors", "pth", "npz"])
def test_escape_sequences_in_paths_are_spelt_out(end, folder):
    name = f"a\x1b[2J.{end}"
    (folder / name).write_text("no weights")
    result = run(
        name, "out.safetensors", "--from", {"pth": "timm", "npz": "deepmind"}.get(end, "nfspec")
    )
    assert result.exit_code == 2
    assert result.stderr.startswith(f"a\\x1b[2J.{end}: not a ")
