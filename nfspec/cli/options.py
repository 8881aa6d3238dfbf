"""The largest numbers that several commands take as options."""

MAX_SIDE = 8_192  # px, as in a spec
MAX_IMAGES = 1_000_000  # in a batch, as in a recipe
MAX_DEVICES = 1_000_000
