"""The commands: ``spatial-retrieval …``, the same as ``python -m spatial_retrieval …``.

Exit codes: 0 done, 1 a run failed, 2 the call is wrong. An error is one line on stderr that says
what to do; ``--debug`` shows the traceback.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from spatial_retrieval.files import printable

__all__ = ["CallError", "main"]

_COMMAND_MODULES = (
    "retrieval",
    "groups",
    "evaluate",
    "data",
    "localize",
    "train",
    "whiten",
    "models",
    "demo",
)


class CallError(ValueError):
    """The call itself is wrong (exit code 2): a missing path, an option out of range."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal cannot show is escaped
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        _choose_weights(args)
        args.run(args)
    except (ValueError, OSError, ImportError) as error:
        if args.debug:
            raise
        print(f"spatial-retrieval: {_one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, CallError) else 1
    except MemoryError:
        if args.debug:
            raise
        print("spatial-retrieval: out of memory", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("spatial-retrieval: interrupted", file=sys.stderr)
        return 1
    return 0


def _choose_weights(args: argparse.Namespace) -> None:
    """``--weights random`` of ``timm:NAME`` is the model ``timm-random:NAME``."""
    if getattr(args, "weights", "pretrained") == "pretrained":
        return
    if not (args.model or "").startswith("timm:"):
        raise CallError(f"--weights random: expected --model timm:NAME, got {args.model!r}")
    args.model = args.model.replace("timm:", "timm-random:", 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spatial-retrieval",
        description="Find the photographs that show the same place or object, and where it is.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in _COMMAND_MODULES:
        importlib.import_module(f"{__name__}.{name}").add_parser(subparsers)
    return parser


def _one_line(error: BaseException) -> str:
    return printable(" ".join(str(error).split())) or type(error).__name__
