"""The page behind its guard, served by uvicorn until a signal ends it."""

import asyncio
import os
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from spatial_retrieval.demo.accounts import Accounts
from spatial_retrieval.demo.guard import Guard
from spatial_retrieval.demo.page import build_page, page_options
from spatial_retrieval.demo.service import Service
from spatial_retrieval.demo.states import LeanStateHolder

__all__ = ["build_app", "local_hosts", "running", "serve"]

_FIRST_PORT, _PORTS = 7860, 100
_CLOCK = 20  # seconds between two looks for what has been kept too long
_LOCAL = ("127.0.0.1", "localhost", "::1")


def build_app(
    service: Service, *, accounts: Accounts | None = None, hosts: Sequence[str] = ("*",)
) -> FastAPI:
    """The whole application.

    Args:
        service: what the page can do.
        accounts: who may use it; None: everybody.
        hosts: names under which it is reached, such as ``"demo.example.org"``.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(service.workspace.uploads)
    page = build_page(service)

    @asynccontextmanager
    async def clock(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(_sweep(service))
        yield
        task.cancel()

    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=clock,
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
            Middleware(CORSMiddleware, allow_origins=()),  # gradio leaves this to us then
            Middleware(Guard, service=service, page=lambda: app.state.page),
        ],
    )
    check = None if accounts is None else accounts.check
    gr.mount_gradio_app(app, page, path="/", auth=check, **page_options())
    app.state.page = app.routes[-1].app
    app.state.page.state_holder = LeanStateHolder()
    app.state.page.state_holder.set_blocks(page)
    return app


def serve(app: FastAPI, *, port: int | None = None, share: bool = False) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        app: see :func:`build_app`.
        port: None: the first free one.
        share: make a public link through gradio's servers.

    Raises:
        OSError: if no port is free.
    """
    server = _server(app, port)
    threading.Thread(target=_announce, args=(server, share), daemon=True).start()
    server.run()


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serve in the background for the time of the block.

    Yields:
        The address.
    """
    server = _server(app, _free_port(0))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the server did not start")
        time.sleep(0.01)
    yield _address(server)
    server.should_exit = True
    thread.join(timeout=10)


def local_hosts(share: bool, names: Sequence[str]) -> Sequence[str]:
    """Names that the page is reached by: those given; otherwise what listens only here, or all."""
    if names:
        return [*_LOCAL, *names]
    if _host() not in _LOCAL:
        return ["*"]
    return [*_LOCAL, *(["*.gradio.live"] if share else [])]


async def _sweep(service: Service) -> None:
    while True:
        await asyncio.sleep(_CLOCK)
        await asyncio.to_thread(service.sweep)


def _server(app: FastAPI, port: int | None) -> uvicorn.Server:
    chosen = port or int(os.environ.get("GRADIO_SERVER_PORT", 0)) or _first_free()
    config = uvicorn.Config(
        app,
        host=_host(),
        port=chosen,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=3,
        ws="none",
    )
    return uvicorn.Server(config)


def _announce(server: uvicorn.Server, share: bool) -> None:
    while not server.started:
        time.sleep(0.05)
    print(f"* Running on local URL:  {_address(server)}", flush=True)
    if share:
        from gradio.networking import setup_tunnel

        try:
            link = setup_tunnel(_host(), server.config.port, secrets.token_urlsafe(32), None, None)
            print(f"* Public link, as long as this runs:  {link}", flush=True)
        except (RuntimeError, ValueError, OSError) as error:
            print(f"* No public link could be made: {error}", flush=True)


def _address(server: uvicorn.Server) -> str:
    host = _host()
    return f"http://{'localhost' if host == '0.0.0.0' else host}:{server.config.port}"


def _host() -> str:
    return os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")


def _first_free() -> int:
    for port in range(_FIRST_PORT, _FIRST_PORT + _PORTS):
        try:
            return _free_port(port)
        except OSError:
            continue
    raise OSError(f"no port from {_FIRST_PORT} to {_FIRST_PORT + _PORTS - 1} is free; use --port")


def _free_port(port: int) -> int:
    with socket.socket() as trial:
        trial.bind((_host(), port))
        return trial.getsockname()[1]
