"""Exported files, each run in its own runtime and judged before it has its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nfspec.backends.exporters.format import Facts, Format
from nfspec.backends.exporters.formats import format_of, format_of_file
from nfspec.backends.exporters.running import running
from nfspec.backends.exporters.settings import Network, Settings, named_classes
from nfspec.conformance.bounds.bands import rounding
from nfspec.conformance.cases.precision import MODES
from nfspec.conformance.cases.sides import odd_and_even
from nfspec.conformance.compare import Progress
from nfspec.conformance.proof import Noise, Row, prove_outputs
from nfspec.errors import InputError, NfspecError
from nfspec.files import beside, files_in
from nfspec.language.spec import Spec
from nfspec.plan import FEATURES, Plan
from nfspec.plan.free_memory import FLOAT32, require_free_memory
from nfspec.plan.initialise import Params
from nfspec.plan.resolver import resolve
from nfspec.reference.rounding import UNIT_ROUNDOFF, Rounding
from nfspec.weights import check


@dataclass(frozen=True)
class Proof:
    """The outputs of a file in its runtimes beside those of the reference.

    Attributes:
        network: Name of the network.
        format: Name of the file's format.
        path: The file; the name it has or was to have.
        runtimes: Names and versions of what ran it, that of the format first.
        rows: Each output at each size.
        facts: What is in the file; None where it was read and not written.
        bytes: Size of the file, with what belongs to it.
        weights: Size of the network's weights in the file's dtype, in bytes.
    """

    network: str
    format: str
    path: Path
    runtimes: tuple[str, ...]
    rows: tuple[Row, ...]
    facts: Facts | None
    bytes: int
    weights: int

    @property
    def same(self) -> bool:
        """True if every output is within its bound in the format's own runtime. Another runtime
        that is not right does not make the file wrong."""
        return self.first_beyond(self.runtimes[0]) is None

    def first_beyond(self, runtime: str) -> Row | None:
        """The first row of a runtime that is beyond its bound, if there is one."""
        rows = (row for row in self.rows if row.runtime == runtime and not row.within)
        return next(rows, None)

    @property
    def sizes(self) -> int:
        """The number of sizes of images."""
        return len({(row.batch, row.height, row.width) for row in self.rows})


class ProofError(NfspecError):
    """An exported file that is not the network; `proof` says where it differs."""

    def __init__(self, proof: Proof, kept: Path | None):
        self.proof, self.kept = proof, kept
        worst = proof.first_beyond(proof.runtimes[0])
        assert worst is not None
        found = worst.problem.strip() or f"{worst.distance:.1e} off, bound {worst.bound:.1e}"
        where = f"; it is kept as {kept}" if kept else ", and was deleted; keep=True keeps it"
        super().__init__(
            f"{proof.path}: the file is not {proof.network}: {worst.output} at {worst.size}: "
            f"{found}{where}"
        )

    def __reduce__(self) -> tuple[type[ProofError], tuple[Proof, Path | None]]:
        return type(self), (self.proof, self.kept)


def export(
    spec: Spec | Plan,
    to: str,
    path: str | Path,
    params: Params,
    *,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    layout: str = "nhwc",
    dtype: str = "f32",
    preprocess: bool = False,
    outputs: Sequence[str] = ("logits",),
    license: str = "",
    classes: Sequence[str] = (),
    force: bool = False,
    keep: bool = False,
    seed: int = 0,
    progress: Progress = lambda message: None,
) -> Proof:
    """Write a network for the runtime of others, and prove the file before it has its name.

    The file is folded: plain convs, no weight standardisation. It is run in its own runtime at
    several sizes, odd and even, and every output is compared with the float64 reference of the
    network as it was before folding.

    Args:
        spec: What `nfspec.load` or `nfspec.resolve` returned.
        to: Name of the format, such as `onnx`.
        path: The file. Weights of more than 2 GB go to a second one, `PATH.data`.
        params: Canonical name to float32 array.
        size: Height and width of the images in px; any if not given.
        batch: Number of images; any if not given.
        layout: Layout of the images and of outputs that are images, `nhwc` or `nchw`.
        dtype: `f32`; `f16`: weights and arithmetic; `bf16`: weights alone.
        preprocess: True if the file takes pixels, uint8, and normalises them.
        outputs: Names of taps, such as `logits`, `pool` and `stages.2.blocks.5`.
        license: Licence of the weights, for the file's metadata.
        classes: Names of the classes in the order of the logits, for the metadata, too.
        force: Replace a file that exists.
        keep: Keep a file that is not the network, under a name with `.failed` in it.
        seed: Random seed of the images.
        progress: A function that is called with a line for each step.

    Raises:
        ProofError: The file is not the network; none is at `path`, or still the one from before.
        InputError: An argument has a wrong type or value, a file exists, or the memory is short.
        WeightError: `params` are not the plan's.
        BackendError: A package that is needed is not installed.
        OSError: The file cannot be written.
    """
    plan, path, form = resolve(spec) if isinstance(spec, Spec) else spec, Path(path), format_of(to)
    form.require()
    settings = Settings(size, batch, layout, dtype, preprocess, tuple(outputs), license).checked(
        plan
    )
    form.require_free(path, force)
    require_free_memory(plan, "prove the file of", 4)  # the reference's float64, and the runtime's
    network = Network(plan, check(plan, params), settings, named_classes(plan, classes))
    proof = None
    with beside(path, force) as folder:
        made = folder / path.name
        progress(f"writing {path} ...")
        facts = form.written(made, network)
        proof = _proved(form, made, path, network, params, facts, seed, progress)
        kept = path.with_name(f"{path.stem}.failed{path.suffix}") if keep else None
        if not proof.same:
            if kept:
                for file in form.parts(made):
                    file.replace(kept.with_name(kept.stem + file.name.removeprefix(path.stem)))
            raise ProofError(proof, kept)
    return proof


def verify(path: str | Path, *, seed: int = 0, progress: Progress = lambda message: None) -> Proof:
    """Prove a file again from what is in it alone: its metadata and its weights.

    Args:
        path: A file that `export` wrote.
        seed: Random seed of the images.
        progress: A function that is called with a line for each step.

    Raises:
        InputError: It is no such file, or damaged.
        BackendError: A package that is needed is not installed.
    """
    path = Path(path)
    form = format_of_file(path)
    form.require()
    read = form.read(path)
    network = read.network
    if network.settings.quantised:
        raise InputError(
            f"{path}: its weights are {network.settings.quantised}, so that it is near the network "
            "and not equal to it; nfspec evaluate measures such a file on images"
        )
    return _proved(form, path, path, network, read.params, None, seed, progress)


def _proved(
    form: Format,
    made: Path,
    path: Path,
    network: Network,
    params: Params,
    facts: Facts | None,
    seed: int,
    progress: Progress,
) -> Proof:
    """Run a file and compare.

    Args:
        form: Its format.
        made: Where it is.
        path: Where it is to be.
        network: The network that it should be.
        params: The weights of `network.plan`; where there are no facts, those of the folded plan.
        facts: What was written.
        seed: Random seed of the images.
        progress: A function that is called with a line for each step.
    """
    settings = network.settings
    runtimes = [form.runtimes[0], *(each for each in form.runtimes[1:] if each.installed)]
    runs = {each.version: running(each, made, settings) for each in runtimes}
    rows = prove_outputs(
        network.plan if facts else network.folded,
        params,
        runs,
        settings.outputs,
        sizes_of(network, form.least),
        progress,
        seed=seed,
        pixels=network.input if settings.preprocess else None,
        noise=_noise(settings.dtype),
        survives=Exception,  # every runtime raises its own
    )
    width = FLOAT32 if settings.dtype == "f32" else FLOAT32 // 2
    return Proof(
        network=network.plan.name,
        format=form.name,
        path=path,
        runtimes=tuple(runs),
        rows=rows,
        facts=facts,
        bytes=sum(file.stat().st_size for part in form.parts(made) for file in files_in(part)),
        weights=width * sum(q.size for q in network.folded.parameters.values()),
    )


def _noise(dtype: str) -> Noise:
    """The rounding that a file's arithmetic may have, for one seed.

    Weights in bfloat16 are off by its unit; nothing else is narrower than float32.
    """
    if dtype == "bf16":
        return lambda seed: Rounding(
            seed, UNIT_ROUNDOFF, UNIT_ROUNDOFF, operands=MODES["bf16"].operand
        )
    return partial(_rounding, dtype)


def _rounding(mode: str, seed: int) -> Rounding:
    return rounding(seed, MODES[mode])


def sizes_of(network: Network, least: int = 1) -> tuple[tuple[int, int, int], ...]:
    """The images, heights and widths at which a file is proved: six where all are free, odd and
    even at every stride, and not square.

    Args:
        network: The network.
        least: Pixels of a side that are left to the last stage, at least.
    """
    more = (least - 1) * (network.plan.tap_info[FEATURES].stride or 1)
    odd, even = (side + more for side in odd_and_even(network.plan))
    sides = [
        (even, odd),
        (odd, even),
        (odd, odd + even),
        (2 * even, even + 1),
        (odd + 1, odd + 3),
        (even + 2, even + 5),
    ]
    batches = [1, 2, 3, 1, 2, 4]
    if network.settings.size is not None:
        sides, batches = [network.settings.size] * 2, [1, 2]
    if network.settings.batch is not None:
        batches = [network.settings.batch] * len(sides)
    return tuple((batch, *side) for batch, side in dict.fromkeys(zip(batches, sides, strict=True)))
