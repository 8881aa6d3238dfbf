"""Parts of a network that are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# Value of `recipe.remat` to the number of words in the name of a part: `stages.2.blocks.5`,
# `stages.2`. The stem is a part, too, and the head is in none; 0: there are no parts.
DEPTHS: Mapping[str, int] = MappingProxyType({"none": 0, "block": 4, "stage": 2})
