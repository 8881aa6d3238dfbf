"""The choices of an exported file, and the metadata that says them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nfspec
from nfspec.arguments import flag, one_of, refuse, whole
from nfspec.data.preprocessing import input_of
from nfspec.errors import InputError, suggest
from nfspec.language.graph import Input
from nfspec.language.spec import Spec
from nfspec.plan import FEATURES, Plan
from nfspec.plan.counting import shapes
from nfspec.plan.initialise import Params
from nfspec.plan.resolver import resolve
from nfspec.rewrites.cutting import cut
from nfspec.rewrites.folding import fold_plan, folded_params
from nfspec.rewrites.scalars import without_features
from nfspec.wording import reason_of

Array = NDArray[Any]

IMAGES = "images"  # the name of a file's input
LOGITS = "logits"
LAYOUTS = ("nhwc", "nchw")
DTYPES = ("f32", "f16", "bf16")


@dataclass(frozen=True)
class Settings:
    """The choices of an exported file.

    Attributes:
        size: Height and width of the images in px; None for any.
        batch: Number of images; None for any.
        layout: Layout of the images, and of outputs that are images: `nhwc` or `nchw`.
        dtype: `f32`; `f16`: weights and arithmetic; `bf16`: weights alone. Images and outputs are
            float32 whatever it is.
        preprocess: True if the network takes pixels, uint8, and normalises them.
        outputs: Names of the outputs: taps of the plan, such as `logits` and `pool`.
        license: Licence of the weights; empty if it is not stated.
        quantised: `int8` for a file with weights and arithmetic of that; else empty.
    """

    size: tuple[int, int] | None = None
    batch: int | None = None
    layout: str = "nhwc"
    dtype: str = "f32"
    preprocess: bool = False
    outputs: tuple[str, ...] = (LOGITS,)
    license: str = ""
    quantised: str = ""

    def checked(self, plan: Plan) -> Settings:
        """The same choices, once they are seen to be possible.

        Raises:
            InputError: One of them has a wrong type or value.
        """
        one_of("layout", self.layout, LAYOUTS)
        one_of("dtype", self.dtype, DTYPES)
        flag("preprocess", self.preprocess)
        if self.batch is not None:
            whole("batch", self.batch, 1, "images")
        if self.size is not None:
            if not isinstance(self.size, tuple | list) or len(self.size) != 2:
                raise refuse("size", "height and width in px, or None for any", self.size)
            height, width = (whole("size", side, 1, "px") for side in self.size)
            shapes(plan, height, width)  # refuses images that are too small
        if not isinstance(self.outputs, tuple | list) or not self.outputs:
            raise refuse("outputs", "names of taps, at least one", self.outputs)
        for name in self.outputs:
            if name not in plan.taps:
                known = ", ".join(plan.taps)
                hint = suggest(str(name), plan.taps)
                raise InputError(f"outputs: expected some of {known}; found {name!r}{hint}")
        return replace(
            self,
            size=None if self.size is None else (int(self.size[0]), int(self.size[1])),
            outputs=tuple(dict.fromkeys(self.outputs)),
        )


@dataclass(frozen=True)
class Network:
    """A network as an exporter writes it: a folded plan, the way to its weights, and the choices.

    Attributes:
        plan: The plan as it was resolved.
        params: Its parameters: canonical name to float32 array. None where a file is read.
        settings: The choices.
        classes: Names of the classes, in the order of the logits; empty if they are not known.
    """

    plan: Plan
    params: Params | None
    settings: Settings
    classes: tuple[str, ...] = ()

    @cached_property
    def folded(self) -> Plan:
        """The plan that the file computes: plain convs, and what the outputs depend on alone."""
        folded, outputs = fold_plan(self.plan), self.settings.outputs
        if FEATURES not in outputs:
            folded = without_features(folded)
        return cut(folded, outputs)

    def weights(self) -> Iterator[tuple[str, Array]]:
        """Canonical names and float32 arrays of that plan, one after another."""
        assert self.params is not None
        for name, value in folded_params(self.plan, self.params):
            if name in self.folded.parameters:
                yield name, value

    @property
    def input(self) -> Input:
        """The preparation of images that the spec states."""
        return input_of(self.plan)

    def metadata(self) -> dict[str, str]:
        """A file's metadata by key. `spec` and `settings` are JSON; with them and the
        weights `nfspec verify` makes the network again."""
        how, plan = self.input, self.plan
        spec = {**json.loads(plan.canonical), "name": plan.name, "agc": plan.agc.model_dump()}
        colours = {3: "RGB", 1: "grey"}.get(plan.channels, f"{plan.channels} channels")
        preprocessing = {
            "pixels": "uint8, 0 to 255" if self.settings.preprocess else "(x / 255 - mean) / std",
            "colours": colours,
            "layout": self.settings.layout.upper(),
            "mean": list(how.mean),
            "std": list(how.std),
            "size": how.test if self.settings.size is None else list(self.settings.size),
            "resize": how.resize,
            "crop": how.crop,
            "margin": how.margin,
        }
        classes = plan.tap_info[LOGITS].channels if LOGITS in plan.taps else "none"
        return {
            "name": plan.name,
            "classes": str(classes),
            "preprocessing": json.dumps(preprocessing),
            **({"class_names": json.dumps(self.classes)} if self.classes else {}),
            "license": self.settings.license or "not stated",
            "spec": json.dumps(spec, sort_keys=True, separators=(",", ":")),
            "spec_digest": plan.digest,
            "settings": json.dumps(asdict(self.settings)),
            "nfspec": nfspec.__version__,
        }


def network_of(metadata: Mapping[str, str], label: str) -> Network:
    """The network that a file says it is, without its weights.

    Args:
        metadata: What `Network.metadata` returned, as it is in the file.
        label: The file's name, put before an error.

    Raises:
        InputError: It is not of nfspec, or damaged.
    """
    if "nfspec" not in metadata or "spec" not in metadata or "settings" not in metadata:
        raise InputError(f"{label}: no metadata of nfspec in it; expected a file of nfspec export")
    try:
        plan = resolve(Spec.model_validate_json(metadata["spec"]))
        stated = json.loads(metadata["settings"])
        stated |= {key: stated[key] and tuple(stated[key]) for key in ("size", "outputs")}
        settings = Settings(**stated).checked(plan)
        classes = named_classes(plan, json.loads(metadata.get("class_names", "[]")))
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        reason = reason_of(error)
        raise InputError(f"{label}: its metadata cannot be read ({reason})") from None
    if plan.digest != metadata.get("spec_digest"):
        raise InputError(f"{label}: its metadata is damaged: the spec is not that of spec_digest")
    return Network(plan, None, settings, classes)


def named_classes(plan: Plan, names: Iterable[str]) -> tuple[str, ...]:
    """Names of a network's classes, or none.

    Raises:
        InputError: They are no text, or another number than the network has classes.
    """
    found = tuple(names)
    count = plan.tap_info[LOGITS].channels if LOGITS in plan.taps else 0
    if found and (len(found) != count or not all(isinstance(name, str) for name in found)):
        raise InputError(f"classes: expected {count:,} names, which are text; found {len(found):,}")
    return found


def as_given(images: Array, settings: Settings) -> Array:
    """Images, (N, H, W, C), in the layout that a file takes."""
    return (
        images if settings.layout == "nhwc" else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    )


def as_nhwc(output: Array, settings: Settings) -> Array:
    """An output of a file; one that is an image as (N, H, W, C)."""
    return (
        output.transpose(0, 2, 3, 1) if output.ndim == 4 and settings.layout == "nchw" else output
    )
