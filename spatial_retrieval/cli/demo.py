"""``demo``: the page, served."""

import argparse
import ctypes
import signal
import sys
from pathlib import Path
from typing import Any

from spatial_retrieval.cli import CallError
from spatial_retrieval.cli.arguments import positive

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    demo = subparsers.add_parser("demo", help="open the page: ask by picture")
    source = demo.add_mutually_exclusive_group()
    source.add_argument(
        "--gallery", type=Path, metavar="FOLDER", help="photographs to search (Twin Façades)"
    )
    source.add_argument("--index", type=Path, metavar="INDEX", help="an index made beforehand")
    demo.add_argument("--model", metavar="M", help="name or folder of the model to begin with")
    demo.add_argument("--share", action="store_true", help="make a public link")
    demo.add_argument(
        "--auth-file",
        type=Path,
        metavar="FILE",
        help="ask for a password: lines USER:PASSWORD (or set SPATIAL_RETRIEVAL_AUTH)",
    )
    demo.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="name under which a proxy makes the page public; may be given again",
    )
    demo.add_argument("--port", type=_port, metavar="P", help="port (the first free from 7860)")
    demo.set_defaults(run=_demo)


def _demo(args: argparse.Namespace) -> None:
    from spatial_retrieval.demo.accounts import Accounts
    from spatial_retrieval.demo.server import build_app, local_hosts, serve

    try:
        accounts = Accounts.read(args.auth_file)
    except ValueError as error:
        raise CallError(str(error)) from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C
    _keep_memory_flat()
    service = _service(args)
    service.warm()
    app = build_app(service, accounts=accounts, hosts=local_hosts(args.share, args.host))
    try:
        serve(app, port=args.port, share=args.share)
    finally:
        service.workspace.close()


def _keep_memory_flat() -> None:
    """Two heaps for all threads: with one for each, glibc's grow for hundreds of requests."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(-8, 2)  # M_ARENA_MAX


def _service(args: argparse.Namespace) -> Any:
    from spatial_retrieval.demo import gallery
    from spatial_retrieval.demo.models import default_model
    from spatial_retrieval.demo.service import Service
    from spatial_retrieval.models import embedded_models

    try:
        if args.gallery is not None:
            chosen = gallery.from_folder(args.gallery)
        elif args.index is not None:
            chosen = gallery.from_index(args.index)
        else:
            chosen = gallery.embedded()
    except ValueError as error:
        raise CallError(str(error)) from error
    default = args.model or _model_of(chosen) or default_model()
    service = Service(chosen, embedded_models(), default)
    if args.model is not None:
        try:
            service.shelf.model(args.model)
        except ValueError as error:
            raise CallError(str(error)) from error
    return service


def _model_of(chosen: Any) -> str | None:
    """The model that a given index was made with."""
    if chosen is None or chosen.index is None:
        return None
    from spatial_retrieval.index import DescriptorIndex

    return DescriptorIndex.load(chosen.index).info.get("model")


def _port(text: str) -> int:
    if (port := positive(text)) > 65_535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
    return port
