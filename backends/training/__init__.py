"""Training by a spec's recipe: devices, checkpoints, the loop and what it writes down."""
