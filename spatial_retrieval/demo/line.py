"""One heavy step at a time, whichever way it was asked for, and a short line in front of it."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from spatial_retrieval.demo.visitor import current_visitor

__all__ = ["TurnError", "Line"]


class TurnError(ValueError):
    """There are too many before this visitor."""


class Line:
    """Turns, first come, first served. A thread that has the turn may take it again.

    Args:
        length: how many may wait.
        each: how many of them of one visitor.
        seconds: how long one may wait.

    Example:
        >>> with Line().turn():
        ...     print("mine")
        mine
    """

    def __init__(self, length: int = 12, *, each: int = 6, seconds: float = 3.0) -> None:
        self._length = length
        self._each = each
        self._seconds = seconds
        self._waiting: deque[tuple[object, str]] = deque()
        self._working: int | None = None  # the thread whose turn it is
        self._changed = threading.Condition()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the turn and keep it for the block.

        Raises:
            TurnError: if the line is full, or the turn does not come in time.
        """
        if self._working == threading.get_ident():
            yield
            return
        self._enter(current_visitor())
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def spare(self) -> Iterator[bool]:
        """Whether nobody works or waits; then the turn is this block's."""
        with self._changed:
            free = self._working is None and not self._waiting
            if free:
                self._working = threading.get_ident()
        try:
            yield free
        finally:
            if free:
                self._leave()

    def _enter(self, visitor: str) -> None:
        mine = object(), visitor
        with self._changed:
            own = sum(name == visitor for _, name in self._waiting)
            if len(self._waiting) >= self._length or own >= self._each:
                raise TurnError(f"busy: {len(self._waiting)} are waiting; try again in a moment")
            self._waiting.append(mine)
            came = self._changed.wait_for(
                lambda: self._working is None and self._waiting[0] is mine, self._seconds
            )
            self._waiting.remove(mine)
            if not came:
                self._changed.notify_all()
                raise TurnError("busy: another visitor's request takes long; try again in a moment")
            self._working = threading.get_ident()

    def _leave(self) -> None:
        with self._changed:
            self._working = None
            self._changed.notify_all()
