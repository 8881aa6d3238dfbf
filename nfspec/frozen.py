"""A dict that does not change, for values that are shared or hashed."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dict whose entries cannot be changed. It can be pickled and copied, and hashed if they can.

    It is a dict for JSON, pydantic and `isinstance`; Python's own MappingProxyType is
    not, and it cannot be pickled or copied.

    Raises:
        TypeError: An entry is set or deleted.
    """

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            "these entries cannot be changed; copy them with dict(), and change the copy"
        )

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type, tuple[dict[K, V]]]:
        return type(self), (dict(self),)

    def copy(self) -> dict[K, V]:
        """A dict of the same entries, which can be changed."""
        return dict(self)
