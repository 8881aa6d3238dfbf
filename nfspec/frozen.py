"""A dict that does not change, for what is shared and hashed."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dict whose entries stay as they are: hashable where they are, and pickled and copied.

    It is a dict for JSON, pydantic and `isinstance`; Python's own MappingProxyType is none, and
    cannot be pickled nor copied.

    Raises:
        TypeError: Something is set or taken out.
    """

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("these entries cannot be changed; make a dict of them, and change that")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type, tuple[dict[K, V]]]:
        return type(self), (dict(self),)

    def copy(self) -> dict[K, V]:
        """A dict of its own."""
        return dict(self)
