"""Requests and replies on their way through the guard."""

import asyncio
import json

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Send

from spatial_retrieval.demo.bodies import RefusedError

__all__ = ["HEADERS", "UploadMessages", "replayed", "with_headers", "without_faults"]

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'self'",
            "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # gradio evaluates js_on_load
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self' data: blob:",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'self' https://huggingface.co https://*.hf.space",
        )
    ),
}


class UploadMessages:
    """One upload: no longer than declared, not too slow, and its reply kept until it is noted."""

    def __init__(self, receive: Receive, send: Send, length: int) -> None:
        self.late = False
        self._receive, self._send = receive, send
        self._left = length
        self._end = asyncio.get_running_loop().time() + 20 + length / 100_000
        self._answer: list[Message] = []

    async def receive(self) -> Message:
        """The next part of the body; the end of the connection where it is too long or slow."""
        left = self._end - asyncio.get_running_loop().time()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.01, min(left, 15)))
        except TimeoutError:
            self.late = True
            return {"type": "http.disconnect"}
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        """Keep a part of the reply."""
        self._answer.append(message)

    def paths(self) -> list[str]:
        """The files that were written."""
        if not self._answer or self._answer[0].get("status") != 200:
            return []
        return json.loads(b"".join(m.get("body", b"") for m in self._answer[1:]))

    async def finish(self) -> None:
        """Send the reply.

        Raises:
            RefusedError: if there was nothing that could be read.
        """
        for message in self._answer:
            if message.get("status") == 500:
                raise RefusedError(400, "this is no upload that can be read")
            await self._send(message)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A body that has been read, to be read again."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def with_headers(send: Send) -> Send:
    """Add :data:`HEADERS` to a reply."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return sent


def without_faults(send: Send) -> Send:
    """Gradio reports what a call did wrong as a fault of the server; and a full queue."""
    status = {500: 400, 503: 429}

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["status"] = status.get(message["status"], message["status"])
        await send(message)

    return sent
