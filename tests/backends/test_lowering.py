"""Programs compiled ahead of time: what is read from their text, and what must not be in one."""

import contextlib
import importlib.util
import json
import math
import os
from importlib.metadata import version

import numpy as np
import pytest
from packaging.version import Version
from typer.testing import CliRunner

import nfspec
from nfspec.cli import app
from nfspec.cli.lower import _rows
from nfspec.cost.accelerators import GIB
from nfspec.cost.memory import training_bytes
from nfspec.cost.rows import LANES
from nfspec.errors import BackendError, InputError
from nfspec.plan.counting import count, parameter_count

from tiny import STILL, write_spec

if os.environ.get("KERAS_BACKEND") != "jax":
    pytest.skip("of JAX", allow_module_level=True)

import jax
import jax.numpy as jnp

from nfspec.backends.kernels import jax as jax_kernels
from nfspec.backends.kernels import plain
from nfspec.backends.kernels.jax_parts import Parts
from nfspec.backends.lowering import program
from nfspec.backends.lowering.lower import LEAST, Lowered, lower
from nfspec.backends.lowering.targets import target_of
from nfspec.benchmarks import lowered

OLDER = [name for name, least in LEAST.items() if Version(version(name)) < Version(least)]
if OLDER:
    pytest.skip(f"of a newer {OLDER[0]}", allow_module_level=True)

# As XLA prints them for TPUs, with layouts, comments and starts.
SUM = (
    "  %all-reduce.8 = (bf16[]{:T(256)}, /*index=5*/bf16[3,3,3,16]{3,2,1,0:T(4,128)(2,1)S(1)}, "
    "f32[16]{0:T(128)}) all-reduce(%a, %b, %c), channel_id=1, to_apply=%region\n"
)
GATHER = "  %g = (f32[4]{0}, bf16[8,2]{1,0}) all-gather-start(%x), dimensions={0}\n"
END = "  %h = bf16[8,2]{1,0:T(8,128)} all-gather-done(%g)\n"
PRODUCT = "  ROOT %p = f32[2,3]{1,0} dot(%x, %y), lhs_contracting_dims={1}\n"


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return nfspec.load(write_spec(tmp_path_factory.mktemp("spec"), STILL))


def test_older_versions_are_refused_in_a_sentence(spec, monkeypatch):
    monkeypatch.setitem(LEAST, "jax", "99.0")
    with pytest.raises(
        BackendError, match=r"needs jax 99.0 or newer, and .* pip install --upgrade"
    ):
        lower(spec, "forward", "cpu")


def test_what_devices_exchange_is_read_from_the_text():
    both = program.collectives(SUM + GATHER + END + PRODUCT)
    assert [(c.kind, c.bytes, c.dtypes) for c in both] == [
        ("all-reduce", 2 + 2 * 27 * 16 + 4 * 16, ("bf16", "f32")),
        ("all-gather", 4 * 4 + 2 * 16, ("f32", "bf16")),
    ]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("  %d = f64[2]{0} add(%x, %y)\n", "float64"),
        ("  %i = ((f32[2]{0}), token[]) infeed(%t)\n", "host: the program waits"),
        ("  %o = token[] outfeed(%x, %t)\n", "outfeed"),
        ("  %s = (f32[2]{0}, u32[], token[]) send(%x, %t), channel_id=1\n", "send"),
        ("  %r = (f32[2]{0}, u32[], token[]) recv(%t), channel_id=1\n", "recv"),
        (
            '  %c = f32[2]{0} custom-call(%x), custom_call_target="xla_python_cpu_callback"\n',
            "host",
        ),
    ],
)
def test_what_must_not_be_in_a_program(line, word):
    (sentence,) = program.forbidden(PRODUCT + line)
    assert word in sentence


def test_sums_over_devices():
    """Every gradient once, in float32, and the loss."""
    gradients = 2 + 2 * 27 * 16 + 4 * 16  # as many bytes as SUM has
    (sentence,) = program.exchanged(PRODUCT + SUM, gradients)
    assert sentence.startswith("sums: 0.0 MB are added up over devices in 16 bits; ")
    scattered = "  %q = f16[9]{0} reduce-scatter(%x), dimensions={0}\n"
    (sentence,) = program.exchanged(PRODUCT + scattered, gradients)
    assert "in 16 bits" in sentence
    assert program.exchanged(PRODUCT + scattered.replace("f16", "f32"), 36, devices=1) == []
    (sentence,) = program.exchanged(PRODUCT + 500 * scattered.replace("f16", "f32"), 36, devices=4)
    assert "sums: 0.1 MB are added up over devices, where all" in sentence
    once = "  %q = f32[1000000]{0} all-reduce(%x), channel_id=1\n"
    assert program.exchanged(once, 4_000_000) == []
    (sentence,) = program.exchanged(once + once, 4_000_000)
    assert sentence.startswith("sums: 8.0 MB are added up over devices, where all gradients are 4")


@pytest.mark.parametrize("gathered", [0, 4_000_000])
@pytest.mark.parametrize("kind", ["all-gather", "all-to-all", "collective-permute"])
def test_images_that_devices_exchange_are_found(kind, gathered):
    line = f"  %q = bf16[4,28,28,768]{{3,2,1,0}} {kind}(%x), channel_id=1\n"
    (sentence,) = program.exchanged(PRODUCT + line, 0, gathered)
    assert sentence.startswith("images: devices exchange 4.8 MB that are no sums and no kernels in")
    assert f"({kind})" in sentence


def test_kernels_in_parts_may_be_gathered():
    line = "  %q = bf16[3,3,128,768]{3,2,1,0} all-gather(%x), channel_id=1\n"
    assert program.exchanged(PRODUCT + line, 0, 2 * 9 * 128 * 768, 8) == []
    (sentence,) = program.exchanged(PRODUCT + 2 * line, 0, 2 * 9 * 128 * 768, 8)
    assert sentence.startswith("images: devices exchange 3.5 MB")


def test_copies_of_an_exchange_that_runs_beside_others_are_one():
    line = "  %g.{0} = bf16[8,2]{{1,0:T(8,128)S({0})}} all-gather(%x), channel_id={1}\n"
    text = "".join(
        f"%fused_computation.{n} (x: bf16[2,2]) -> bf16[8,2] {{\n{line.format(n, 7)}}}\n"
        for n in range(3)
    )
    one_by_one = "ENTRY %main (x: bf16[2,2]) -> bf16[8,2] {\n" + 2 * line.format(1, 1) + "}\n"
    assert [c.bytes for c in program.collectives(text)] == [32]
    assert [c.bytes for c in program.collectives(one_by_one + text)] == [32, 32, 32]


def test_what_may_be_in_a_program():
    assert program.forbidden(PRODUCT + SUM) == []
    pool = '  %c = f32[2]{0} custom-call(%x), custom_call_target="TopK"\n'
    assert program.forbidden(PRODUCT + pool) == []


def test_a_callback_in_a_program_of_jax_is_found():
    def function(x):
        return jax.pure_callback(np.sin, x, x) + 1.0

    compiled = jax.jit(function).lower(np.ones(3, np.float32)).compile()
    (sentence,) = program.forbidden(compiled.as_text())
    assert sentence.startswith("host: ")


def asked(function, *shapes):
    """The program that a TPU's compiler is given."""
    traced = jax.jit(function).trace(*(jax.ShapeDtypeStruct(*shape) for shape in shapes))
    return traced.lower(lowering_platforms=("tpu",)).as_text()


def of_layer(faulty=lambda layers: None, **options):
    """A step of one conv and one gate in bfloat16, its gradients clipped."""
    from nfspec.backends.clipping import clip_all
    from nfspec.backends.kernels import jax as kernels
    from nfspec.plan.clipping import ClipRule

    def step(kernel, gain, bias, scale, x):
        def loss(kernel, gain, bias, scale):
            weights = kernels.standardise(kernel, gain, eps=1e-4, eps_rule="max", ddof=0, gamma=1.7)
            y = kernels.convolve(x, weights, bias, 1, "same", "channels_last", 1)
            return jnp.sum(kernels.scale_add(y, scale, y).astype("float32"))

        gradients = jax.grad(loss, (0, 1, 2, 3))(kernel, gain, bias, scale)
        rules = [ClipRule((0, 1, 2), 8, 0.01, 1e-3), *[ClipRule(None, 1, 0.01, 1e-3)] * 3]
        return clip_all(gradients, (kernel, gain, bias, scale), rules, False)

    f32, bf16 = "float32", options.get("images", "bfloat16")
    weights = options.get("weights", f32)
    shapes = ((3, 3, 8, 8), weights), ((8,), weights), ((8,), f32), ((), f32)
    return asked(step, *shapes, ((2, 9, 7, 8), bf16))


def test_a_step_as_it_should_be():
    text = of_layer()
    assert program.narrow(text) == [] and program.wide(text) == []


def test_statistics_of_kernels_in_bfloat16_are_found():
    (roots, sums) = program.narrow(of_layer(weights="bfloat16"))
    assert roots == "statistics: 1 roots of variances or norms are taken in 16 bits"
    assert sums.startswith("sums: ")


def test_norms_in_bfloat16_are_found(monkeypatch):
    monkeypatch.setattr(plain, "clip_dtype", lambda parameter: "bfloat16")
    assert any("statistics: 8 roots" in each for each in program.narrow(of_layer()))


def test_a_bias_whose_gradient_is_summed_in_bfloat16_is_found(monkeypatch):
    def affine(operation, x, kernel, bias):
        return operation(x, kernel.astype(x.dtype)) + bias.astype(x.dtype)

    monkeypatch.setattr(jax_kernels, "_affine", affine)
    (sentence,) = program.narrow(of_layer())
    assert sentence == "sums: 1 sums over an array are in 16 bits"


@pytest.mark.parametrize("kernels, count", [(jax_kernels, 0), (plain, 1)])
def test_gates_whose_gradients_are_summed_in_bfloat16_are_found(kernels, count):
    def gradient(gate, x):
        return jax.grad(lambda gate: kernels.gated(x, gate).astype("float32").sum())(gate)

    text = asked(gradient, ((2, 1, 1, 8), "bfloat16"), ((2, 9, 7, 8), "bfloat16"))
    assert len(program.narrow(text)) == count


@pytest.mark.parametrize(
    ("width", "split", "convs"), [(128, False, 2), (64, False, 1), (128, True, 1)]
)
def test_grouped_convs_on_a_tpu(width, split, convs):
    """One for each group where a group fills a row, but of kernels in parts."""

    def function(x, kernel, bias):
        return jax_kernels.convolve(x, kernel, bias, 1, "same", "channels_last", 1)

    shapes = (2, 9, 7, 2 * width), (3, 3, width, 2 * width), (2 * width,)
    spread = Parts(jax.devices()[:1]).scope() if split else contextlib.nullcontext()
    with spread:
        text = asked(function, *((shape, "float32") for shape in shapes))
    assert text.count("stablehlo.convolution") == convs


def test_convs_of_float32_are_found():
    (sentence,) = program.wide(of_layer(images="float32"))
    assert sentence == "products: 1 convs make images of float32, not of bfloat16"


def test_a_state_that_is_copied_is_found(spec, monkeypatch):
    jit = jax.jit
    monkeypatch.setattr(jax, "jit", lambda f, donate_argnums=(), **o: jit(f, **o))
    (sentence,) = lower(spec, "step", "cpu", batch=2).faults
    assert sentence.startswith("memory: 0.0 MB are written in the place of their old values, of ")


def test_a_callback_in_a_network_is_refused(spec, monkeypatch):
    """JAX itself has none for a platform that is not there."""
    activate = jax_kernels.activate

    def called(kind, slope):
        function = activate(kind, slope)
        return lambda x: jax.pure_callback(np.abs, x, function(x))

    monkeypatch.setattr(jax_kernels, "activate", called)
    (sentence,) = lower(spec, "forward", "cpu", size=16).faults
    assert sentence.startswith("host: ")


def test_a_forward_pass(spec):
    plan = nfspec.resolve(spec)
    done = lower(spec, "folded", "cpu", batch=2, size=33)
    macs = 2 * count(plan, size=33).macs
    assert 2 * macs <= done.flops <= 2.5 * macs
    assert done.arguments >= 4 * parameter_count(plan)
    assert (done.devices, done.faults, done.collectives, done.seconds) == (1, (), (), None)


def test_a_step_updates_in_place(spec):
    plan = nfspec.resolve(spec)
    done = lower(plan, "step", "cpu", batch=2)
    weights = 4 * parameter_count(plan)
    assert done.donated >= 3 * weights  # parameters, momentum and average
    assert done.flops >= 6 * count(plan, size=16).macs
    assert done.size == plan.train_size and done.faults == ()


def test_the_command(spec, tmp_path):
    file = write_spec(tmp_path, STILL)
    options = ["--target", "cpu", "--work", "forward", "--set", "stages.alpha=0.3"]
    ask = ["lower", str(file), *options, "--hlo", str(tmp_path / "a.hlo")]
    done = CliRunner().invoke(app, [*ask, "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["work"] == "forward" and facts["flops"] > 0 and "text" not in facts
    assert (tmp_path / "a.hlo").read_text().startswith("HloModule")
    again = CliRunner().invoke(app, ask)
    assert again.exit_code == 2 and "--force" in again.stderr


@pytest.mark.parametrize(("shard", "parts"), [(False, 1), (True, 4)])
def test_the_memory_of_nfspec_cost_stands_beside_the_compiled_one(shard, parts):
    plan = nfspec.resolve(nfspec.load("nfnet-f0"))
    step = Lowered(
        *(
            "nfnet-f0",
            "step",
            "tpu-v5e:2x2",
            "bfloat16",
            4,
            8,
            96,
            1e9,
            1e8,
            10**8,
            10**8,
            10**8,
            0,
        ),
        *(2**34, None, 60.0, 10**6, (), (), ""),
    )
    needed = training_bytes(plan, 8, 96, "bfloat16", lanes=LANES, parts=parts) / GIB
    (peak,) = [row for row in _rows(step, plan, shard) if row[0] == "peak memory, GiB"]
    assert peak == ("peak memory, GiB", "0.09", f"{needed:.2f}")


def test_a_program_for_gpus_is_not_compiled(spec):
    plan = nfspec.resolve(spec)
    done = lower(spec, "step", "cuda", batch=2, precision="bfloat16")
    assert done.flops >= 6 * count(plan, size=16).macs
    assert (done.peak, done.compile_seconds, done.faults) == (None, None, ())
    printed = CliRunner().invoke(app, ["lower", "nfnet-nano", "--target", "cuda", "--size", "32"])
    assert printed.exit_code == 0 and "not compiled" in printed.stdout
    assert "peak" not in printed.stdout


@pytest.mark.parametrize("name", ["tpu", "tpu-v5e", "tpu-v9:2x2", "tpu-v5e:2x", "gpu", "v5e:2x2"])
def test_a_target_that_is_none(name):
    with pytest.raises(InputError, match=r"^target: expected cpu, cuda, or one of tpu-v3"):
        target_of(name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"work": "train"}, 'work: expected one of "forward", "folded", "step"'),
        ({"precision": "float16"}, 'precision: expected one of "float32", "bfloat16"'),
        ({"batch": 0}, "batch: "),
        ({"size": 2.5}, "size: "),
        ({"shard": 1}, "shard: "),
    ],
)
def test_arguments_that_are_wrong(change, words, spec):
    with pytest.raises(InputError, match=words):
        lower(spec, **{"work": "forward", "target": "cpu", **change})


def test_without_the_compiler_of_tpus(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"libtpu, is not installed; pip install"):
        target_of("tpu-v5e:2x2").devices()


@pytest.mark.slow  # compiles two steps
@pytest.mark.parametrize("shard", [False, True])
def test_the_plain_port_beside_it(spec, shard):
    plan = nfspec.resolve(spec)
    ours = lower(plan, "step", "cpu", batch=2, precision="bfloat16", shard=shard)
    theirs = lowered.plain(plan, "cpu", 2, shard)
    assert theirs.flops == pytest.approx(ours.flops, rel=0.1)
    title, *rows = lowered.rows(ours, theirs)
    assert title == ("on one device", "nfspec", "plain port", "ratio")
    assert [row[0] for row in rows][:2] == ["GFLOP", "GB read and written"]
    assert all(float(row[3]) > 0 for row in rows)


@pytest.mark.slow  # minutes: a compiler for another machine
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_step_for_four_tpus(spec):
    """SAM's ascent on a part of the batch adds up its gradients, too, and exchanges no images."""
    recipe = {"recipe.sam_rho": 0.05, "recipe.sam_fraction": 0.5, "recipe.remat": "block"}
    sharp = lower(nfspec.load("nfnet-nano", recipe), "step", "tpu-v5e:2x2", batch=8, size=64)
    assert sharp.faults == ()
    whole = lower(spec, "step", "tpu-v5e:2x2", batch=8, precision="bfloat16")
    parts = lower(spec, "step", "tpu-v5e:2x2", batch=8, precision="bfloat16", shard=True)
    assert whole.devices == 4 and whole.memory == 16 * 2**30
    # Each gradient is added up once, in float32, with the loss and the accuracy; those of gains are
    # computed from the sums of their kernels'.
    assert whole.faults == ()
    parameters = nfspec.resolve(spec).parameters
    summed = [q.size for name, q in parameters.items() if not name.endswith(".gain")]
    assert sum(c.bytes for c in whole.collectives) == 4 * (sum(summed) + 2)
    # Small arrays are padded to tiles, whole or split.
    assert parts.arguments < 0.7 * whole.arguments
    # Kernels are gathered as they are used, rounded, and nothing else is exchanged.
    assert parts.faults == ()
    kernels = [p.shape for p in parameters.values() if len(p.shape) > 1]
    split = sum(math.prod(shape) for shape in kernels if shape[-1] % 4 == 0)
    gathered = [c for c in parts.collectives if c.kind == "all-gather"]
    assert sum(c.bytes for c in gathered) == 2 * split
    assert {c.dtypes for c in gathered} == {("bf16",)}
