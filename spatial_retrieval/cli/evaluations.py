"""What ``evaluate`` does for each kind of data set: run, print, and fill a result card."""

import argparse
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spatial_retrieval.cli import CallError
from spatial_retrieval.cli.cards import card_of, method_of
from spatial_retrieval.cli.retrieval import open_model
from spatial_retrieval.datasets.download import default_root
from spatial_retrieval.datasets.revisited import (
    DatasetMissingError,
    RevisitedImages,
    load_distractors,
    open_revisited,
)
from spatial_retrieval.evaluate.cards import ResultCard
from spatial_retrieval.metrics.bootstrap import Interval, bootstrap_interval
from spatial_retrieval.metrics.revisited import RevisitedScores

__all__ = ["folder", "pixel", "revisited", "twins"]

_NO_JUNK = "none in this data set"
_REMOVED = "removed before ranks are counted"


def revisited(args: argparse.Namespace) -> ResultCard:
    """ROxford or RParis, by the revisited protocol."""
    from spatial_retrieval.evaluate.runs import run_revisited

    images, size = _images(args, args.target), args.size or 1024
    model, crop = open_model(args.model), not args.no_query_crop
    run = run_revisited(model, images, size=size, scales=args.scales, crop=crop, rerank=args.rerank)
    scores, intervals = _by_protocol(run.scores)
    cropped = "cropped, at the scale of the database" if crop else "whole query images"
    print(f"{args.target} · {method_of(args)} · queries {cropped}")
    _table(scores, "EMH", ("mAP", "mP@1", "mP@5", "mP@10"))
    return card_of(
        args,
        model,
        run.timing,
        dataset=args.target + ("+r1m" if args.distractors else ""),
        protocol="revisited (E, M, H)",
        scores=scores,
        intervals=intervals,
        query_crop=cropped,
        ignored=_REMOVED,
        size=size,
        queries=len(images.queries),
        database_images=len(images.database),
    )


def pixel(args: argparse.Namespace, name: str) -> ResultCard:
    """PROxford or PRParis: is the right image found, and the object in it?"""
    from spatial_retrieval.datasets.pixel import load_found_regions, load_pixel_labels
    from spatial_retrieval.evaluate.pixel import run_pixel

    images, size = _images(args, name), args.size or 1024
    try:
        labels = load_pixel_labels(args.root or default_root(), name)
    except DatasetMissingError as error:
        raise CallError(str(error)) from error
    found = None if args.regions is None else load_found_regions(args.regions)
    model = open_model(args.model)
    run = run_pixel(model, images, labels, size=size, rerank=args.rerank, found=found)
    scores = _pixel_scores(run.scores)
    print(f"{args.target} · {method_of(args)} · {len(run.found)} of {len(labels)} regions found")
    _table(scores, "MH", dict.fromkeys(name[:-2] for name in scores))
    return card_of(
        args,
        model,
        run.timing,
        dataset=args.target,
        photographs=name,
        protocol="pixel retrieval (M, H), mAP@50:5:95 by both rules",
        scores=scores,
        intervals={},
        query_crop="cropped, at the scale of the database",
        ignored=_REMOVED,
        size=size,
        queries=len(images.queries),
        database_images=len(images.database),
    )


def folder(args: argparse.Namespace) -> ResultCard:
    """A folder whose sub-folders are labels."""
    from spatial_retrieval.datasets.folders import list_images
    from spatial_retrieval.evaluate.folder import split_folder
    from spatial_retrieval.evaluate.runs import run_folder

    root = Path(args.target)
    try:
        names = list_images(root)
        split = split_folder(names)
    except ValueError as error:
        raise CallError(f"{root}: {error}") from error
    size, model = args.size or 480, open_model(args.model)
    paths = [root / name for name in names]
    run = run_folder(model, paths, split, size=size, scales=args.scales, rerank=args.rerank)
    found = run.scores
    scores = {"mAP": found.map, "macro mAP": found.macro_map}
    scores |= {f"mP@{k}": value for k, value in found.mp_at.items()}
    protocol = "leave-one-out" if split.leave_one_out else "query* files against the rest"
    queries, database = len(split.queries), len(split.database)
    print(f"{root} · {method_of(args)} · {protocol}: {queries} queries, {database} photographs")
    for name, value in scores.items():
        print(f"{name:10}{_percent(value):>8}")
    return card_of(
        args,
        model,
        run.timing,
        dataset=root.resolve().name,
        protocol=protocol,
        scores=scores,
        intervals=_ends({"mAP": bootstrap_interval(found.ap_per_query, found.query_labels)}),
        query_crop="whole query images",
        ignored=_NO_JUNK,
        size=size,
        queries=queries,
        database_images=database,
    )


def twins(args: argparse.Namespace) -> ResultCard:
    """Twin Façades: each rendered photograph is once the query."""
    from spatial_retrieval.datasets import scale
    from spatial_retrieval.evaluate.runs import TwinRun, run_twins
    from spatial_retrieval.facades.data import twin_facades

    size, model = args.size or 448, open_model(args.model)
    landmarks, views = scale(60, 4), scale(10, 3)
    data = twin_facades("test", landmarks, views, size=size)
    run: TwinRun = run_twins(model, data, size=size, scales=args.scales, rerank=args.rerank)
    scores = run.scores
    print("\n".join(scores.lines(method_of(args))))
    if args.rerank != "none":
        gains = zip(("mAP", "twin accuracy"), scores.gain(run.first), strict=True)
        found = ", ".join(f"{name} {gain.signed()}" for name, gain in gains)
        ms = 1000 * run.timing.seconds_per_query
        print(f"\n{args.rerank} against the initial retrieval: {found}; {ms:.0f} ms/query")
    levels = {f"mAP {level}": scores.map(level) for level in "EMH"}
    intervals = {"mAP": scores.map(), **levels, "twin accuracy": scores.accuracy()}
    return card_of(
        args,
        model,
        run.timing,
        dataset=f"Twin Façades test, {landmarks} landmarks × {views} views",
        protocol="leave-one-out; twin accuracy matched in difficulty",
        scores={name: interval.value for name, interval in intervals.items()},
        intervals=_ends(intervals),
        query_crop="whole query images",
        ignored=_NO_JUNK,
        size=size,
        queries=len(data),
        database_images=len(data),
    )


def _images(args: argparse.Namespace, name: str) -> RevisitedImages:
    root = args.root or default_root()
    try:
        images = open_revisited(name, root)
        distractors = load_distractors(root) if args.distractors else ()
    except DatasetMissingError as error:
        raise CallError(str(error)) from error
    return replace(images, database=(*images.database, *distractors))


def _by_protocol(
    found: Mapping[str, RevisitedScores],
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Scores by name, and the intervals of those that have one."""
    scores = {f"mAP {p}": protocol.map for p, protocol in found.items()}
    for k in (1, 5, 10):
        scores |= {f"mP@{k} {p}": protocol.mp_at[k] for p, protocol in found.items()}
    return scores, _ends({f"mAP {p}": bootstrap_interval(s.ap_per_query) for p, s in found.items()})


def _pixel_scores(found: Mapping[str, Any]) -> dict[str, float]:
    """Scores by name, "mAP box M"."""
    kinds = {
        "mAP": "recall_map",
        "mAP (official)": "official_map",
        "mIoU": "miou",
        "mIoU (official)": "official_miou",
    }
    return {
        f"{name} {kind} {protocol}": getattr(scores, field)[kind]
        for name, field in kinds.items()
        for kind in ("box", "mask")
        for protocol, scores in found.items()
    }


def _ends(intervals: Mapping[str, Interval]) -> dict[str, tuple[float, float]]:
    return {n: (i.low, i.high) for n, i in intervals.items() if not math.isnan(i.low)}


def _table(scores: Mapping[str, float], protocols: str, names: Any) -> None:
    names = list(names)
    width = max(map(len, names)) + 2
    print(f"{'':{width}}" + "".join(f"{p:>8}" for p in protocols))
    for name in names:
        row = (_percent(scores[f"{name} {p}"]) for p in protocols)
        print(f"{name:{width}}" + "".join(f"{value:>8}" for value in row))


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f}"
