"""Networks that are traced, exported or compiled at one image size are right at other sizes.

Sides are odd and even, images not square, batches of one and more. Operations are compared with
themselves called eagerly, as other tests compare with the reference; networks with the reference.
"""

from importlib.metadata import version

import keras
import numpy as np
import pytest
from packaging.version import Version

import nfspec
from nfspec.backends import layers
from nfspec.conformance.cases.reduction import reduced_plan
from nfspec.conformance.cases.weights import trial_params
from nfspec.plan.counting import output_side

from .small import COMPILES, DROPS, SPEC, compiles, small_params, small_spec
from golden import golden, relative

BACKEND = keras.backend.backend()
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's ways to trace")
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="JAX's way to export")
older = pytest.mark.skipif(
    Version(version("jax")) < Version("0.7"), reason="JAX has one program for all platforms"
)
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's way to trace")

FIRST = (2, 64, 64)  # what is traced
# Odd and even sides at each of three strides of two, and all that a stride of four may leave over.
SIZES = [(1, 33, 48), (3, 34, 47), (1, 35, 37), (2, 64, 50)]

# Strides of two where the sides meet again: a pooled shortcut and a strided conv.
STRIDED = (
    SPEC.replace("depth = [1]", "depth = [1, 2]")
    .replace("width = [16]", "width = [16, 24]")
    .replace("stride = [1]", "stride = [2, 2]")
    .replace("rate = 0.0", "rate = 0.5")
    .replace("dropout = 0.0", "dropout = 0.5")
)
OPERATIONS = {
    **{
        f"conv-{kernel}-{stride}-{padding}": lambda k=kernel, s=stride, p=padding: layers.WSConv2D(
            8, k, strides=s, padding=p
        )
        for kernel, stride in ((1, 2), (3, 1), (3, 2), (3, 4), (5, 2), (7, 3))
        for padding in ("same", "symmetric")
    },
    "conv-folded": lambda: layers.Conv2D(8, 3, strides=2, kind="gelu_tanh"),
    "pool-avg": lambda: layers.SpatialPool("avg", 2, strides=2),
    "pool-max": lambda: layers.SpatialPool("max", 3, strides=2),
    "pool-max-symmetric": lambda: layers.SpatialPool("max", 3, strides=2, padding="symmetric"),
    "mean": lambda: layers.SpatialMean(),
    "se": lambda: layers.SqueezeExcite(4),
    "eca": lambda: layers.EfficientChannelAttention(3),
    "activation": lambda: layers.ScaledActivation("gelu_tanh"),
}


REDUCED = ("nfnet-f0", "timm/dm_nfnet_f0", "timm/nfnet_f0")


def images(size, channels=3, seed=0):
    return np.random.default_rng(seed).standard_normal((*size, channels)).astype(np.float32)


def network(how):
    """A model and its params: fast, plain, folded, channels_first, of the other padding, or of a
    built-in network that is cut to a few narrow blocks."""
    if how in REDUCED:
        plan = reduced_plan(nfspec.load(how))
        params = trial_params(plan, 0)
        return nfspec.compile(plan, BACKEND, params), plan, params
    if how == "symmetric":
        g = golden("nf_resnet_tiny")
        return nfspec.compile(g.spec, BACKEND, g.params), g.plan, g.params
    spec = small_spec(STRIDED)
    plan = nfspec.resolve(spec)
    params = trial_params(plan, 0)
    return (
        nfspec.compile(spec, BACKEND, params, **{how: True} if how != "fast" else {}),
        plan,
        params,
    )


def assert_right(run, how):
    _, plan, params = how
    for size in SIZES:
        x = images(size)
        exact = nfspec.reference.forward(plan, params, x)["logits"]
        assert relative(run(x), exact) <= 3e-6, size


def free(torch):
    """PyTorch's way to say that batch and sides are free."""
    sides = {1: torch.export.Dim("height", min=33), 2: torch.export.Dim("width", min=33)}
    return ({0: torch.export.Dim("batch"), **sides},)


@on_torch
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace")
def test_an_operation_traced_by_pytorch(name):
    import torch

    layer = OPERATIONS[name]()
    first = torch.tensor(images(FIRST, 8))
    layer(first)  # builds it
    for variable in layer.variables:
        variable.trainable = False  # a layer alone holds its parameters where no trace sees them

    class Module(torch.nn.Module):
        def forward(self, x):
            return layer(x)

    module = Module()
    with torch.no_grad():
        runs = [torch.jit.trace(module, first, check_trace=False)]
        # PyTorch refuses, where a conv leaves out pixels between.
        if COMPILES and name != "conv-3-4-same":
            program = torch.export.export(module, (first,), dynamic_shapes=free(torch))
            runs.append(program.module())
        for size in SIZES:
            x = torch.tensor(images(size, 8))
            wanted = layer(x)
            for run in runs:
                assert relative(run(x).numpy(), wanted.numpy()) <= 1e-6, (name, size)


def run_of(model, torch):
    return lambda x: model(torch.tensor(x)).detach().numpy()


@on_torch
@pytest.mark.parametrize("how", ["fast", "plain", "folded", "symmetric"])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace")
def test_a_network_traced_by_pytorch(how):
    import torch

    made = network(how)
    with torch.no_grad():
        traced = torch.jit.trace(made[0], torch.tensor(images(FIRST)), check_trace=False)
    assert_right(run_of(traced, torch), made)


@on_torch
@compiles
@pytest.mark.parametrize("how", ["fast", "folded", "symmetric"])
def test_a_network_exported_by_pytorch(how):
    import torch

    made = network(how)
    first = torch.tensor(images(FIRST))
    program = torch.export.export(made[0], (first,), dynamic_shapes=free(torch))
    assert_right(run_of(program.module(), torch), made)
    held = {name for name, _ in made[0].named_parameters()}
    assert held >= set(program.state_dict)  # parameters, and no constants beside them


@on_torch
@compiles
@pytest.mark.slow
@pytest.mark.parametrize("how", ["fast", "folded"])
def test_a_network_compiled_by_pytorch_is_one_graph(how):
    """Without Inductor, which takes minutes to compile and changes nothing here."""
    import torch

    made = network(how)
    compiled = torch.compile(made[0], dynamic=True, fullgraph=True, backend="aot_eager")
    assert_right(run_of(compiled, torch), made)


@on_torch
@compiles
@pytest.mark.parametrize("batches", [(8, 8), pytest.param((8, 8, 4), marks=pytest.mark.slow)])
def test_a_compiled_network_trains(batches):
    """One block, as compiling takes a second for each operation; another size compiles it anew."""
    import torch

    model = nfspec.compile(small_spec(DROPS), "torch", small_params())
    model.train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    outputs = []
    for batch in batches:
        x = torch.tensor(images((batch, 16, 16)))
        outputs.append(compiled(x))
        model.zero_grad()
        outputs[-1].square().sum().backward()
        still = [n for n, p in model.named_parameters() if not bool(p.grad.abs().sum() > 0.0)]
        # All images of a batch may lose a branch: the last conv of a residual has no gradient then.
        assert set(still) < set(model.plan.parameters)
    assert not torch.equal(outputs[0], outputs[1])  # dropped anew in each call


@on_torch
@pytest.mark.parametrize("how", ["fast", "plain", "folded", "symmetric"])
@pytest.mark.filterwarnings("ignore")
def test_a_network_as_onnx(how, tmp_path):
    import onnxruntime
    import torch

    made, file = network(how), tmp_path / "network.onnx"
    axes = {"image": {0: "batch", 1: "height", 2: "width"}}
    torch.onnx.export(
        made[0],
        (torch.tensor(images(FIRST)),),
        file,
        dynamo=False,
        input_names=["image"],
        dynamic_axes=axes,
    )
    session = onnxruntime.InferenceSession(file)
    assert_right(lambda x: session.run(None, {"image": x})[0], made)


@on_torch
@compiles
@pytest.mark.slow
@pytest.mark.parametrize("how", ["fast", "plain", "folded", "symmetric"])
@pytest.mark.filterwarnings("ignore")
def test_a_network_as_onnx_by_pytorchs_newer_exporter(how, tmp_path):
    import onnxruntime
    import torch

    made, file = network(how), tmp_path / "network.onnx"
    torch.onnx.export(
        made[0],
        (torch.tensor(images(FIRST)),),
        file,
        dynamo=True,
        input_names=["image"],
        dynamic_shapes=free(torch),
    )
    session = onnxruntime.InferenceSession(file)
    assert_right(lambda x: session.run(None, {"image": x})[0], made)


@on_torch
@compiles
@pytest.mark.filterwarnings("ignore")
def test_a_network_as_onnx_by_keras(tmp_path):
    """Keras traces an image of one pixel."""
    import onnxruntime

    made, file = network("fast"), tmp_path / "network.onnx"
    made[0](images(FIRST))  # Keras wants it called once
    made[0].export(file, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(file)
    name = session.get_inputs()[0].name
    assert_right(lambda x: session.run(None, {name: x})[0], made)


def free_images(channels=3):
    """JAX's way to say that batch and sides are free."""
    import jax
    from jax import export

    return jax.ShapeDtypeStruct((*export.symbolic_shape("b, h, w"), channels), "float32")


@on_jax
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_sides_that_are_always_equal_are_one_expression(plain, stride):
    """So that JAX can prove that a branch and a shortcut may be added. Nothing is computed."""
    import jax

    expressions = {}
    how = {"strides": stride, "plain": plain}
    for padding in ("same", "symmetric"):
        for kernel in (1, 3, 5):
            conv = layers.WSConv2D(8, kernel, padding=padding, groups=kernel // 2 or 1, **how)
            conv.build((None, None, None, 8))
            pools = [layers.SpatialPool("max", kernel, padding=padding, **how)]
            pools += [layers.SpatialPool("avg", kernel, **how)] if padding == "same" else []
            sides = tuple(output_side(n, kernel, stride, padding) for n in range(1, 100))
            for layer in (conv, *pools):
                shape = jax.eval_shape(layer.call, free_images(8)).shape
                expressions.setdefault(sides, set()).add(tuple(map(str, shape[1:3])))
    assert max(map(len, expressions.values())) == 1, expressions.values()


@on_jax
@pytest.mark.parametrize(
    "how",
    [
        "fast",
        "symmetric",
        pytest.param("folded", marks=pytest.mark.slow),
        *(pytest.param(name, marks=pytest.mark.slow) for name in REDUCED),
    ],
)
def test_a_network_exported_by_jax(how):
    import jax
    from jax import export

    made = network(how)
    trained = [v.value for v in made[0].trainable_variables]
    rest = [v.value for v in made[0].non_trainable_variables]

    @jax.jit
    def forward(x):
        return made[0].stateless_call(trained, rest, x, training=False)[0]

    assert_right(export.export(forward)(free_images()).call, made)


@on_jax
@older
@pytest.mark.parametrize("kernel, groups", [(3, 2), (1, 1)])
def test_a_file_has_the_convs_of_each_platform_that_it_is_for(kernel, groups):
    """Group by group, or as a matrix product, on the CPU alone."""
    import jax
    from jax import export

    layer = layers.WSConv2D(16, kernel, groups=groups)
    x = images((2, 9, 8), 8)
    layer(x)
    convs = {}
    for platforms in (("cpu",), ("cuda",), ("tpu",), ("cpu", "cuda", "tpu")):
        exported = export.export(jax.jit(layer.call), platforms=platforms)(x)
        text = exported.mlir_module()
        convs[platforms] = text.count("stablehlo.convolution")
        grouped = text.count(f"feature_group_count = {groups}")
        assert (grouped > 0) == (platforms != ("cpu",)), platforms
    on_cpu = groups if groups > 1 else 0
    *alone, together = convs.values()
    assert alone == [on_cpu, 1, 1]
    assert together >= on_cpu + 1  # JAX itself writes a conv once for each of several platforms
    assert relative(exported.call(x), layer(x)) <= 1e-6


@on_tensorflow
@pytest.mark.parametrize("how", ["fast", "plain", "folded", "symmetric"])
def test_a_network_traced_by_tensorflow(how):
    import tensorflow as tf

    made = network(how)
    signature = [tf.TensorSpec((None, None, None, 3), tf.float32)]
    function = tf.function(
        lambda x: made[0](x, training=False), input_signature=signature, autograph=False
    )
    traced = function.get_concrete_function()
    assert_right(lambda x: traced(tf.constant(x)).numpy(), made)


@on_tensorflow
def test_a_network_as_a_saved_model_by_keras(tmp_path):
    import tensorflow as tf

    made = network("fast")
    made[0].export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    assert_right(lambda x: loaded.serve(x).numpy(), made)
