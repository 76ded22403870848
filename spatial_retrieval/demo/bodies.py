"""Bodies of requests: read up to a limit and in time, and checked before gradio sees them."""

import asyncio
import json
import time
from collections.abc import Container
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from spatial_retrieval.demo import limits
from spatial_retrieval.demo.uploads import Uploads

__all__ = ["Bucket", "RefusedError", "check_call", "declared_length", "read_body"]


class RefusedError(Exception):
    """A request that is not passed on.

    Attributes:
        status: of the reply.
        unread: its body is left unread, and the connection closed.
    """

    def __init__(self, status: int, message: str, *, unread: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.unread = unread


class Bucket:
    """Fills with time and is emptied by use.

    Args:
        size: how much it holds.
        per_second: how fast it fills.
    """

    def __init__(self, size: float, *, per_second: float) -> None:
        self._size = size
        self._rate = per_second
        self._left = size
        self._when = time.monotonic()

    def take(self, amount: float) -> bool:
        """Take an amount, if there is that much."""
        now = time.monotonic()
        self._left = min(self._size, self._left + (now - self._when) * self._rate)
        self._when = now
        if self._left < amount:
            return False
        self._left -= amount
        return True


def declared_length(scope: Scope, limit: int) -> int:
    """The length that a request declares.

    Raises:
        RefusedError: if it declares none, or one above the limit.
    """
    text = Headers(scope=scope).get("content-length", "")
    if not text.isdecimal():
        raise RefusedError(411, "expected a Content-Length", unread=True)
    if len(text) > 15 or int(text) > limit:
        raise RefusedError(413, f"expected at most {limit / 1e6:g} MB", unread=True)
    return int(text)


async def read_body(scope: Scope, receive: Receive, *, limit: int, seconds: float) -> bytes:
    """The whole body.

    Raises:
        RefusedError: if it is too long or takes too long.
    """
    declared_length(scope, limit)
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RefusedError(400, "gone before the end", unread=True)
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                more = message.get("more_body", False)
                if size > limit:
                    raise RefusedError(413, f"expected at most {limit / 1e6:g} MB", unread=True)
    except TimeoutError as error:
        raise RefusedError(408, "too slow", unread=True) from error
    return b"".join(parts)


def check_call(body: bytes, functions: Container[int], uploads: Uploads) -> dict[str, Any]:
    """A call of gradio's, decoded.

    Args:
        body: as it was sent.
        functions: numbers of the functions that there are.
        uploads: whose uploads there are.

    Raises:
        RefusedError: if it is no call, calls nothing, or names a file that the current visitor did
            not upload, anywhere in it.
    """
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > limits.MAX_JSON_MARKS:
        raise RefusedError(413, "expected a shorter request")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, "expected JSON") from error
    if not isinstance(value, dict):
        raise RefusedError(400, "expected a JSON object")
    number, session = value.get("fn_index"), value.get("session_hash")
    if number is not None and (type(number) is not int or number not in functions):
        raise RefusedError(400, "there is no such function")
    if session is not None and not (isinstance(session, str) and 0 < len(session) <= 64):
        raise RefusedError(400, "expected a session of at most 64 characters")
    if any(not uploads.owned(path) for path in _paths(value)):
        raise RefusedError(400, "expected files that you uploaded")
    return value


def _paths(value: Any) -> list[Any]:
    """All that gradio might take for a file."""
    found, waiting = [], [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if "path" in item:
                found.append(item["path"])
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return found
