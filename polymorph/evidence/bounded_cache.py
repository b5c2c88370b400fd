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

    A value that is larger by itself is not kept.
    """

    limit: int
    _values: OrderedDict[K, tuple[V, int]] = field(default_factory=OrderedDict, init=False, repr=False)

    @property
    def nbytes(self) -> int:
        return sum(size for _, size in self._values.values())

    def once(self, key: K, make: Callable[[], V], nbytes: Callable[[V], int]) -> V:
        """The value of a key, made where it is not there."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key][0]
        made = make()
        if (size := nbytes(made)) <= self.limit:
            self._values[key] = made, size
            while self.nbytes > self.limit:
                self._values.popitem(last=False)
        return made
