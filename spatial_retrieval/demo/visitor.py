"""Who is asking: an address, set for the time of one request."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["current_visitor", "visiting"]

_CURRENT: ContextVar[str] = ContextVar("visitor", default="")


def current_visitor() -> str:
    """The visitor of this request; empty outside of one."""
    return _CURRENT.get()


@contextmanager
def visiting(name: str) -> Iterator[None]:
    """What is kept inside the block belongs to this visitor.

    Example:
        >>> with visiting("192.0.2.1"):
        ...     current_visitor()
        '192.0.2.1'
    """
    token = _CURRENT.set(name)
    try:
        yield
    finally:
        _CURRENT.reset(token)
