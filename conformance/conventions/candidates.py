"""The changes that the search for conventions tries, one at a time and together."""

from __future__ import annotations

from typing import Any

from nfspec.conformance.conventions.altered import Fields
from nfspec.language.spec import Spec

CHOICES: dict[str, tuple[Any, ...]] = {
    "ws.ddof": (0, 1),
    "ws.dtype": ("float32", "compute"),
    "activation.kind": ("gelu_tanh", "gelu_erf"),  # where it is the other GELU
    "activation.slope": (0.01, 0.2, 0.3),
    # No gamma anywhere comes before a gamma elsewhere, which the convs have to show.
    "activation.gamma": (1.0, "deepmind", "exact"),
    "activation.gamma_at": ("activation", "weight"),
    "activation.beta_at": ("after", "before"),
    "conv.padding": ("same", "symmetric"),
    "stem.padding": ("same", "symmetric", "valid"),
    "block.shortcut": ("avg_pool", "strided_conv"),
    "block.shortcut_input": ("activated", "raw"),
    "attention.gain": (1.0, 2.0),
    "se.activation": ("relu",),
    "se.gamma": (1.0, "deepmind", "exact"),
    "stochastic_depth.rescale": (True, False),
    "agc.unit": ("squeeze", "timm", "output", "element", "tensor"),
    "agc.eps": (1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
    "agc.exclude": ((), ("head.fc.kernel",), ("head.fc.kernel", "head.fc.bias")),
    "recipe.nesterov": (True, False),
    "recipe.label_smoothing": (0.0, 0.1),
    "recipe.weight_decay_exclude": (
        (),
        ("bias",),
        ("bias", "skip_gain"),
        ("gain", "bias", "skip_gain"),
    ),
}
RULES = ("max", "add", "add_to_std")
# Those of networks are fewer, as each is a network to evaluate.
EPS = tuple(10.0**-k for k in range(2, 13))
EPS_OF_NETWORKS = (1e-4, 1e-5, 1e-6, 1e-8)
GELUS = ("gelu_tanh", "gelu_erf")


def candidates(spec: Spec, of_networks: bool) -> list[Fields]:
    """The conventions on which implementations are known to differ, each a change to a spec.

    Args:
        spec: The spec, whose own activation may be that of squeeze-and-excitation, too.
        of_networks: True if they are tried on networks, and not on an operation alone.
    """
    own = GELUS if spec.activation.kind in GELUS else (spec.activation.kind,)
    changes: list[Fields] = [
        # What eps means depends on the rule, so that neither is of use without the other.
        *(
            {"ws.eps_rule": rule, "ws.eps": eps}
            for rule in RULES
            for eps in (EPS_OF_NETWORKS if of_networks else EPS)
        ),
        *({name: value} for name, values in CHOICES.items() for value in values),
        *({"se.activation": kind} for kind in own),
        *({"se.activation": kind, "se.gamma": "deepmind"} for kind in own),
    ]
    return list({tuple(change.items()): change for change in changes}.values())
