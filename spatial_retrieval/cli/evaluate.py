"""``evaluate``: a model on ROxford, RParis, Twin Façades, or a folder of labelled photographs."""

import argparse
from pathlib import Path
from typing import Any

from spatial_retrieval.cli import CallError
from spatial_retrieval.cli.arguments import positive, scales
from spatial_retrieval.cli.retrieval import DEFAULT_MODEL, check_reranker

__all__ = ["add_parser"]

_REVISITED = ("roxford5k", "rparis6k")
_PIXEL = {"proxford": "roxford5k", "prparis": "rparis6k"}


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("evaluate", help="score a model on a data set or a folder")
    known = "roxford5k, rparis6k, proxford, prparis, twins"
    parser.add_argument(
        "target",
        metavar="DATASET|FOLDER",
        help=f"{known}, or a folder whose sub-folders are labels",
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"name or folder ({DEFAULT_MODEL})")
    parser.add_argument("--rerank", default="none", metavar="R", help="none, aqe, verify, …")
    parser.add_argument("--card", type=Path, metavar="FILE", help="write FILE.md and FILE.json")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where data sets are kept")
    sizes = "longest side, pixels (1024; folders 480; twins 448)"
    parser.add_argument("--size", type=positive, help=sizes)
    parser.add_argument("--scales", type=scales, default=(1.0,), metavar="S,S…", help="e.g. 1,0.7")
    parser.add_argument("--no-query-crop", action="store_true", help="use whole query images")
    parser.add_argument("--distractors", action="store_true", help="add R1M to the database")
    regions = "proxford, prparis: score these regions (.npy, .json) instead of the model's"
    parser.add_argument("--regions", type=Path, metavar="FILE", help=regions)
    parser.add_argument("--training-data", metavar="TEXT", help="what the model saw, for the card")
    parser.add_argument("--whitening-data", metavar="TEXT", help="what its whitening saw")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from spatial_retrieval.cli import evaluations

    _check(args)
    if args.target in _REVISITED:
        card = evaluations.revisited(args)
    elif args.target in _PIXEL:
        card = evaluations.pixel(args, _PIXEL[args.target])
    elif args.target == "twins":
        card = evaluations.twins(args)
    else:
        card = evaluations.folder(args)
    if args.card is not None:
        page, data = card.save(args.card)
        print(f"card → {page}, {data}")


def _check(args: argparse.Namespace) -> None:
    known = (*_REVISITED, *_PIXEL, "twins")
    if args.target not in known and not Path(args.target).is_dir():
        raise CallError(
            f"{args.target}: neither {', '.join(known[:-1])} or twins, nor a folder that is there"
        )
    for option, given, targets in (
        ("--no-query-crop", args.no_query_crop, _REVISITED),
        ("--distractors", args.distractors, _REVISITED),
        ("--regions", args.regions, tuple(_PIXEL)),
    ):
        if given and args.target not in targets:
            raise CallError(f"{option} is for {' and '.join(targets)}")
    if args.target in _PIXEL and tuple(args.scales) != (1.0,):
        raise CallError("--scales is not for proxford and prparis: maps are of one scale")
    if args.regions is not None and not args.regions.is_file():
        raise CallError(f"--regions: {args.regions}: no such file")
    check_reranker(args.rerank)
