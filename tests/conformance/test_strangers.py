"""`make strangers`: what is installed and run, and adapters without what they adapt.

The implementations themselves are installed and run by that target alone.
"""

import sys
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from nfspec.conformance.cases.results import Results
from nfspec.conformance.subjects.loading import load
from nfspec.errors import BackendError
from nfspec.language.loader import load as load_spec
from nfspec.plan.resolver import resolve

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "conformance" / "strangers"
ADAPTERS = {
    "nfnets_pytorch.py": ("NFNetsPyTorch", "NFNetsPyTorchScaledStd"),
    "keras_cv.py": ("KerasCVAttention",),
    "mule.py": ("MuleTorch",),
}
NUMPY = """
class AGC:
    framework = "numpy"

    def __init__(self, mode):
        pass

    def agc(self, clip):
        return lambda gradient, parameter: gradient
"""


def imported(name):
    spec = spec_from_file_location(f"strangers_{name}", FOLDER / f"{name}.py")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


run = imported("run")


@pytest.fixture(autouse=True)
def apart(monkeypatch):
    """An adapter asks TensorFlow for Keras 2, and its folder is searched for modules; other tests
    want neither."""
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "BUILD", tmp_path)
    return tmp_path


def test_everything_is_installed_at_one_version():
    for stranger in run.STRANGERS:
        assert all(text.count("==") == 1 for text in stranger.requirements), stranger
    assert run.STRANGERS[0].requirements == (f"timm=={version('timm')}",)
    assert run.STRANGERS[1].requirements == (f"optax=={version('optax')}",)


def test_what_is_asked_exists():
    for stranger in run.STRANGERS:
        for subject, spec in stranger.asked:
            load_spec(str(ROOT / spec) if spec.endswith(".toml") else spec)
            if ":" in subject:
                file, _, name = subject.partition(":")
                assert name in ADAPTERS[Path(file).name], subject


@pytest.mark.parametrize(
    "file, name", [(file, name) for file, names in ADAPTERS.items() for name in names]
)
def test_an_adapter_without_its_package_says_what_to_run(file, name, monkeypatch):
    subject = load(f"{FOLDER / file}:{name}")
    assert subject.framework in ("torch", "tensorflow")
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(BackendError, match="is not installed; run: make strangers"):
        subject("f32")


def test_betas_of_mule():
    """As mule-torch 0.2.0 computes them: each stage but the first starts from 1 + alpha^2, and no
    block starts anew."""
    alpha, table = 0.2, []
    for depth, start in zip((1, 2, 6, 3), (1.0, 1.04, 1.04, 1.04), strict=True):
        table.append([(start + i * alpha**2) ** -0.5 for i in range(depth)])
    rows = resolve(load_spec(str(FOLDER / "mule_fast_betas.toml"))).blocks
    assert [row.beta for row in rows] == pytest.approx([b for stage in table for b in stage])


def test_names_of_parameters_of_keras_cv():
    place = imported("keras_cv")._network_place
    places = [place(name) for name in resolve(load_spec("nfnet-f0")).parameters]
    assert len(set(places)) == len(places)
    assert place("stages.1.blocks.0.conv1b.gain") == "stack2_block1_deep_3_conv/gain"
    assert place("stages.0.blocks.0.skip_gain") == "stack1_block1_deep_gain/gain"
    assert place("head.fc.bias") == "predictions/bias"


def test_what_cannot_be_installed_is_a_row_and_the_others_are_run(build, monkeypatch, capsys):
    (build / "mine.py").write_text(NUMPY)
    asked = ((f"{build / 'mine.py'}:AGC", "nf-regnet-b0"),)
    monkeypatch.setattr(
        run,
        "STRANGERS",
        (
            run.Stranger("absent", (f"{build}/absent-1-py3-none-any.whl",), asked),
            run.Stranger("mine", ("mine==1",), asked),
        ),
    )
    monkeypatch.setattr(run, "PROPERTIES", ("EXACT-04",))
    monkeypatch.setattr(run, "EXAMPLES", 0)
    installed = run.install
    # The second needs no environment.
    monkeypatch.setattr(
        run, "install", lambda s: Path(sys.executable) if s.name == "mine" else installed(s)
    )
    assert run.main([]) == 1
    output = capsys.readouterr()
    assert output.out == (build / "MATRIX.md").read_text()
    lines = output.out.splitlines()
    assert any(line.startswith("| absent |  | did not run |") for line in lines)
    assert any(line.startswith("| AGC | nf-regnet-b0 | NOT CONFORMANT | ") for line in lines)
    assert "mine: NOT CONFORMANT" in output.err


def test_an_unknown_name_is_refused(capsys):
    assert run.main(["tim"]) == 2
    assert "no stranger tim; expected timm, optax, " in capsys.readouterr().err


def test_a_finished_run_of_the_same_commit_is_not_repeated(build):
    folder = build / "timm" / "0123abc"
    folder.mkdir(parents=True)
    (folder / "timm-nfnet-f0.json").write_text(Results({}, None, [], [], []).to_json())
    read = run.run(run.STRANGERS[0], Path("/nowhere"), "timm", "nfnet-f0", "0123abc")
    assert read.verdict == "NOTHING JUDGED"
