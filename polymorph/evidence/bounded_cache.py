"""A few large things that are used again, within a bound of memory."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass
class BoundedCache(Generic[K, V]):
    """Values by key, of at most `limit` bytes together; what was used longest ago goes first.

    The last one stays whatever its size, so that one that has just been made can be read.
    """

    limit: int
    _values: OrderedDict[K, tuple[V, int]] = field(default_factory=OrderedDict, init=False, repr=False)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    @property
    def nbytes(self) -> int:
        return sum(size for _, size in self._values.values())

    def get(self, key: K) -> V:
        """The value of a key that is there."""
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: K, value: V, nbytes: int) -> None:
        self._values[key] = (value, nbytes)
        self._values.move_to_end(key)
        while self.nbytes > self.limit and len(self._values) > 1:
            self._values.popitem(last=False)

    def once(self, key: K, make: Callable[[], V], nbytes: Callable[[V], int]) -> V:
        """The value of a key, made by the first that asks."""
        if key not in self:
            made = make()
            self.put(key, made, nbytes(made))
        return self.get(key)
