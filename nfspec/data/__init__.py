"""Training images and their labels, made without a framework."""
