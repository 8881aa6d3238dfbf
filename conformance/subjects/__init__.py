"""Subjects: the implementations under test, each behind a small adapter.

A subject is a class. It is called with a mode (`f32`, `tf32`, `bf16`, `f16`), and has

- `framework`: `jax`, `torch`, `tensorflow`, `mlx` or `numpy`, a class attribute;
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

`nfspec conform SPEC --subject my_module:Mine` judges it, and so does
`nfspec.conformance.check(Mine, SPEC)`. `nfspec.conformance.subjects.loading` says which names a
subject can have. docs/conformance.md shows how to write one.

A subject can also be an object that has all this and has been made already. It answers in mode f32
alone, or in those of its attribute `modes`.

An adapter imports `cases`, and the implementation that it adapts when it is made.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, ClassVar, Protocol

from nfspec.conformance.cases.case import Arrays, Clip
from nfspec.errors import NfspecError
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

FRAMEWORKS = ("jax", "torch", "tensorflow", "mlx", "numpy")

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


# The methods of `Subject`. Each answers for one kind of description, which a property names.
METHODS = (
    "ws_conv",
    "activation",
    "pool",
    "squeeze_excite",
    "eca",
    "residual",
    "global_pool",
    "dense",
    "agc",
    "block",
    "forward",
    "stochastic_depth",
    "dropout",
    "ways",
    "folded",
    "train",
    "step",
    "through",
)


def method_of(subject: Subject, name: str) -> Function:
    """A subject's method, by a name of `METHODS`.

    Raises:
        NoMethod: The subject has no such method.
    """
    try:
        method: Function | None = attrgetter(name)(subject)
    except AttributeError:
        method = None
    if method is None:
        misspelt = difflib.get_close_matches(name, unknown_methods(subject), n=1)
        hint = f", but {misspelt[0]}, which the kit does not call" if misspelt else ""
        raise NoMethod(f"{type(subject).__name__} has no {name}{hint}")
    return method


def lacking(subject: Subject) -> dict[str, str]:
    """The methods of `METHODS` that a subject does not have, each with a sentence that says so."""
    sentences = {}
    for name in METHODS:
        try:
            method_of(subject, name)
        except NoMethod as error:
            sentences[name] = str(error)
    return sentences


def unknown_methods(subject: Subject) -> list[str]:
    """Names of the public methods of a subject's class that the kit never calls, such as a misspelt
    `wsconv`."""
    public = (name for name, _ in inspect.getmembers(type(subject), inspect.isroutine))
    return [name for name in public if not name.startswith("_") and name not in METHODS]
