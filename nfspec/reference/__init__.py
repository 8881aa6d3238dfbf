"""The oracle: what each operation and a training step mean, in float64 NumPy, from the formulas.

It imports NumPy, `plan` and, to check parameters, `weights`: nothing that it judges.
"""

from nfspec.reference import training
from nfspec.reference.gradients import Gradients, loss_and_gradients
from nfspec.reference.network import forward
from nfspec.reference.training import StepReport, TrainingState, train_step

__all__ = [
    "Gradients",
    "StepReport",
    "TrainingState",
    "forward",
    "loss_and_gradients",
    "train_step",
    "training",
]
