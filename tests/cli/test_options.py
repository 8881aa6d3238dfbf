"""Numbers that are nonsense are refused by every option that takes one, whatever the command."""

import pytest
import typer

from nfspec.cli import app

GROUP = typer.main.get_command(app)
CASE = (
    '{"property":"ACT-01","op":{"type":"Activation","kind":"gelu_tanh","slope":0.02,"gamma":1.5,'
    '"beta":0.9,"beta_at":"after"},"shape":[4,8,8,8]}'
)
# The other arguments of each command with such options; with them the command would run.
WITH = {
    "show": ("nfnet-nano",),
    "compare": ("nfnet-nano", "--backends", "torch"),
    "conform": ("--backends", "torch", "--properties", "WS-01"),
    "replay": (CASE, "--backends", "torch"),
    "bench": ("nfnet-nano", "--backends", "torch", "--work", "forward"),
    "train": ("nfnet-nano", "digits", "--backend", "torch"),
    "evaluate": ("nfnet-nano", "digits", "--weights", "nowhere.safetensors"),
    "predict": ("nfnet-nano", "a.jpg", "--weights", "nowhere.safetensors"),
    "embed": ("nfnet-nano", "a.jpg", "--weights", "nowhere.safetensors", "--out", "a.npz"),
    "generate": ("nfnet-nano", "--to", "torch"),
    "export": ("nfnet-nano", "--to", "onnx"),
    "verify": ("a.onnx",),
    "lower": ("nfnet-nano", "--target", "cpu"),
    "signal": ("nfnet-nano",),
    "table": ("nfnet-nano",),
    "explore": ("nfnet-nano", "--only"),
    "scale": ("nfnet-nano", "--macs", "2M"),
    "sweep": ("plan.toml",),
    "cost": ("nfnet-nano", "--accelerator", "cpu"),
}
NONSENSE = ("nan", "inf", "-inf", "-1", "1e308", "0", str(10**30), "9" * 5000)
MAY_BE_ZERO = {
    "compare --seed",
    "conform --seed",
    "conform --examples",
    "generate --seed",
    "signal --seed",
    "signal --skip-gain",
    "export --seed",
    "verify --seed",
    "train --seed",
    "train --warmup",
    "train --stop-at",
    "train --checkpoint-minutes",
}
NUMBERS_IN_TEXT = {
    "scale --macs",
    "scale --params",
    "scale --step",
    "train --clipping",
    "export --size",
    "export --batch",
}


def numeric(parameter):
    return any(kind in str(parameter.type_descriptor.annotation) for kind in ("int", "float"))


OPTIONS = [
    (name, parameter.opts[0])
    for name, command in GROUP.commands.items()
    for parameter in command.params
    if numeric(parameter) or f"{name} {parameter.opts[0]}" in NUMBERS_IN_TEXT
]


def test_the_options_are_found():
    assert len(OPTIONS) > 20
    assert {f"{command} {option}" for command, option in OPTIONS} >= MAY_BE_ZERO | NUMBERS_IN_TEXT


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_nonsense_is_refused_by_name(command, option, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for value in NONSENSE:
        if value == "0" and f"{command} {option}" in MAY_BE_ZERO:
            continue
        with pytest.raises(SystemExit) as end:
            GROUP.main([command, *WITH[command], option, value], "nfspec")
        said = capsys.readouterr()
        assert (end.value.code, said.out) == (2, ""), (value, said)
        assert option in said.err.splitlines()[-1], (value, said.err)
        assert len(said.err) < 1000, value
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "deep.toml", "digits", "--backend", "torch", "--out", "run"),
        ("evaluate", "deep.toml", "digits", "--weights", "a.safetensors"),
        ("predict", "deep.toml", "a.jpg", "--weights", "a.safetensors"),
        ("compare", "deep.toml", "--backends", "torch", "--size", "32"),
    ],
)
def test_a_network_whose_input_no_image_can_be(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    numbers = str([0.5] * 13)
    (tmp_path / "deep.toml").write_text(
        'schema = "nfspec/1"\nname = "deep"\nsource = "a test"\nextends = "nfnet-nano"\n'
        f"[input]\nchannels = 13\nmean = {numbers}\nstd = {numbers}\n"
    )
    with pytest.raises(SystemExit) as end:
        GROUP.main(list(arguments), "nfspec")
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (2, "")
    assert said.err == "image files have 1 or 3 channels, the network takes 13\n"
    assert not (tmp_path / "run").exists()
