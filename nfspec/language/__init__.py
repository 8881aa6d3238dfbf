"""From the text of a spec to a checked `Spec`.

It imports the root alone, but for `loader`, which calls the resolver so that `nfspec.load` returns
only specs that can be resolved.
"""
