"""A bounded store that is fair between visitors. Safe between threads."""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from spatial_retrieval.demo.visitor import current_visitor

__all__ = ["Store"]

_V = TypeVar("_V")
_REASONS = 1000  # of values that are gone


@dataclass(slots=True)
class _Kept(Generic[_V]):
    value: _V
    visitor: str
    used: float


class Store(Generic[_V]):
    """Keep at most ``capacity`` values, each at most ``seconds`` after its last use.

    Without ``each`` what was not used for longest is forgotten first. With it room is made among
    the values of the visitor who has the most: nobody loses anything to somebody who keeps more.

    Args:
        capacity: how many values.
        each: how many of one visitor.
        seconds: None for no limit of time.
        dropped: called with each value that is forgotten.

    Example:
        >>> store = Store(1)
        >>> store.put("a", 1); store.put("b", 2)
        >>> store.get("a"), store.get("b"), store.why("a")
        (None, 2, 'room')
    """

    def __init__(
        self,
        capacity: int,
        *,
        each: int | None = None,
        seconds: float | None = None,
        dropped: Callable[[_V], None] | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"expected a capacity of at least 1, got {capacity}")
        self._capacity = capacity
        self._each = each
        self._seconds = seconds
        self._dropped = dropped
        self._values: OrderedDict[str, _Kept[_V]] = OrderedDict()  # by last use
        self._reasons: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> _V | None:
        """The value, or None when there is none any more."""
        self.sweep()
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            kept = self._values[key]
            kept.used = time.monotonic()
            return kept.value

    def put(self, key: str, value: _V) -> None:
        """Keep a value for the current visitor, in place of an older one under this key."""
        visitor = "" if self._each is None else current_visitor()
        with self._lock:
            gone = self._take([key], "replaced")
            self._values[key] = _Kept(value, visitor, time.monotonic())
            self._reasons.pop(key, None)
            while (crowded := self._crowded(visitor)) is not None:
                oldest = next(k for k, kept in self._values.items() if kept.visitor == crowded)
                gone += self._take([oldest], "room")
        self._forget(gone)

    def get_or(self, key: str, make: Callable[[], _V]) -> _V:
        """The value; made and kept if it isn't there."""
        value = self.get(key)
        if value is None:
            value = make()
            self.put(key, value)
        return value

    def drop(self, *keys: str) -> None:
        """Forget values now."""
        with self._lock:
            gone = self._take(keys, "deleted")
        self._forget(gone)

    def drop_where(self, wanted: Callable[[str, _V], bool]) -> None:
        """Forget every value for which ``wanted(key, value)``."""
        with self._lock:
            keys = [key for key, kept in self._values.items() if wanted(key, kept.value)]
            gone = self._take(keys, "deleted")
        self._forget(gone)

    def sweep(self) -> None:
        """Forget what was not used for too long."""
        if self._seconds is None:
            return
        before = time.monotonic() - self._seconds
        with self._lock:
            gone = self._take([k for k, kept in self._values.items() if kept.used < before], "time")
        self._forget(gone)

    def why(self, key: str) -> str | None:
        """Why a value is gone: "time", "room" or "deleted"; None: not known."""
        return self._reasons.get(key)

    def _crowded(self, visitor: str) -> str | None:
        """Whose oldest value has to go, if any has to."""
        if self._each is not None:
            counts = Counter(kept.visitor for kept in self._values.values())
            if counts[visitor] > self._each:
                return visitor
            if len(self._values) > self._capacity:
                return counts.most_common(1)[0][0]
        return "" if len(self._values) > self._capacity else None

    def _take(self, keys: "list[str] | tuple[str, ...]", reason: str) -> list[_V]:
        found = [key for key in keys if key in self._values]
        for key in found:
            self._reasons[key] = reason
        while len(self._reasons) > _REASONS:
            self._reasons.popitem(last=False)
        return [self._values.pop(key).value for key in found]

    def _forget(self, values: list[_V]) -> None:
        if self._dropped is not None:
            for value in values:
                self._dropped(value)
