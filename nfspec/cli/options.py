"""The largest numbers that options of several commands take; what is beyond them is a mistake."""

MAX_SIDE = 8_192  # px, as of a spec
MAX_IMAGES = 1_000_000  # at a time, as of a recipe
MAX_DEVICES = 1_000_000
MAX_SEED = 2**32 - 1  # Keras and NumPy take no larger one
