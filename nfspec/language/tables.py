"""The tables of a spec that do not change the graph: gradient clipping and the training recipe.

Sources: Brock et al. 2021 (arXiv:2102.06171 §4.2 and §5); deepmind-research/nfnets/{experiment,
experiment_nfnets,experiment_nf_regnets,optim}.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from nfspec.frozen import FrozenDict
from nfspec.language.fields import Factor, Fraction, NotNegative, Roles, Table, Unit


class AGC(Table):
    """Adaptive gradient clipping, which does not change the graph."""

    enabled: Annotated[bool, Field(description="True if training clips gradients.")]
    clipping: Annotated[
        Factor,
        Field(
            description=(
                "lambda, the largest ratio of gradient norm to parameter norm, unless a "
                "role or name has its own."
            )
        ),
    ]
    eps: Annotated[
        float, Field(gt=0, le=1, description="Least norm of a parameter that the ratio uses.")
    ]
    unit: Annotated[
        Unit,
        Field(
            description=(
                "Unit that has one norm: squeeze: DeepMind's rule; timm: timm's rule; "
                "output: each output of a kernel, a vector as a whole; element: each output of a "
                "kernel, each number of a vector; tensor: a whole tensor."
            )
        ),
    ]
    exclude: Annotated[
        tuple[str, ...],
        Field(
            max_length=1_000,
            description=(
                "Names of parameters that are never clipped; this comes first. * is any "
                "run of characters."
            ),
        ),
    ]
    roles: Annotated[
        dict[Roles, Factor],
        AfterValidator(FrozenDict),
        Field(description="lambda of a role, for parameters whose names have none."),
    ]
    names: Annotated[
        dict[str, Factor],
        AfterValidator(FrozenDict),
        Field(
            description=(
                "lambda of the parameters that a name matches, the longest match. * is "
                "any run of characters."
            )
        ),
    ]


# The fields that [recipe] and [finetune] share.
Batch = Annotated[int, Field(ge=1, le=1_000_000, description="Images in a step.")]
Epochs = Annotated[
    int, Field(ge=1, le=100_000, description="Epochs of training, warm-up included.")
]
WarmupEpochs = Annotated[
    NotNegative,
    Field(description="Epochs of the warm-up, a linear rise of the learning rate from zero."),
]
LearningRate = Annotated[
    Factor, Field(description="Peak learning rate, reached at the end of the warm-up.")
]
LearningRateImages = Annotated[
    int,
    Field(
        ge=0,
        le=1_000_000,
        description=(
            "Batch that learning_rate is for; it scales linearly with the batch. 0: "
            "it does not scale."
        ),
    ),
]
WeightDecay = Annotated[
    NotNegative,
    Field(description="Weight decay: this times the parameter is added to its gradient."),
]
EmaDecay = Annotated[
    float,
    Field(ge=0, lt=1, description="Decay of the moving average of the parameters; 0: no average."),
]
MixupAlpha = Annotated[
    NotNegative,
    Field(description="alpha of the Beta distribution that mixup draws from; 0: off."),
]
CutMixAlpha = Annotated[
    NotNegative,
    Field(description="alpha of the Beta distribution that CutMix draws from; 0: off."),
]
RandAugmentLayers = Annotated[
    int,
    Field(ge=0, le=100, description="Number of RandAugment operations for each image; 0: off."),
]


class Recipe(Table):
    """The published training recipe, which does not change the graph."""

    optimizer: Annotated[Literal["sgd"], Field(description="The optimizer: SGD with momentum.")]
    momentum: Annotated[Fraction, Field(description="Momentum of the optimizer.")]
    nesterov: Annotated[bool, Field(description="True if the optimizer uses Nesterov's momentum.")]
    weight_decay: WeightDecay
    weight_decay_exclude: Annotated[
        tuple[Roles, ...], Field(description="Roles of the parameters that do not decay.")
    ]
    learning_rate: LearningRate
    learning_rate_images: LearningRateImages
    batch: Batch
    epochs: Epochs
    images: Annotated[int, Field(ge=1, description="Images in an epoch.")]
    schedule: Annotated[
        Literal["cosine"], Field(description="Schedule of the learning rate after the warm-up.")
    ]
    warmup_epochs: WarmupEpochs
    final_learning_rate: Annotated[
        NotNegative, Field(description="Learning rate at the end of the schedule.")
    ]
    ema_decay: EmaDecay
    ema_warm: Annotated[
        bool,
        Field(
            description=(
                "True if the decay of the average warms up: min(decay, (1+t)/(10+t)) at step t."
            )
        ),
    ]
    label_smoothing: Annotated[
        Fraction,
        Field(description="Label smoothing: the weight of the uniform distribution in a target."),
    ]
    sam_rho: Annotated[
        NotNegative, Field(description="rho of sharpness-aware minimisation (SAM); 0: off.")
    ]
    sam_fraction: Annotated[
        float, Field(gt=0, le=1, description="Share of a batch on which SAM computes its ascent.")
    ]
    precision: Annotated[
        Literal["float32", "bfloat16"],
        Field(description="Precision of the forward and backward pass."),
    ]
    remat: Annotated[
        Literal["none", "block", "stage"],
        Field(
            description=(
                "What is computed again in the backward pass to save memory: nothing, the stem and "
                "each block, or the stem and each stage."
            )
        ),
    ] = "none"
    crop_area: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="Least share of an image that a random crop keeps; 1: no random crop.",
        ),
    ]
    flip: Annotated[
        bool, Field(description="True if half of the images are mirrored, left to right.")
    ]
    mixup_alpha: MixupAlpha
    cutmix_alpha: CutMixAlpha
    randaugment_layers: RandAugmentLayers
    randaugment_magnitude: Annotated[
        NotNegative,
        Field(description="Strength of RandAugment's operations; 10 is the nominal maximum."),
    ]
    mix_before_augment: Annotated[
        bool, Field(description="True if mixup and CutMix come before RandAugment.")
    ]

    def decay_of(self, role: str) -> float:
        """The weight decay of a parameter of a role: `weight_decay`, or 0 where it is excluded."""
        return 0.0 if role in self.weight_decay_exclude else self.weight_decay


class Finetune(Table):
    """The values that replace those of `[recipe]` when training starts from weights."""

    batch: Batch
    epochs: Epochs
    warmup_epochs: WarmupEpochs
    learning_rate: LearningRate
    learning_rate_images: LearningRateImages
    weight_decay: WeightDecay
    ema_decay: EmaDecay
    mixup_alpha: MixupAlpha
    cutmix_alpha: CutMixAlpha
    randaugment_layers: RandAugmentLayers
    freeze: Annotated[
        tuple[str, ...],
        Field(
            max_length=1_000,
            description="Names of parameters that are not trained. * is any run of characters.",
        ),
    ]
