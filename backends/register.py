"""Import this before `keras.saving.load_model`: it registers all that a saved model may have."""

from nfspec.backends import layers, losses, network, optimizers, preprocessing, sam, schedule

__all__ = ["layers", "losses", "network", "optimizers", "preprocessing", "sam", "schedule"]
