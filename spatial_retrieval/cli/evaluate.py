"""``evaluate``: a model on ROxford, RParis, Twin Façades, or a folder of labelled photographs."""

import argparse
import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatial_retrieval.cli import CallError
from spatial_retrieval.cli.arguments import positive, scales
from spatial_retrieval.cli.retrieval import DEFAULT_MODEL, check_reranker, open_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatial_retrieval.evaluate.cards import ResultCard
    from spatial_retrieval.metrics.revisited import RevisitedScores

__all__ = ["add_parser"]

_REVISITED = ("roxford5k", "rparis6k")
_NO_JUNK = "none in this data set"


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("evaluate", help="score a model on a data set or a folder")
    parser.add_argument(
        "target",
        metavar="DATASET|FOLDER",
        help="roxford5k, rparis6k, twins, or a folder whose sub-folders are labels",
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"name or folder ({DEFAULT_MODEL})")
    parser.add_argument("--rerank", default="none", metavar="R", help="none, aqe, verify, …")
    parser.add_argument("--card", type=Path, metavar="FILE", help="write FILE.md and FILE.json")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where data sets are kept")
    parser.add_argument(
        "--size", type=positive, help="longest side, pixels (1024; folders 480; twins 448)"
    )
    parser.add_argument("--scales", type=scales, default=(1.0,), metavar="S,S…", help="e.g. 1,0.7")
    parser.add_argument("--no-query-crop", action="store_true", help="use whole query images")
    parser.add_argument("--distractors", action="store_true", help="add R1M to the database")
    parser.add_argument("--training-data", metavar="TEXT", help="what the model saw, for the card")
    parser.add_argument("--whitening-data", metavar="TEXT", help="what its whitening saw")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    _check(args)
    if args.target in _REVISITED:
        card = _revisited(args)
    elif args.target == "twins":
        card = _twins(args)
    else:
        card = _folder(args)
    if args.card is not None:
        page, data = card.save(args.card)
        print(f"card → {page}, {data}")


def _check(args: argparse.Namespace) -> None:
    if args.target not in (*_REVISITED, "twins") and not Path(args.target).is_dir():
        raise CallError(
            f"{args.target}: neither roxford5k, rparis6k or twins, nor a folder that is there"
        )
    for option, given in (
        ("--no-query-crop", args.no_query_crop),
        ("--distractors", args.distractors),
    ):
        if given and args.target not in _REVISITED:
            raise CallError(f"{option} is for roxford5k and rparis6k")
    check_reranker(args.rerank)


def _revisited(args: argparse.Namespace) -> "ResultCard":
    from spatial_retrieval.datasets.download import default_root
    from spatial_retrieval.datasets.revisited import (
        DatasetMissingError,
        load_distractors,
        open_revisited,
    )
    from spatial_retrieval.evaluate.runs import run_revisited

    root = args.root or default_root()
    try:
        images = open_revisited(args.target, root)
        distractors = load_distractors(root) if args.distractors else ()
    except DatasetMissingError as error:
        raise CallError(str(error)) from error
    size, model = args.size or 1024, open_model(args.model)
    run = run_revisited(
        model, images, size=size, scales=args.scales, crop=not args.no_query_crop,
        rerank=args.rerank, distractors=distractors, progress=sys.stderr.isatty(),
    )  # fmt: skip
    scores, intervals = _by_protocol(run.scores)
    crop = "whole query images" if args.no_query_crop else "cropped, at the scale of the database"
    print(f"{args.target} · {_method(args)} · queries {crop}")
    print(f"{'':8}{'E':>8}{'M':>8}{'H':>8}")
    for name in ("mAP", "mP@1", "mP@5", "mP@10"):
        print(f"{name:8}" + "".join(f"{_percent(scores[f'{name} {p}']):>8}" for p in "EMH"))
    database = len(images.database) + len(distractors)
    return _card(
        args, model, run.timing,
        dataset=args.target + ("+r1m" if distractors else ""), protocol="revisited (E, M, H)",
        scores=scores, intervals=intervals,
        query_crop=crop, ignored="removed before ranks are counted",
        size=size, queries=len(images.queries), database_images=database,
    )  # fmt: skip


def _by_protocol(
    found: "Mapping[str, RevisitedScores]",
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Scores by name, and the intervals of those that have one."""
    from spatial_retrieval.metrics.bootstrap import bootstrap_interval

    scores = {f"mAP {p}": protocol.map for p, protocol in found.items()}
    for k in (1, 5, 10):
        scores |= {f"mP@{k} {p}": protocol.mp_at[k] for p, protocol in found.items()}
    around = {f"mAP {p}": bootstrap_interval(s.ap_per_query) for p, s in found.items()}
    return scores, {n: (i.low, i.high) for n, i in around.items() if not math.isnan(i.low)}


def _folder(args: argparse.Namespace) -> "ResultCard":
    from spatial_retrieval.datasets.folders import list_images
    from spatial_retrieval.evaluate.folder import split_folder
    from spatial_retrieval.evaluate.runs import run_folder
    from spatial_retrieval.metrics.bootstrap import bootstrap_interval

    folder = Path(args.target)
    try:
        names = list_images(folder)
        split = split_folder(names)
    except ValueError as error:
        raise CallError(f"{folder}: {error}") from error
    size, model = args.size or 480, open_model(args.model)
    run = run_folder(
        model, [folder / name for name in names], split,
        size=size, scales=args.scales, rerank=args.rerank, progress=sys.stderr.isatty(),
    )  # fmt: skip
    found = run.scores
    interval = bootstrap_interval(found.ap_per_query, found.query_labels)
    scores = {"mAP": found.map, "macro mAP": found.macro_map}
    scores |= {f"mP@{k}": value for k, value in found.mp_at.items()}
    way = "leave-one-out" if split.leave_one_out else "query* files against the rest"
    asked, answering = len(split.queries), len(split.database)
    print(f"{folder} · {_method(args)} · {way}: {asked} queries, {answering} photographs")
    for name, value in scores.items():
        print(f"{name:10}{_percent(value):>8}")
    known = {} if math.isnan(interval.low) else {"mAP": (interval.low, interval.high)}
    return _card(
        args, model, run.timing, dataset=folder.resolve().name, protocol=way,
        scores=scores, intervals=known, query_crop="whole query images", ignored=_NO_JUNK,
        size=size, queries=asked, database_images=answering,
    )  # fmt: skip


def _twins(args: argparse.Namespace) -> "ResultCard":
    from spatial_retrieval.datasets import scale
    from spatial_retrieval.evaluate.runs import run_twins
    from spatial_retrieval.facades.data import twin_facades

    size, model = args.size or 448, open_model(args.model)
    landmarks, views = scale(60, 4), scale(10, 3)
    data = twin_facades("test", landmarks, views, size=size)
    run = run_twins(
        model, data, size=size, scales=args.scales, rerank=args.rerank,
        progress=sys.stderr.isatty(),
    )  # fmt: skip
    scores, photographs = run.scores, len(data)
    print("\n".join(scores.lines(_method(args))))
    if args.rerank != "none":
        gains = zip(("mAP", "twin accuracy"), scores.gain(run.first), strict=True)
        found = ", ".join(f"{name} {gain.signed()}" for name, gain in gains)
        ms = 1000 * run.timing.seconds_per_query
        print(f"\n{args.rerank} against the first search: {found}; {ms:.0f} ms/query")
    found = {f"mAP {level}": scores.map(level) for level in "EMH"}
    found = {"mAP": scores.map(), **found, "twin accuracy": scores.accuracy()}
    return _card(
        args, model, run.timing,
        dataset=f"Twin Façades test, {landmarks} landmarks × {views} views",
        protocol="leave-one-out; twin accuracy matched in difficulty",
        scores={name: i.value for name, i in found.items()},
        intervals={n: (i.low, i.high) for n, i in found.items() if not math.isnan(i.low)},
        query_crop="whole query images", ignored=_NO_JUNK,
        size=size, queries=photographs, database_images=photographs,
    )  # fmt: skip


def _card(args: argparse.Namespace, model: Any, timing: Any, **facts: Any) -> "ResultCard":
    from spatial_retrieval.evaluate.cards import ResultCard
    from spatial_retrieval.evaluate.published import landmark_overlap

    unstated = "not stated, see the model's card"
    training = args.training_data or (
        unstated if model.is_trained else "ImageNet-1k (backbone), nothing else"
    )
    whitening = "none"
    if model.is_whitened:
        learned = args.whitening_data or unstated
        whitening = f"{model.dim} dimensions; learned on: {learned}"
    return ResultCard(
        model=f"{args.model} ({model.fingerprint()[:12]})",
        scales=tuple(args.scales),
        rerank=args.rerank,
        whitening=whitening,
        training_data=training,
        landmark_overlap=landmark_overlap(training, facts["dataset"].removesuffix("+r1m")),
        seed=0,
        seconds_per_query=timing.seconds_per_query,
        seconds_per_image=timing.seconds_per_image,
        index_bytes=timing.index_bytes,
        command=_command(args),
        **facts,
    )


def _command(args: argparse.Namespace) -> str:
    """The call that gives this result again, every option spelled out."""
    words = ["spatial-retrieval", "evaluate", args.target, "--model", args.model]
    words += ["--rerank", args.rerank, "--scales", ",".join(f"{s:g}" for s in args.scales)]
    words += ["--size", str(args.size)] if args.size else []
    words += ["--no-query-crop"] if args.no_query_crop else []
    words += ["--distractors"] if args.distractors else []
    return shlex.join(words)


def _method(args: argparse.Namespace) -> str:
    return args.model if args.rerank == "none" else f"{args.model} + {args.rerank}"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f}"
