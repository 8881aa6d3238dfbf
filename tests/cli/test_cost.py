"""`nfspec cost`."""

import json
import sys

import pytest
from typer.testing import CliRunner

import nfspec
from nfspec.cli import app
from nfspec.cost.accelerators import ACCELERATORS, named
from nfspec.cost.memory import largest_batch, training_memory
from nfspec.cost.roofline import calibrate, step

TEXT = """\
nfnet-f0 on tpu-v3
step     4,096 images of 192 px, bfloat16, 32 on each of 128 devices
time     70.6 ms; probably 67.3 ms to 74.1 ms, at worst 64.8 ms to 76.9 ms
speed    453 images/s on a device, 58,014 on all; 19 TFLOP/s of 61.5
run      112,602 steps (360 epochs): 2.21 hours, 283 device-hours
data     2 cores read images as fast as a device trains, at 264 images/s a core
         by this recipe (JPEGs of 500 x 375 px, Pillow 13.0, a core of an AMD
         EPYC at 2.6 GHz)
memory   2.3 GB of 17.2 on a device: parameters 0.286, gradients 0.104, momentum
         0.286, average 0.286, kernels 0.0906, activations 1.24, workspace
         0.00708
fits     yes, up to 466 images on a device
model    0.68 of the roofline: the mean of 6 measured steps (arXiv:2102.06171
         table 3)
error    each measured step by the mean of the others: off by a factor of 1.05
         typically, 1.09 at worst
figures  61.5 TFLOP/s, 450 GB/s, 166 GB/s to others, 16 GiB
         (cloud.google.com/tpu/docs/v3, half a chip: 123 TFLOP/s, 900 GB/s, 32
         GiB)

part of a step    ms  share
convs           36.3    51%
activations      9.3    13%
update           8.4    12%
other            5.8     8%
attention        4.4     6%
all-reduce       3.4     5%
weights          3.0     4%
"""


def run(*arguments):
    return CliRunner().invoke(app, ["cost", *map(str, arguments)])


def facts(*arguments):
    """The lines of the headline by their first word, each with its continuation."""
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    texts, name = {}, ""
    for line in result.stdout.partition("\n\n")[0].splitlines()[1:]:
        name = line[:9].strip() or name
        texts[name] = f"{texts.get(name, '')} {line[9:]}".strip()
    return texts


def test_the_whole_text():
    result = run("nfnet-f0", "--devices", 128)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == TEXT


@pytest.mark.parametrize("device", ["tpu-v5e", "v100", "h200"])
@pytest.mark.parametrize("name", ["nfnet-f4+", "nf-regnet-b0", "nf-seresnet-50"])
def test_lines_have_80_columns(name, device):
    result = run(name, "--accelerator", device, "--batch", 64, "--devices", 8)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_what_does_not_fit_is_said_and_accumulated():
    printed = facts("nfnet-f5", "--accelerator", "v100", "--batch", 32)
    assert printed["fits"] == (
        "no, 6 at most of the 32 images on a device; counted as 8 micro-batches of 4 images, "
        "accumulated; with --set recipe.remat=block they fit"
    )
    assert "accumulated gradients 1.51, SAM's weights 1.51" in printed["memory"]
    assert "accumulation" in run("nfnet-f5", "--accelerator", "v100", "--batch", 32).stdout


def test_an_accelerator_that_was_not_measured_says_so():
    printed = facts("nfnet-f1", "--accelerator", "h100", "--devices", 8)
    assert printed["model"] == (
        "0.47 of the roofline, as measured on rtx-3090 (timm's results, PyTorch 1.12, channels "
        "first); nothing is calibrated on h100"
    )
    worst = calibrate("h100").worst
    assert worst > 2
    assert printed["error"] == (
        "measured steps by the means of other accelerators: off by a factor of "
        f"{calibrate('h100').typical:.2f} typically, {worst:.2f} at worst"
    )


def test_a_network_without_a_recipe_needs_batch_and_precision():
    result = run("timm/test_nfnet", "--batch", 32)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "timm/test_nfnet has no [recipe] to take the batch and precision from; give --batch and "
        "--precision, or add the table to its spec\n"
    )
    printed = facts("timm/test_nfnet", "--batch", 32, "--precision", "float32")
    assert printed["run"] == "no recipe"
    assert printed["step"] == "32 images of 160 px, float32"


def test_json_holds_what_the_functions_return():
    arguments = ("--accelerator", "a100-80gb", "--batch", 512, "--devices", 2)
    result = run("nfnet-f1", *arguments, "--size", 160, "--precision", "float32", "--json")
    data = json.loads(result.stdout)
    plan, device = nfspec.resolve(nfspec.load("nfnet-f1")), named("a100-80gb")
    expected = step(plan, device, 512, 2, 160, "float32")
    assert data["digest"] == plan.digest
    assert data["step"]["seconds"] == expected.seconds
    assert data["step"]["parts"] == expected.parts
    assert data["step"]["images_per_second"] == 512 / expected.seconds
    steps = nfspec.recipe(plan, batch=512).steps
    hours = steps * expected.seconds / 3600
    assert data["run"] == {"steps": steps, "hours": hours, "device_hours": 2 * hours}
    memory = data["memory"]
    parts = expected.accumulation
    assert memory["parts"] == vars(training_memory(plan, 256 // parts, 160, "float32", parts > 1))
    assert memory["needed"] == sum(memory["parts"].values())
    assert memory["largest_batch_per_device"] == largest_batch(plan, device.memory, 160, "float32")
    assert memory["fits"] == (memory["largest_batch_per_device"] >= 256)
    assert data["model"] == {
        "efficiency": calibrate("a100-80gb").efficiency,
        "calibrated_on": "rtx-3090",
        "typical_error": calibrate("a100-80gb").typical,
        "worst_error": calibrate("a100-80gb").worst,
    }


def test_kernels_in_parts():
    arguments = ("nfnet-f0", "--devices", 128)
    printed = facts(*arguments, "--shard")
    assert printed["step"] == (
        "4,096 images of 192 px, bfloat16, 32 on each of 128 devices, kernels in 128 parts"
    )
    assert "momentum 0.015, average 0.015, kernels 0.0906, " in printed["memory"]
    whole, parts = (
        json.loads(run(*arguments, *more, "--json").stdout) for more in ((), ("--shard",))
    )
    assert (whole["parts"], parts["parts"]) == (1, 128)
    plan, tpu = nfspec.resolve(nfspec.load("nfnet-f0")), named("tpu-v3")
    expected = step(plan, tpu, 4096, 128, precision="bfloat16", shard=True)
    assert parts["step"]["parts"] == expected.parts != whole["step"]["parts"]
    assert parts["memory"]["parts"] == vars(expected.memory)
    most = [each["memory"]["largest_batch_per_device"] for each in (whole, parts)]
    assert most[0] < most[1]
    assert most[1] == largest_batch(
        plan, tpu.memory, precision="bfloat16", lanes=tpu.lanes, parts=128
    )


def test_parts_on_one_device_change_nothing():
    one = ("nfnet-nano", "--batch", 8)
    whole, parts = run(*one), run(*one, "--shard")
    assert parts.stdout == whole.stdout
    assert parts.stderr == "--shard has no effect on one device\n"


def test_with_parts_what_is_computed_again_is_found_too():
    arguments = ("nfnet-f0", "--devices", 8, "--batch", 8 * 1950, "--precision", "bfloat16")
    whole, parts = (
        json.loads(run(*arguments, *more, "--json").stdout)["memory"] for more in ((), ("--shard",))
    )
    assert (whole["fits_with_remat"], parts["fits_with_remat"]) == (None, "block")


def test_check_prints_every_measured_step():
    result = run("--check")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines if line.startswith(("nfnet-", "timm/"))]
    expected = [
        [timing.variant, str(timing.size), str(timing.batch), f"{timing.seconds:.4f}"]
        for each in ACCELERATORS.values()
        for timing in each.timings
    ]
    assert [row[:4] for row in rows] == expected
    ratios = [
        ratio for each in ACCELERATORS if named(each).timings for ratio in calibrate(each).ratios
    ]
    assert [row[5] for row in rows] == [f"{ratio:.2f}" for ratio in ratios]
    assert rows[0] == ["nfnet-f0", "192", "32", "0.0733", "0.0700", "0.95"]
    data = json.loads(run("--check", "--json").stdout)
    assert [
        each["ratio"] for accelerator in data.values() for each in accelerator["steps"]
    ] == ratios


def test_the_cpu_takes_its_figures_from_the_command_or_the_machine(monkeypatch):
    from nfspec.cost import machine

    monkeypatch.setattr(machine, "sgemm", lambda: 400.0)
    monkeypatch.setattr(machine, "bandwidth", lambda: 50.0)
    arguments = ("nfnet-f0", "--accelerator", "cpu", "--batch", 4, "--precision", "float32")
    measured = run(*arguments)
    assert (measured.exit_code, measured.stderr) == (0, "measuring the machine ...\n")
    assert "0.4 TFLOP/s, 50 GB/s, " in measured.stdout
    given = run(*arguments, "--tflops", 0.4, "--gbs", 50)
    assert (given.stdout, given.stderr) == (measured.stdout, "")


def test_a_cpu_with_both_figures_given_is_not_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "nfspec.benchmarks", None)
    printed = facts(
        *("nfnet-f0", "--accelerator", "cpu", "--batch", 4, "--precision", "float32"),
        *("--tflops", 0.202, "--gbs", 28),
    )
    # The machine of BENCH.md, where the model is fitted: 1.27, 1.29 and 1.76 s.
    assert printed["time"].startswith("1.4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "missing SPEC, or --check"),
        (("nfnet-f0", "--check"), "--check prints measured steps only; leave out 'nfnet-f0'"),
        (("nfnet-f00",), "nfnet-f00"),
        (("nfnet-f0", "--accelerator", "tpuv3"), 'did you mean "tpu-v3"?'),
        (("nfnet-f0", "--devices", 3), "batch: 4096 images do not divide among 3 devices"),
        (("nfnet-f0", "--precision", "fp16"), 'precision: expected one of "float32", "bfloat16"'),
        (
            ("nfnet-f0", "--tflops", 1),
            "--tflops and --gbs are for --accelerator cpu only, not for tpu-v3",
        ),
        (("nfnet-f7+", "--size", 1024), "one image of 1024 px needs"),
        (("nfnet-nano", "--batch", 1_000_000), "leave none of the"),
    ],
)
def test_bad_input_is_a_message(arguments, message):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("batch", "remat"), [(16, None), (48, "block"), (4096, None)])
def test_the_least_that_is_computed_again_for_a_batch_to_fit(batch, remat):
    arguments = ["cost", "nfnet-f3", "--batch", str(batch), "--precision", "bfloat16"]
    memory = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)["memory"]
    assert memory["fits_with_remat"] == remat
    told = " ".join(CliRunner().invoke(app, arguments).stdout.split())
    assert ("with --set recipe.remat=block they fit" in told) == (remat is not None)
    if remat:
        again = json.loads(
            CliRunner().invoke(app, [*arguments, "--set", f"recipe.remat={remat}", "--json"]).stdout
        )
        assert again["memory"]["fits"] and not memory["fits"]
