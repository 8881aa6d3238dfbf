"""A trained network to ask about images: a training, a spec with weights, an exported file, a
model of this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nfspec import compilation
from nfspec.data.images import require_channels
from nfspec.data.preprocessing import input_of
from nfspec.data.sources import EXTENSIONS
from nfspec.errors import InputError, WeightError
from nfspec.language.graph import Input
from nfspec.language.loader import load
from nfspec.language.overrides import ON_COMMAND_LINE, overriding
from nfspec.plan import Plan
from nfspec.plan.free_memory import require_free_memory
from nfspec.plan.initialise import Params
from nfspec.plan.resolver import resolve
from nfspec.training import frameworks
from nfspec.training.folders import Facts, read_facts
from nfspec.training.scores import Logits
from nfspec.weights.kinds import READERS, SUFFIXES, kind_of_file, read_fitting
from nfspec.weights.pretrained import weights_file
from nfspec.wording import printable

LOGITS, POOL = "logits", "pool"


@dataclass(frozen=True)
class Opened:
    """A network that was found and checked, and whose weights are not read yet.

    Attributes:
        name: The spec's name.
        runs_on: What computes it, a framework or a runtime.
        how: The spec's `[input]`.
        classes: Number of classes.
        facts: The facts of the training, where it is one.
        names: Names of the classes that the training or the file states; else empty.
        side: The one side of images that it takes, px; None for any.
        batch: The one number of images that it takes; None for any.
        outputs: Names of the outputs that `function` can make.
        function: Reads the weights, and returns a function of images (N, H, W, C), float32, to
            the output of a name, (N, C).
    """

    name: str
    runs_on: str
    how: Input
    classes: int
    facts: Facts | None
    names: tuple[str, ...]
    side: int | None
    batch: int | None
    outputs: Collection[str]
    function: Callable[[str], Logits]

    def side_for(self, size: int | None) -> int:
        """The side of the images to give it: what is asked for, its own, or the spec's test size.

        Raises:
            InputError: It takes images of another size alone.
        """
        side = size or self.side or self.how.test
        if self.side not in (None, side):
            raise InputError(
                f"{self.name}: takes images of {self.side} x {self.side} px alone, not of "
                f"{side} x {side} px"
            )
        return side

    def require_output(self, name: str) -> None:
        """Refuse a network that cannot make an output.

        Raises:
            InputError: It cannot.
        """
        if name not in self.outputs:
            raise InputError(
                f"{self.name}: has no output {name}; export or compile it with {name} among its "
                "outputs"
            )


@dataclass(frozen=True)
class Source:
    """A network as a user names it.

    Attributes:
        network: The folder of a training; a built-in spec, or the path of a .toml file; an
            exported file; or a model that `nfspec.compile` returned.
        weights: File of weights, nfspec's, DeepMind's or timm's, or a name that
            `nfspec.pretrained` takes; a training's last if None.
        backend: Framework. If None, that which Keras runs on in this process, or else the
            training's, or else the first that is installed.
        runtime: Package of an exported file's runtime, such as "onnxruntime"; the format's own if
            None.
        folded: Standardise the kernels once, before the first image.
        overrides: Values that replace those of the spec, such as `{"input.test": 256}`.
    """

    network: Any
    weights: str | Path | None = None
    backend: str | None = None
    runtime: str | None = None
    folded: bool = True
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def open(self) -> Opened:
        """Find the network and check that it can be used, without reading its weights.

        Raises:
            NfspecError: Something is missing, or cannot be used.
        """
        from nfspec.backends.exporters.formats import is_exported

        if not isinstance(self.network, str | Path):
            self._refuse("a model", "runtime", "weights", "backend", "overrides")
            return _of_model(self.network)
        path = Path(self.network)
        if is_exported(path):
            self._refuse(f"{path} is an exported file", "weights", "backend", "overrides")
            if not self.folded:
                raise InputError(f"unfolded: {path} is an exported file, and is folded")
            return _of_file(path, self.runtime)
        if self.runtime is not None:
            raise InputError(f"runtime: for exported files; {path} is none")
        _require_network(path)
        return _of_spec(self, path)

    def _refuse(self, what: str, *names: str) -> None:
        """Refuse arguments that a network has no use for.

        Raises:
            InputError: One is given.
        """
        for name in names:
            if getattr(self, name):
                shown = {"overrides": "set"}.get(name, name)
                raise InputError(f"{shown}: {what}, in which this is settled; leave it out")


def _require_network(path: Path) -> None:
    """Refuse a file that is an image or weights, by its name.

    Raises:
        InputError: It is.
    """
    if not path.is_file():
        return
    shown = printable(str(path))
    if path.suffix.lower() in EXTENSIONS:
        raise InputError(f"{shown}: an image, where a network was expected: name that first")
    if any(path.suffix in suffixes for suffixes in SUFFIXES.values()):
        raise InputError(
            f"{shown}: a file of weights, where a network was expected: name its spec, and give "
            f"the file as --weights {shown}"
        )


def _of_spec(source: Source, path: Path) -> Opened:
    facts = read_facts(path) if path.is_dir() else None
    if facts is None and source.weights is None:
        load(str(source.network))  # says so where it is neither
        raise InputError(f"{path} is a spec and not a training; give --weights, too")
    over = overriding(source.overrides, ON_COMMAND_LINE)
    spec = load(path / "spec.toml" if facts else str(source.network), over)
    require_channels(spec.input)
    plan = resolve(spec)
    require_free_memory(plan, "run", 2)  # the weights as they are read, and those in the model
    backend = source.backend or _framework(facts)

    def function(output: str) -> Logits:
        params = _params(weights_file(source.weights or path / "weights.safetensors"), plan, output)
        frameworks.start(backend)
        from nfspec.backends.running import forward_function

        taps = output != LOGITS
        network = compilation.compile(
            plan,
            backend,  # type: ignore[arg-type]  # text that is checked there
            params,
            taps=taps,
            folded=source.folded,
        )
        run = forward_function(network)
        return (lambda images: run(images)[output]) if taps else run

    return Opened(
        spec.name, backend, spec.input, spec.head.classes, facts,
        tuple(facts.classes) if facts else (), None, None, tuple(plan.taps), function,
    )  # fmt: skip


def _params(file: Path, plan: Plan, output: str) -> Params:
    """The parameters in a file of weights, for an output; only logits need its classifier.

    Raises:
        WeightError: They do not fit.
        InputError: They would fit the network with another number of classes.
    """
    kind = kind_of_file(file)
    if output != LOGITS:
        return read_fitting(file, plan, kind).params
    try:
        return READERS[kind](file, plan)
    except WeightError as error:
        with suppress(WeightError):
            _require_classifier(READERS[kind](file, plan, own_shapes=True), plan, file)
        raise error from None


def _require_classifier(stored: Params, plan: Plan, file: Path) -> None:
    """Refuse weights without a classifier, or with one of another number of classes.

    Raises:
        InputError: They are.
    """
    bias, shown = stored.get("head.fc.bias"), printable(str(file))
    if bias is None:
        raise InputError(
            f"{shown}: has no classifier, so that it cannot tell classes apart; nfspec embed takes "
            "such weights, and nfspec train --init draws a classifier and trains it"
        )
    if bias.size != plan.tap_info[LOGITS].channels:
        raise InputError(
            f"{shown}: has a classifier of {bias.size:,} classes, and {plan.name} has "
            f"{plan.tap_info[LOGITS].channels:,}; add --set head.classes={bias.size}"
        )


def _framework(facts: Facts | None) -> str:
    """The framework to use where none is asked for."""
    if "keras" in sys.modules:
        return sys.modules["keras"].backend.backend()
    if facts is not None and compilation.missing(facts.backend) is None:
        return facts.backend
    return compilation.default_backend()


def _of_file(path: Path, runtime: str | None) -> Opened:
    from nfspec.backends.exporters.formats import format_of_file
    from nfspec.backends.exporters.running import exported_output, runtime_of

    form = format_of_file(path)
    form.require()
    chosen = runtime_of(form, runtime)
    network = form.read(path).network
    settings, how = network.settings, network.input
    require_channels(how)
    height, width = settings.size or (None, None)
    if height != width:
        raise InputError(f"{path}: takes images of {height} x {width} px alone, no squares")
    classes = network.plan.tap_info[LOGITS].channels

    def function(output: str) -> Logits:
        return exported_output(chosen, path, network, output)

    return Opened(
        network.plan.name, chosen.name, how, classes, None, network.classes, height,
        settings.batch, settings.outputs, function,
    )  # fmt: skip


def _of_model(model: Any) -> Opened:
    plan = getattr(model, "plan", None)
    if not isinstance(plan, Plan):
        raise InputError(
            "network: expected the folder of a training, the name or file of a spec, an exported "
            "file, or a model that nfspec.compile returned; found an object of type "
            f"{type(model).__name__}"
        )
    how = input_of(plan)
    require_channels(how)
    if isinstance(model.output, list):
        raise InputError("network: this model returns feature maps; compile one without features")
    taps = isinstance(model.output, dict)
    first = model.input.shape[-1] is None  # channels first: the last axis is a side

    def function(output: str) -> Logits:
        from nfspec.backends.running import forward_function

        run = forward_function(model)

        def outputs(images: Any) -> Any:
            given = np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if first else images
            found = run(given)
            return np.asarray(found[output] if taps else found, np.float32)

        return outputs

    return Opened(
        plan.name, sys.modules["keras"].backend.backend(), how, plan.tap_info[LOGITS].channels,
        None, (), None, None, tuple(plan.taps) if taps else (LOGITS,), function,
    )  # fmt: skip
