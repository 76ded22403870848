"""``embed``, ``index`` and ``search``."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from spatial_retrieval.cli import CallError
from spatial_retrieval.cli.arguments import box, positive, scales, shard

__all__ = ["DEFAULT_MODEL", "add_model_arguments", "add_parser", "check_reranker", "open_model"]

DEFAULT_MODEL = "lite0-spatial"
_MANY = 300  # photographs from which on the faster engine is worth finding
_SHOWN = 20  # files that were set aside


def add_parser(subparsers: Any) -> None:
    """Add the three commands."""
    embed = subparsers.add_parser("embed", help="describe a folder's photographs into one .npz")
    embed.add_argument("folder", type=Path, metavar="FOLDER")
    embed.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.npz")
    add_model_arguments(embed)
    embed.set_defaults(run=_embed)

    _add_index(subparsers)
    _add_merge(subparsers)
    _add_search(subparsers)


def _add_index(subparsers: Any) -> None:
    index = subparsers.add_parser("index", help="make a folder searchable; run again to update")
    index.add_argument("folder", type=Path, metavar="FOLDER")
    index.add_argument("-o", "--output", type=Path, required=True, metavar="INDEX")
    add_model_arguments(index)
    part = "describe the i-th of n parts only, 0 ≤ i < n; then: merge"
    index.add_argument("--shard", type=shard, default=(0, 1), metavar="i/n", help=part)
    index.add_argument(
        "--index",
        default="keep",
        metavar="KIND",
        dest="kind",
        help="exact, auto, a FAISS factory string such as IVF4096,SQ8, or milvus://…",
    )
    index.add_argument("--measure", action="store_true", help="print recall and milliseconds")
    index.add_argument("--replace", action="store_true", help="forget what is in INDEX")
    index.add_argument("--verify", action="store_true", help="read and check every byte of INDEX")
    index.set_defaults(run=_index, only_join=False)


def _add_merge(subparsers: Any) -> None:
    merge = subparsers.add_parser("merge", help="join the parts that index --shard described")
    merge.add_argument("folder", type=Path, metavar="FOLDER")
    merge.add_argument("-o", "--output", type=Path, required=True, metavar="INDEX")
    add_model_arguments(merge)
    merge.set_defaults(run=_index, only_join=True, shard=(0, 1), kind="keep")
    merge.set_defaults(replace=False, verify=False, measure=False)


def _add_search(subparsers: Any) -> None:
    search = subparsers.add_parser("search", help="rank an index's photographs by a query")
    search.add_argument("index", type=Path, metavar="INDEX")
    search.add_argument("image", type=Path, metavar="IMAGE")
    search.add_argument("--box", type=box, metavar="X0,Y0,X1,Y1", help="part of the query, pixels")
    search.add_argument("-k", type=positive, default=10, help="hits (10)")
    search.add_argument("--rerank", default="none", metavar="NAME", help="none, aqe, verify, …")
    search.add_argument("--model", metavar="M", help="must be the index's own (its default)")
    search.add_argument("--milvus", metavar="ADDRESS", help="search there, see index --index")
    search.add_argument("--json", action="store_true", help="print JSON")
    search.set_defaults(run=_search)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say how photographs are described."""
    parser.add_argument(
        "--model", metavar="M", help=f"see the command models; by default {DEFAULT_MODEL}"
    )
    parser.add_argument(
        "--weights",
        choices=("pretrained", "random"),
        default="pretrained",
        help="random: of timm:NAME, fetches nothing, to try a path (pretrained)",
    )
    parser.add_argument("--size", type=positive, default=480, help="longest side, pixels (480)")
    parser.add_argument("--scales", type=scales, default=(1.0,), metavar="S,S…", help="e.g. 1,0.7")
    what = "what computes on processors; auto: the fastest that agrees"
    parser.add_argument("--engine", choices=("auto", "torch", "onnx"), default="auto", help=what)
    parser.add_argument(
        "--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:1, mps"
    )
    parser.add_argument("--half", action="store_true", help="compute in half precision (GPUs)")


def _embed(args: argparse.Namespace) -> None:
    import numpy as np

    from spatial_retrieval.features.extraction import describe_readable
    from spatial_retrieval.files import atomic_writer

    names = _photographs(args.folder)
    model = _describer(args, len(names))
    result = describe_readable(
        model,
        [args.folder / name for name in names],
        size=args.size,
        scales=args.scales,
        progress=sys.stderr.isatty(),
    )
    _set_aside({names[i]: reason for i, reason in result.failed.items()})
    if not result.kept:
        raise ValueError(f"{args.folder}: none of {len(names)} files could be read")
    kept = np.array([names[i] for i in result.kept])
    with atomic_writer(args.output) as file:
        np.savez(file, names=kept, descriptors=result.descriptors)
    print(f"{len(kept)} photographs described → {args.output}")


def _index(args: argparse.Namespace) -> None:
    from spatial_retrieval.index import DescriptorIndex
    from spatial_retrieval.indexing import IndexOptions, index_folder

    count = len(_photographs(args.folder))
    if args.verify:
        print(f"{len(DescriptorIndex.load(args.output, verify=True))} rows, every byte checked")
    name = args.model or DEFAULT_MODEL
    options = IndexOptions(args.size, args.scales, args.shard, args.replace, args.only_join)
    report = index_folder(
        args.folder,
        args.output,
        _describer(args, count),
        model_name=name,
        options=options,
        progress=sys.stderr.isatty(),
    )
    for note in report.notes:
        print(note, file=sys.stderr)
    _set_aside(report.failed, args.output / "set-aside.json")
    if report.index is None:
        i, n = args.shard
        print(f"{report.described} described, part {i}/{n} → {args.output}")
        return
    print(f"{report.described} described, {len(report.index)} in the index → {args.output}")
    index = _searched_by(DescriptorIndex.load(args.output), args.output, args.kind)
    if args.measure:
        _measure(index)


def _searched_by(index: Any, folder: Path, kind: str) -> Any:
    """Make the index on disk searched by a kind; a Milvus collection is filled with its rows."""
    from dataclasses import replace

    from spatial_retrieval.index import DescriptorIndex
    from spatial_retrieval.index.measure import set_engine
    from spatial_retrieval.index.milvus import fill_milvus

    if kind.startswith("milvus://"):
        return replace(index, engine=fill_milvus(kind, index.rows))
    set_engine(folder, kind)
    return DescriptorIndex.load(folder)


def _measure(index: Any) -> None:
    """Print what the index's way of searching misses, and how long it takes."""
    from spatial_retrieval.index.measure import held_out, measure

    found = measure(index, index.rows, held_out(index.rows))
    kind = "exact" if index.engine is None else str(index.engine)
    recall = " · ".join(f"recall@{k} {value:.3f}" for k, value in found.recall.items())
    times = f"{found.milliseconds:.2f} ms a query, exact {found.exact_milliseconds:.2f} ms"
    print(f"{kind}: {recall} · {times}")


def _search(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from spatial_retrieval.images import BoxError
    from spatial_retrieval.index.milvus import open_milvus
    from spatial_retrieval.searcher import open_index

    if not args.image.exists():
        raise CallError(f"{args.image}: no such photograph")
    if not args.index.is_dir():
        raise CallError(f"{args.index}: no such index; make one with: spatial-retrieval index")
    check_reranker(args.rerank)
    searcher = open_index(args.index, model=args.model)
    if args.milvus:
        searcher = replace(searcher, index=replace(searcher.index, engine=open_milvus(args.milvus)))
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


def _describer(args: argparse.Namespace, count: int) -> Any:
    """The model of a command that describes ``count`` photographs, as its options ask."""
    from spatial_retrieval.features.engine import with_engine

    model = open_model(args.model or DEFAULT_MODEL, args.device)
    if args.half:
        model = model.half()
    quick = args.engine == "auto" and count < _MANY  # finding out would take longer
    return model if quick else with_engine(model, args.engine)


def open_model(name: str, device: str = "auto") -> Any:
    """Load what ``--model`` names.

    Raises:
        CallError: if there is no such model.
    """
    from spatial_retrieval.models import load_model

    try:
        return load_model(name, device=device)
    except ValueError as error:
        raise CallError(f"--model: {error}") from error


def _set_aside(failed: dict[str, str], file: Path | None = None) -> None:
    """Name the first files that were set aside, how many there are, and where the list is."""
    from spatial_retrieval.files import printable

    for name, reason in list(failed.items())[:_SHOWN]:
        print(f"set aside {printable(name)}: {printable(reason)}", file=sys.stderr)
    if failed:
        where = "" if file is None else f"; all are in {printable(str(file))}"
        print(f"set aside: {len(failed)} files{where}", file=sys.stderr)
