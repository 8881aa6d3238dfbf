"""The properties, in the order in which they are tested: cheap and telling ones first."""

from nfspec.conformance.properties import (
    drops,
    exact,
    folding,
    invariance,
    layers,
    networks,
    training,
)
from nfspec.conformance.properties.base import Property

__all__ = ["PROPERTIES", "Property"]

PROPERTIES: dict[str, Property] = {
    found.id: found
    for module in (exact, layers, invariance, drops, networks, folding, training)
    for found in module.PROPERTIES
}
