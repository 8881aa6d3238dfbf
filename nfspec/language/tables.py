"""The tables of a spec that do not change the graph: gradient clipping and the training recipe.

Sources: Brock et al. 2021 (arXiv:2102.06171 §4.2 and §5); deepmind-research/nfnets/{experiment,
experiment_nfnets,experiment_nf_regnets,optim}.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from nfspec.frozen import FrozenDict
from nfspec.language.fields import Factor, Fraction, NotNegative, Roles, Table


class AGC(Table):
    """Adaptive gradient clipping, which does not change the graph."""

    enabled: Annotated[bool, Field(description="Whether the recipe clips.")]
    clipping: Annotated[
        Factor,
        Field(description="lambda, the largest ratio of norms, unless a role or name has one."),
    ]
    eps: Annotated[float, Field(gt=0, le=1, description="Least parameter norm.")]
    unit: Annotated[
        Literal["squeeze", "timm", "tensor"],
        Field(description="What one norm is taken over: DeepMind's rule, timm's, the tensor."),
    ]
    exclude: Annotated[
        tuple[str, ...],
        Field(
            max_length=1_000,
            description="Names never clipped, above all else; * is any run of characters.",
        ),
    ]
    roles: Annotated[
        dict[Roles, Factor],
        AfterValidator(FrozenDict),
        Field(description="lambda of a role, for names that have none."),
    ]
    names: Annotated[
        dict[str, Factor],
        AfterValidator(FrozenDict),
        Field(description="lambda by name, the longest match's; * is any run of characters."),
    ]


class Recipe(Table):
    """The published training recipe, which does not change the graph."""

    optimizer: Annotated[Literal["sgd"], Field(description="SGD with momentum.")]
    momentum: Annotated[Fraction, Field(description="Of the optimiser.")]
    nesterov: Annotated[bool, Field(description="Nesterov's momentum.")]
    weight_decay: Annotated[NotNegative, Field(description="Added to gradients, times the weight.")]
    weight_decay_exclude: Annotated[
        tuple[Roles, ...], Field(description="Roles that do not decay.")
    ]
    learning_rate: Annotated[Factor, Field(description="The highest, reached after warmup.")]
    learning_rate_images: Annotated[
        int, Field(ge=0, le=1_000_000, description="Batch it is for; scales linearly; 0: as it is.")
    ]
    batch: Annotated[int, Field(ge=1, le=1_000_000, description="Images in a step.")]
    epochs: Annotated[int, Field(ge=1, le=100_000, description="Of training, warmup included.")]
    images: Annotated[int, Field(ge=1, description="Images in an epoch.")]
    schedule: Annotated[Literal["cosine"], Field(description="Of the learning rate.")]
    warmup_epochs: Annotated[NotNegative, Field(description="Of a linear rise from zero.")]
    final_learning_rate: Annotated[NotNegative, Field(description="What the schedule ends at.")]
    ema_decay: Annotated[float, Field(ge=0, lt=1, description="0: no average.")]
    ema_warm: Annotated[bool, Field(description="Decay min(decay, (1+t)/(10+t)).")]
    label_smoothing: Annotated[Fraction, Field(description="Weight of the uniform target.")]
    sam_rho: Annotated[NotNegative, Field(description="Sharpness-aware minimisation; 0: off.")]
    sam_fraction: Annotated[
        float, Field(gt=0, le=1, description="Share of a batch that SAM's ascent is computed on.")
    ]
    precision: Annotated[
        Literal["float32", "bfloat16"], Field(description="Of the forward and backward pass.")
    ]
    crop_area: Annotated[
        float, Field(gt=0, le=1, description="Least share of an image that is cut out; 1: all.")
    ]
    flip: Annotated[bool, Field(description="Mirror half of the images, left to right.")]
    mixup_alpha: Annotated[NotNegative, Field(description="Of mixup's Beta draw; 0: off.")]
    cutmix_alpha: Annotated[NotNegative, Field(description="Of CutMix's Beta draw; 0: off.")]
    randaugment_layers: Annotated[
        int, Field(ge=0, le=100, description="RandAugment operations for an image; 0: off.")
    ]
    randaugment_magnitude: Annotated[
        NotNegative, Field(description="Their strength; 10 is the nominal top.")
    ]
    mix_before_augment: Annotated[bool, Field(description="mixup and CutMix before RandAugment.")]

    def decay_of(self, role: str) -> float:
        """The weight decay of a parameter of a role: `weight_decay`, or 0 where it is excluded."""
        return 0.0 if role in self.weight_decay_exclude else self.weight_decay


class Finetune(Table):
    """What is another than in `[recipe]` when training starts from weights."""

    batch: Annotated[int, Field(ge=1, le=1_000_000, description="Images in a step.")]
    epochs: Annotated[int, Field(ge=1, le=100_000, description="Of training, warmup included.")]
    warmup_epochs: Annotated[NotNegative, Field(description="Of a linear rise from zero.")]
    learning_rate: Annotated[Factor, Field(description="The highest, reached after warmup.")]
    learning_rate_images: Annotated[
        int, Field(ge=0, le=1_000_000, description="Batch it is for; scales linearly; 0: as it is.")
    ]
    weight_decay: Annotated[NotNegative, Field(description="Added to gradients, times the weight.")]
    ema_decay: Annotated[float, Field(ge=0, lt=1, description="0: no average.")]
    mixup_alpha: Annotated[NotNegative, Field(description="Of mixup's Beta draw; 0: off.")]
    cutmix_alpha: Annotated[NotNegative, Field(description="Of CutMix's Beta draw; 0: off.")]
    randaugment_layers: Annotated[
        int, Field(ge=0, le=100, description="RandAugment operations for an image; 0: off.")
    ]
    freeze: Annotated[
        tuple[str, ...],
        Field(max_length=1_000, description="Names that stay as they are; * is any characters."),
    ]
