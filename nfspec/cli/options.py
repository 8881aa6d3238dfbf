"""The largest numbers that options take, for options that several commands have."""

MAX_SIDE = 8_192  # px, as in a spec
MAX_IMAGES = 1_000_000  # in a batch, as in a recipe
MAX_DEVICES = 1_000_000
