"""A bounded store: what was not used for longest is forgotten first. Safe between threads."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Store"]

T = TypeVar("T")


class Store(Generic[T]):
    """Keep at most ``capacity`` values, each at most ``seconds`` after its last use.

    Args:
        capacity: how many values.
        seconds: None for no limit of time.
        dropped: called with each value that is forgotten.

    Example:
        >>> store = Store(1)
        >>> store.put("a", 1); store.put("b", 2)
        >>> store.get("a"), store.get("b")
        (None, 2)
    """

    def __init__(
        self,
        capacity: int,
        *,
        seconds: float | None = None,
        dropped: Callable[[T], None] | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"expected a capacity of at least 1, got {capacity}")
        self._capacity = capacity
        self._seconds = seconds
        self._dropped = dropped
        self._values: OrderedDict[str, tuple[float, T]] = OrderedDict()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> T | None:
        """The value, or None when there is none any more."""
        with self._lock:
            self._expire()
            if key not in self._values:
                return None
            _, value = self._values.pop(key)
            self._values[key] = (time.monotonic(), value)
            return value

    def put(self, key: str, value: T) -> None:
        """Keep a value, in place of an older one under this key."""
        with self._lock:
            self.drop(key)
            self._values[key] = (time.monotonic(), value)
            self._expire()

    def get_or(self, key: str, make: Callable[[], T]) -> T:
        """The value; made and kept if it isn't there."""
        value = self.get(key)
        if value is None:
            value = make()
            self.put(key, value)
        return value

    def drop(self, key: str) -> None:
        """Forget a value now."""
        with self._lock:
            if key in self._values:
                self._forget(self._values.pop(key)[1])

    def _expire(self) -> None:
        now = time.monotonic()
        while self._values:
            used, value = next(iter(self._values.values()))
            old = self._seconds is not None and now - used > self._seconds
            if len(self._values) <= self._capacity and not old:
                return
            self._values.popitem(last=False)
            self._forget(value)

    def _forget(self, value: T) -> None:
        if self._dropped is not None:
            self._dropped(value)
