"""What a request must pass before gradio sees it: which routes, how much, how slowly, whose files.

Gradio reads a whole body before it asks for a password, opens any path that a payload names, and
serves more routes than this page uses. All of that is settled here, before anything is parsed.
"""

import logging
import mimetypes
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from spatial_retrieval.demo import limits
from spatial_retrieval.demo.bodies import (
    Bucket,
    RefusedError,
    check_call,
    declared_length,
    read_body,
)
from spatial_retrieval.demo.messages import (
    UploadMessages,
    replayed,
    with_headers,
    without_faults,
)
from spatial_retrieval.demo.service import Service
from spatial_retrieval.demo.store import Store
from spatial_retrieval.demo.visitor import visiting

__all__ = ["Guard"]

_API = "/gradio_api/"
_PAGES = re.compile(
    r"/(config|logout|theme\.css|favicon\.ico|manifest\.json|robots\.txt|login)?/?"
    r"|/(static|assets|svelte)/.*"
)
_READ = re.compile(
    r"(info|openapi\.json|app_id|startup-events|login_check|user|theme\.css|queue/(data|status)"
    r"|heartbeat/\w{1,64}|call/.+|upload_progress)/?|file=.+"
)
_CALLED = re.compile(r"(queue/join|run/\w+|api/\w+|call/(v2/)?\w+|cancel|reset)/?")
_OPEN = ("app_id", "startup-events", "login_check", "user", "theme.css")  # without a password
_STREAMS = 200  # open at once for one visitor
_PENDING = 24  # calls of one page that nobody has fetched the results of
_LOG = logging.getLogger(__name__)


class Guard:
    """The middleware between server and gradio.

    Args:
        app: gradio's application.
        service: knows whose uploads there are.
        page: returns gradio's application itself, for its sessions and log-ins.
    """

    def __init__(self, app: ASGIApp, service: Service, page: Callable[[], Any]) -> None:
        self._app = app
        self._service = service
        self._page = page
        self._streams: Counter[str] = Counter()
        self._sending: Counter[str] = Counter()  # bytes of uploads on their way
        self._inflow = Bucket(6 * limits.MAX_JSON_BYTES, per_second=limits.MAX_JSON_BYTES)
        self._logins: Store[Bucket] = Store(10_000)
        self._sessions: Store[str] = Store(
            1000, each=200, seconds=limits.SESSION_SECONDS, dropped=self._forget
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reply to it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        reply = with_headers(send)
        try:
            visitor = (scope.get("client") or ("", 0))[0]
            with visiting(visitor):
                await self._pass(scope, receive, reply, visitor)
        except RefusedError as error:
            headers = {"Connection": "close"} if error.unread else None
            content = {"detail": str(error), "error": str(error)}
            await JSONResponse(content, error.status, headers)(scope, receive, reply)

    def sweep(self) -> None:
        """Forget pages that nobody uses any more."""
        self._sessions.sweep()

    async def _pass(self, scope: Scope, receive: Receive, send: Send, visitor: str) -> None:
        path, method = scope["path"], scope["method"]
        if method in ("GET", "HEAD"):
            self._check_read(scope, path)
            if path.startswith(f"{_API}file="):
                reply = self._uploaded(path.removeprefix(f"{_API}file="))
                await reply(scope, receive, send)
                return
            await self._streamed(scope, receive, send, visitor)
        elif method == "POST" and path.rstrip("/") == "/login":
            self._check_login(visitor)
            body = await read_body(scope, receive, limit=4096, seconds=5)
            await self._app(scope, replayed(body, receive), send)
        elif method == "POST" and path == f"{_API}upload":
            self._check_account(scope)
            await self._upload(scope, receive, send, visitor)
        elif method == "POST" and path.startswith(_API) and _CALLED.fullmatch(path[len(_API) :]):
            self._check_account(scope)
            await self._call(scope, receive, send)
        else:
            raise RefusedError(404, "there is nothing here")

    # -- reading

    def _check_read(self, scope: Scope, path: str) -> None:
        route = path.removeprefix(_API)
        known = _READ.fullmatch(route) if path.startswith(_API) else _PAGES.fullmatch(path)
        if not known:
            raise RefusedError(404, "there is nothing here")
        if path.startswith(_API) and not route.startswith(_OPEN):
            self._check_account(scope)

    def _uploaded(self, path: str) -> Response:
        """A visitor's own upload, whole: gradio would open it again after its length was sent."""
        try:
            data = self._service.uploads.shown(path)
        except ValueError as error:
            raise RefusedError(403, "this file is not yours, or not there any more") from error
        kind = mimetypes.guess_type(path)[0] or ""
        media = kind if kind.startswith("image/") and "svg" not in kind else None
        media = media or "application/octet-stream"
        return Response(status_code=204) if data is None else Response(data, media_type=media)

    async def _streamed(self, scope: Scope, receive: Receive, send: Send, visitor: str) -> None:
        if self._streams[visitor] >= _STREAMS:
            raise RefusedError(429, "busy: too many connections; try again in a moment")
        self._streams[visitor] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._streams[visitor] -= 1
            self._streams += Counter()  # without those that have none

    # -- passwords

    def _check_login(self, visitor: str) -> None:
        tries = self._logins.get_or(visitor, lambda: Bucket(5, per_second=0.1))
        if not tries.take(1):
            raise RefusedError(429, "too many tries; wait a minute")

    def _check_account(self, scope: Scope) -> None:
        page = self._page()
        if page.auth is None:
            return
        cookies = cookie_parser(Headers(scope=scope).get("cookie", ""))
        names = (f"access-token-{page.cookie_id}", f"access-token-unsecure-{page.cookie_id}")
        if not any(page.tokens.get(cookies.get(name)) for name in names):
            raise RefusedError(401, "log in first")

    # -- calls

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not Headers(scope=scope).get("content-type", "").startswith("application/json"):
            raise RefusedError(415, "expected JSON")
        length = declared_length(scope, limits.MAX_JSON_BYTES)
        if not self._inflow.take(length):
            raise RefusedError(429, "busy: too much is being sent; try again in a moment")
        body = await read_body(scope, receive, limit=limits.MAX_JSON_BYTES, seconds=30)
        page = self._page()
        value = check_call(body, page.get_blocks().fns, self._service.uploads)
        session = value.get("session_hash")
        if session is not None:
            self._check_session(session)
        await self._guarded(scope, replayed(body, receive), without_faults(send))

    def _check_session(self, session: str) -> None:
        self._sessions.get_or(session, lambda: session)
        queue = self._page().get_blocks()._queue
        if len(queue.pending_event_ids_session.get(session, ())) >= _PENDING:
            raise RefusedError(429, "busy: too much of yours is waiting; try again in a moment")

    def _forget(self, session: str) -> None:
        """Drop all that gradio keeps for a page."""
        page = self._page()
        page.state_holder.session_data.pop(session, None)
        page.state_holder.time_last_used.pop(session, None)
        queue = page.get_blocks()._queue
        queue.pending_messages_per_session.pop(session, None)
        for event in queue.pending_event_ids_session.pop(session, ()):
            queue.event_ids_to_events.pop(event, None)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Gradio has served a fault by now; it belongs into the log, not into the server's."""
        try:
            await self._app(scope, receive, send)
        except Exception:
            _LOG.exception("%s failed", scope["path"])

    # -- uploads

    async def _upload(self, scope: Scope, receive: Receive, send: Send, visitor: str) -> None:
        length = declared_length(scope, limits.MAX_VISITOR_UPLOADS)
        uploads = self._service.uploads
        waiting = uploads.waiting(visitor) + self._sending[visitor]
        if waiting + length > limits.MAX_VISITOR_UPLOADS:
            raise RefusedError(413, "too many uploads of yours wait; use them first", unread=True)
        if uploads.waiting() + self._sending.total() + length > limits.MAX_ALL_UPLOADS:
            raise RefusedError(429, "busy: too many uploads; try again in a moment", unread=True)
        self._sending[visitor] += length
        taken = UploadMessages(receive, send, length)
        scope = {**scope, "headers": [h for h in scope["headers"] if h[0] != b"accept-encoding"]}
        try:
            await self._guarded(scope, taken.receive, taken.send)
        finally:
            self._sending[visitor] -= length
            self._sending += Counter()
            if not self._sending:
                uploads.remove_broken()
        if taken.late:
            raise RefusedError(408, "the upload was too slow", unread=True)
        uploads.note(taken.paths())
        await taken.finish()
