"""Subjects: the implementations under test, each behind a small adapter.

A subject is a class. It is called with a mode (`f32`, `tf32`, `bf16`, `f16`), and has

- `framework`: `jax`, `torch`, `tensorflow` or `numpy`, a class attribute;
- `package`, where it likes: the distribution whose version the reports name, such as `timm`;
- any of the methods of `Subject`, which says what each is given and returns. A method that the
  class lacks, or that is None, is not offered; a method raises `NotOffered` for a description that
  the implementation has no counterpart of.

The methods of layers, blocks and networks return a function of the framework's own tensors. The kit
compiles and differentiates it as that framework's users would. Images are NHWC, kernels HWIO, dense
kernels IO, whatever layout the implementation has within.

A subject of `numpy` imports no framework at all. Its functions get float32 arrays and return
float32 or float64 ones. NumPy cannot differentiate, so a function states its own vector-Jacobian
product (vjp): it has an attribute `vjp`, a function of dy and the same arguments, which returns the
gradient of Σ dy·y by each argument, in their order. Without `vjp` its gradients are not offered.

    class Mine:
        framework = "numpy"

        def __init__(self, mode):
            pass

        def dense(self, op):
            def function(x, kernel, bias):
                return x @ kernel + bias

            function.vjp = lambda dy, x, kernel, bias: (dy @ kernel.T, x.T @ dy, dy.sum(0))
            return function

`nfspec conform SPEC --subject my_module:Mine` judges it. Subjects are found by the names in
`SHIPPED`, by entry point of the group `nfspec.subjects`, or as `module:object`.

An adapter imports `cases`, and the implementation that it adapts when it is made.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, Protocol

from nfspec.conformance.cases.case import Arrays, Clip
from nfspec.errors import InputError, NfspecError, suggest
from nfspec.plan import (
    ECA,
    Activation,
    Dense,
    Dropout,
    GlobalPool,
    Plan,
    Pool,
    Residual,
    SqueezeExcite,
    StochasticDepth,
    WSConv,
)

FRAMEWORKS = ("jax", "torch", "tensorflow", "numpy")
SHIPPED = {
    "jax": "nfspec.conformance.subjects.nfspec:JAX",
    "torch": "nfspec.conformance.subjects.nfspec:Torch",
    "tensorflow": "nfspec.conformance.subjects.nfspec:TensorFlow",
    "jax-plain": "nfspec.conformance.subjects.nfspec:PlainJAX",
    "torch-plain": "nfspec.conformance.subjects.nfspec:PlainTorch",
    "tensorflow-plain": "nfspec.conformance.subjects.nfspec:PlainTensorFlow",
    "timm": "nfspec.conformance.subjects.timm:Timm",
    "optax": "nfspec.conformance.subjects.optax:Optax",
}
GROUP = "nfspec.subjects"

Function = Callable[..., Any]


class NotOffered(NfspecError):
    """The subject has no counterpart of a description."""


class NoMethod(NotOffered):
    """The subject has no method for descriptions of a kind."""


class Subject(Protocol):
    """An implementation under test. A class may leave out any method but `__init__`.

    Args:
        mode: Mode of the arithmetic: f32, tf32, bf16 or f16. Raises `NotOffered` for a mode that
            the implementation does not have.
    """

    framework: ClassVar[str]

    def __init__(self, mode: str): ...

    def ws_conv(self, op: WSConv) -> Function:
        """A function of x, kernel, gain, bias."""

    def activation(self, op: Activation) -> Function:
        """A function of x."""

    def pool(self, op: Pool) -> Function:
        """A function of x."""

    def squeeze_excite(self, op: SqueezeExcite) -> Function:
        """A function of x, fc0.kernel, fc0.bias, fc1.kernel, fc1.bias."""

    def eca(self, op: ECA) -> Function:
        """A function of x, kernel."""

    def residual(self, op: Residual) -> Function:
        """A function of branch, shortcut, and skip_gain if it is learned."""

    def global_pool(self, op: GlobalPool) -> Function:
        """A function of x, (N, H, W, C) to (N, C)."""

    def dense(self, op: Dense) -> Function:
        """A function of x, kernel, bias."""

    def agc(self, clip: Clip) -> Function:
        """A function of gradient, parameter, which returns the clipped gradient."""

    def block(self, plan: Plan) -> Function:
        """A function of x and {canonical name: parameter}.

        Args:
            plan: One block, which reads `input`.
        """

    def forward(self, plan: Plan) -> Function:
        """A function of x and {canonical name: parameter}, which returns {tap: value}, of any of
        the plan's taps."""

    def stochastic_depth(self, op: StochasticDepth, seed: int, replica: int) -> Function:
        """A function of NumPy arrays: x, a batch, and training, a bool. Each call in training draws
        anew.

        Args:
            op: The layer.
            seed: Random seed.
            replica: Number of the replica, such as a device; each draws on its own.
        """

    def dropout(self, op: Dropout, seed: int, replica: int) -> Function:
        """Dropout before the classifier, like `stochastic_depth`."""

    def ways(self, plan: Plan, params: Arrays, seed: int) -> Mapping[str, Function]:
        """{way: a function of x that returns {tap: value}}, all NumPy arrays.

        `training` evaluates the network once as a training step does; `mode` does so after what
        puts a network in training mode, such as PyTorch's `train()`, where there is that.
        """

    def folded(self, plan: Plan, params: Arrays) -> tuple[Function, Mapping[str, Function]]:
        """A network folded for inference, of NumPy arrays.

        Returns:
            A function of x, the logits; and functions that give the network other folded
            parameters, by the names in `nfspec.conformance.properties.folding.WAYS`, of which all
            but `assign` may be left out.
        """

    def train(self, plan: Plan, params: Arrays, x: Any, labels: Any, steps: int) -> Arrays:
        """Train on one batch for so many steps, by the plan's recipe and AGC.

        Args:
            plan, params: The network and its weights before the first step.
            x: Images, (N, H, W, C).
            labels: One-hot, (N, classes).
            steps: Number of steps.

        Returns:
            `losses`, (steps,); and every parameter after the first step and after the last, as
            `first/NAME` and `last/NAME`.
        """

    def step(
        self, plan: Plan, params: Arrays, momentum: Arrays, gradients: Arrays, done: int
    ) -> Arrays:
        """Take one step of the plan's optimizer from a given state.

        Args:
            plan: The network, with its recipe.
            params, momentum, gradients: Arrays by canonical name.
            done: Number of steps taken before.

        Returns:
            `parameter/NAME` and `momentum/NAME`, as they are afterwards.
        """

    def through(self, plan: Plan, params: Arrays | None) -> Arrays:
        """The parameters that a model has, by canonical name.

        Args:
            plan: The network.
            params: Parameters to give to the model; None for those that it is made with.
        """


# The method that answers for each kind of description, by the name that a property has for it.
METHODS: dict[str, Callable[[Subject], Function]] = {
    "ws_conv": lambda subject: subject.ws_conv,
    "activation": lambda subject: subject.activation,
    "pool": lambda subject: subject.pool,
    "squeeze_excite": lambda subject: subject.squeeze_excite,
    "eca": lambda subject: subject.eca,
    "residual": lambda subject: subject.residual,
    "global_pool": lambda subject: subject.global_pool,
    "dense": lambda subject: subject.dense,
    "agc": lambda subject: subject.agc,
    "block": lambda subject: subject.block,
    "forward": lambda subject: subject.forward,
    "stochastic_depth": lambda subject: subject.stochastic_depth,
    "dropout": lambda subject: subject.dropout,
    "ways": lambda subject: subject.ways,
    "folded": lambda subject: subject.folded,
    "train": lambda subject: subject.train,
    "step": lambda subject: subject.step,
    "through": lambda subject: subject.through,
}


def method_of(subject: Subject, name: str) -> Function:
    """A subject's method, by a name of `METHODS`.

    Raises:
        NoMethod: The subject has no such method.
    """
    try:
        method: Function | None = METHODS[name](subject)
    except AttributeError:
        method = None
    if method is None:
        raise NoMethod(f"{type(subject).__name__} has no {name}")
    return method


def place(name: str) -> str:
    """The place of a subject, as `module:object`.

    Raises:
        InputError: No such name.
    """
    if ":" in name:
        return name
    if name in SHIPPED:
        return SHIPPED[name]
    installed = {point.name: point.value for point in entry_points(group=GROUP)}
    if name in installed:
        return installed[name]
    known = [*SHIPPED, *installed]
    raise InputError(
        f'no subject "{name}"; expected one of {", ".join(known)}, or module:object'
        f"{suggest(name, known)}"
    )


def load(name: str) -> type[Subject]:
    """The class of a subject. Imports its module, and so perhaps a framework.

    Raises:
        InputError: No such name, module or object, or the object is no subject.
    """
    where = place(name)
    if ":" in name:
        sys.path.append(str(Path.cwd()))  # last, so that nothing there stands in for a framework
    module, _, attribute = where.partition(":")
    try:
        subject: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"subject {name}: {where} cannot be loaded: {error}") from None
    if getattr(subject, "framework", None) not in FRAMEWORKS:
        *first, last = FRAMEWORKS
        raise InputError(
            f"subject {name}: {where} has no attribute `framework` of {', '.join(first)} or {last}"
        )
    return subject
