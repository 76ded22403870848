"""``embed``, ``index`` and ``search``."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from spatial_retrieval.cli import CallError
from spatial_retrieval.cli.arguments import box, positive, scales

__all__ = ["DEFAULT_MODEL", "add_model_arguments", "add_parser", "check_reranker", "open_model"]

DEFAULT_MODEL = "lite0-spatial"


def add_parser(subparsers: Any) -> None:
    """Add the three commands."""
    embed = subparsers.add_parser("embed", help="describe a folder's photographs into one .npz")
    embed.add_argument("folder", type=Path, metavar="FOLDER")
    embed.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.npz")
    add_model_arguments(embed)
    embed.set_defaults(run=_embed)

    index = subparsers.add_parser("index", help="make a folder searchable; run again to update")
    index.add_argument("folder", type=Path, metavar="FOLDER")
    index.add_argument("-o", "--output", type=Path, required=True, metavar="INDEX")
    add_model_arguments(index)
    index.set_defaults(run=_index)

    search = subparsers.add_parser("search", help="rank an index's photographs by a query")
    search.add_argument("index", type=Path, metavar="INDEX")
    search.add_argument("image", type=Path, metavar="IMAGE")
    search.add_argument("--box", type=box, metavar="X0,Y0,X1,Y1", help="part of the query, pixels")
    search.add_argument("-k", type=positive, default=10, help="hits (10)")
    search.add_argument("--rerank", default="none", metavar="NAME", help="none, aqe, verify, …")
    search.add_argument("--model", metavar="M", help="must be the index's own (its default)")
    search.add_argument("--json", action="store_true", help="print JSON")
    search.set_defaults(run=_search)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say how photographs are described."""
    parser.add_argument("--model", metavar="M", help=f"name or folder of a model ({DEFAULT_MODEL})")
    parser.add_argument("--size", type=positive, default=480, help="longest side, pixels (480)")
    parser.add_argument("--scales", type=scales, default=(1.0,), metavar="S,S…", help="e.g. 1,0.7")


def _embed(args: argparse.Namespace) -> None:
    import numpy as np

    from spatial_retrieval.features.extraction import describe_readable
    from spatial_retrieval.files import atomic_writer

    names = _photographs(args.folder)
    result = describe_readable(
        open_model(args.model or DEFAULT_MODEL), [args.folder / name for name in names],
        size=args.size, scales=args.scales, progress=sys.stderr.isatty(),
    )  # fmt: skip
    _set_aside({names[i]: reason for i, reason in result.failed.items()})
    if not result.kept:
        raise ValueError(f"{args.folder}: none of {len(names)} files could be read")
    kept = np.array([names[i] for i in result.kept])
    with atomic_writer(args.output) as file:
        np.savez(file, names=kept, descriptors=result.descriptors)
    print(f"{len(kept)} photographs described → {args.output}")


def _index(args: argparse.Namespace) -> None:
    from spatial_retrieval.indexing import index_folder

    _photographs(args.folder)
    name = args.model or DEFAULT_MODEL
    report = index_folder(
        args.folder, args.output, open_model(name), model_name=name,
        size=args.size, scales=args.scales, progress=sys.stderr.isatty(),
    )  # fmt: skip
    _set_aside(report.failed)
    print(f"{report.described} described, {len(report.index)} in the index → {args.output}")


def _search(args: argparse.Namespace) -> None:
    from spatial_retrieval.images import BoxError
    from spatial_retrieval.searcher import open_index

    if not args.image.exists():
        raise CallError(f"{args.image}: no such photograph")
    if not args.index.is_dir():
        raise CallError(f"{args.index}: no such index; make one with: spatial-retrieval index")
    check_reranker(args.rerank)
    searcher = open_index(args.index, model=args.model)
    try:
        found = searcher.search(args.image, box=args.box, k=args.k, rerank=args.rerank)
    except BoxError as error:
        raise CallError(f"--box: {error}") from error
    if args.json:
        print(json.dumps({"query": str(args.image), **found.to_json()}, indent=2))
        return
    for rank, (name, score) in enumerate(zip(found.names, found.scores, strict=True), start=1):
        print(f"{rank:4d}  {score:.4f}  {name}")
    times = " · ".join(f"{stage} {ms:.0f} ms" for stage, ms in found.milliseconds.items())
    print(times, file=sys.stderr)


def _photographs(folder: Path) -> list[str]:
    from spatial_retrieval.datasets.folders import list_images

    try:
        return list_images(folder)
    except ValueError as error:
        raise CallError(str(error)) from error


def check_reranker(name: str) -> None:
    """Refuse an unknown ``--rerank``.

    Raises:
        CallError: naming those that there are.
    """
    from spatial_retrieval.rerank import by_name

    try:
        by_name(name)
    except ValueError as error:
        raise CallError(f"--rerank: {error}") from error


def open_model(name: str) -> Any:
    """Load what ``--model`` names.

    Raises:
        CallError: if there is no such model.
    """
    from spatial_retrieval.models import load_model

    try:
        return load_model(name)
    except ValueError as error:
        raise CallError(f"--model: {error}") from error


def _set_aside(failed: dict[str, str]) -> None:
    for name, reason in failed.items():
        print(f"set aside {name}: {reason}", file=sys.stderr)
