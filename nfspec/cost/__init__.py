"""Memory and time of a training step, computed from a Plan and published figures of a device.

It imports `language` and `plan`; of the machine it runs on, it measures speeds (`machine`).
"""
