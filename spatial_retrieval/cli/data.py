"""``data``: make or fetch data sets."""

import argparse
from pathlib import Path
from typing import Any

from spatial_retrieval.cli import CallError
from spatial_retrieval.cli.arguments import positive

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Add ``data`` and what it can do."""
    data = subparsers.add_parser("data", help="make or fetch data sets")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_make(actions)
    _add_download(actions)


def _add_make(actions: Any) -> None:
    make = actions.add_parser("make", help="draw a data set; nothing is downloaded")
    sets = make.add_subparsers(dest="dataset", required=True, metavar="DATASET")
    twins = sets.add_parser("twins", help="Twin Façades: houses and their re-arranged twins")
    twins.add_argument("--root", type=Path, metavar="DIR", help="folder (the cache)")
    twins.add_argument("--split", choices=("train", "val", "test"), default="test")
    twins.add_argument("--landmarks", type=positive, default=60, help="houses (60)")
    twins.add_argument("--views", type=positive, default=10, help="photographs of each (10)")
    twins.add_argument("--seed", type=int, default=0, help="another seed is another city (0)")
    twins.add_argument("--size", type=positive, default=448, help="side in pixels (448)")
    twins.add_argument("--difficulty", default="EMH", help="difficulties in turn (EMH)")
    twins.set_defaults(run=_make_twins)


def _add_download(actions: Any) -> None:
    get = actions.add_parser("download", help="fetch a data set; run again to go on")
    get.add_argument("name", metavar="NAME", help="roxford5k, rparis6k, revisitop1m, sfm120k, …")
    get.add_argument(
        "--root", type=Path, metavar="DIR", help="where data sets are kept (the cache)"
    )
    get.set_defaults(run=_download)


def _download(args: argparse.Namespace) -> None:
    from spatial_retrieval.datasets.download import download
    from spatial_retrieval.datasets.remotes import DATASETS

    if args.name not in DATASETS:
        raise CallError(f"expected a data set of {', '.join(DATASETS)}; got {args.name!r}")
    print(f"ready: {download(args.name, args.root, say=print)}")


def _make_twins(args: argparse.Namespace) -> None:
    from spatial_retrieval.facades.data import check_request, twin_facades

    try:
        check_request(args.split, args.landmarks, args.views, args.seed, args.size, args.difficulty)
    except ValueError as error:
        raise CallError(str(error)) from error
    views = args.views
    if args.difficulty != "EMH":
        views = (args.difficulty * views)[:views]
    data = twin_facades(
        args.split, args.landmarks, views, args.seed, size=args.size, root=args.root
    )
    print(f"{len(data)} photographs of {len(data.twin_of)} houses")
    print(f"photographs  {data.images}")
    print(f"masks        {data.root / 'masks'}")
    print(f"manifest     {data.root / 'manifest.json'}")
