"""``duplicates`` and ``clusters``."""

import argparse
import csv
import html
import io
from pathlib import Path
from typing import Any

from spatial_retrieval.cli import CallError
from spatial_retrieval.cli.arguments import fraction, positive

__all__ = ["add_parser"]

_SHOWN = 12  # photographs of a group on the page
_COMMANDS = (
    ("duplicates", 0.95, "list photographs that are nearly the same"),
    ("clusters", 0.7, "list photographs that show the same thing"),
)


def add_parser(subparsers: Any) -> None:
    """Add both commands."""
    for name, threshold, what in _COMMANDS:
        parser = subparsers.add_parser(name, help=what)
        parser.add_argument("index", type=Path, metavar="INDEX")
        joins = f"similarity that joins two photographs ({threshold})"
        parser.add_argument(
            "--threshold", type=fraction, default=threshold, metavar="S", help=joins
        )
        parser.add_argument("-k", type=positive, default=16, help="neighbours looked at (16)")
        parser.add_argument("--csv", type=Path, metavar="FILE", help="group, name")
        parser.add_argument("--html", type=Path, metavar="FILE", help="a page with the photographs")
        parser.set_defaults(run=_groups)


def _groups(args: argparse.Namespace) -> None:
    from spatial_retrieval.files import atomic_writer, printable
    from spatial_retrieval.index import DescriptorIndex
    from spatial_retrieval.index.groups import groups

    if not args.index.is_dir():
        raise CallError(f"{args.index}: no such index; make one with: spatial-retrieval index")
    index = DescriptorIndex.load(args.index)
    found = [[index.names[i] for i in each] for each in groups(index, args.threshold, k=args.k)]
    for path, text in ((args.csv, _csv), (args.html, _page)):
        if path:
            with atomic_writer(path) as file:
                file.write(text(found, index.info.get("folder")).encode("utf-8", "surrogatepass"))
    if not (args.csv or args.html):
        for number, names in enumerate(found, start=1):
            print("\n".join(f"{number:4d}  {printable(name)}" for name in names))
    print(f"{sum(map(len, found))} of {len(index)} photographs in {len(found)} groups")


def _csv(found: list[list[str]], folder: str | None) -> str:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["group", "name"])
    rows.writerows([i, name] for i, names in enumerate(found, start=1) for name in names)
    return text.getvalue()


def _page(found: list[list[str]], folder: str | None) -> str:
    style = "img{height:140px;margin:2px}body{font-family:sans-serif}"
    parts = [f"<!doctype html><meta charset=utf-8><title>Groups</title><style>{style}</style>"]
    for number, names in enumerate(found, start=1):
        parts.append(f"<h2>{number} · {len(names)} photographs</h2>")
        parts += [_figure(name, folder) for name in names[:_SHOWN]]
    return "\n".join(parts)


def _figure(name: str, folder: str | None) -> str:
    title = html.escape(name, quote=True)
    if folder is None:
        return f"<p>{title}</p>"
    address = html.escape((Path(folder) / name).as_uri(), quote=True)
    return f'<img loading=lazy src="{address}" title="{title}" alt="{title}">'
