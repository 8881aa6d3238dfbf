"""The properties, in the order in which they are tested: cheap and telling ones first.

They import `cases` and `bounds`.
"""

from nfspec.conformance.properties import (
    drops,
    exact,
    folding,
    invariance,
    layers,
    network_drops,
    networks,
    training,
)
from nfspec.conformance.properties.base import Property

__all__ = ["MODULES", "PROPERTIES", "Property"]

MODULES = (exact, layers, invariance, drops, network_drops, networks, folding, training)
PROPERTIES: dict[str, Property] = {
    asked.id: asked for module in MODULES for asked in module.PROPERTIES
}
