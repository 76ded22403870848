"""What re-ranking adds, and what it costs.

    python benchmarks/reranking.py quality [twins|FOLDER] [--rerank NAME …] [--models NAME …]
    python benchmarks/reranking.py time [--sizes 1000 10000 100000 1000000]

``quality`` prints mAP and milliseconds per query of every re-ranker on one data set, against the
initial retrieval alone, with 95 % intervals; other embedded models follow, each alone.
A folder's labels are its sub-folders (``query*`` files ask, or everyone is left out once).
With ``--results FILE.json`` finished rows are kept: a run that was cut short goes on, and a model
whose weights have changed is all that is asked again.
``time`` prints the price of each stage as the database grows: the shortlist is real photographs,
the other vectors are synthetic. Its last column is the published one for a million images.

Milliseconds are those of the wall and, in brackets, of the processor: on a busy machine the second
is the one to compare. Local features are extracted beforehand and timed apart.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from kept_rows import keep_row, known_rows

from spatial_retrieval import DescriptorIndex, describe, embedded_models, list_images, load_model
from spatial_retrieval.evaluate.folder import FolderSplit, split_folder
from spatial_retrieval.evaluate.reranking import (
    PUBLISHED_SECONDS,
    Reranked,
    rerank_timed,
    reranking_table,
)
from spatial_retrieval.facades.data import twin_facades
from spatial_retrieval.metrics.average_precision import labelled_ap
from spatial_retrieval.models import RetrievalModel
from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank import FeatureCache, RerankContext, by_name, sift
from spatial_retrieval.rerank.order import without_self

QUALITY = ("none", "aqe", "superglobal", "verify", "verify-learned", "verify-cells", "hypergraph")
TIME = ("aqe", "superglobal", "verify", "hypergraph")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    quality = commands.add_parser("quality", help="mAP and ms/query of each re-ranker")
    quality.add_argument("data", nargs="?", default="twins", metavar="twins|FOLDER")
    quality.add_argument("--rerank", nargs="+", default=list(QUALITY), metavar="NAME")
    quality.add_argument("--models", nargs="*", metavar="NAME", help="compared without re-ranking")
    quality.add_argument("--base", default="lite0-gem", help="the model that is re-ranked")
    quality.add_argument("--queries", type=int, help="ask this many, evenly spread")
    quality.add_argument("--size", type=int, default=480)
    quality.add_argument("--cache", type=Path, help="folder that keeps local features")
    quality.add_argument("--results", type=Path, metavar="FILE.json", help="keeps finished rows")
    quality.set_defaults(run=_quality)
    time = commands.add_parser("time", help="the price of each stage as the database grows")
    time.add_argument("--sizes", nargs="+", type=int, default=[10**3, 10**4, 10**5, 10**6])
    time.add_argument("--queries", type=int, default=5)
    time.add_argument("--landmarks", type=int, default=60, help="of Twin Façades, 10 views each")
    time.add_argument("--cache", type=Path, help="folder that keeps local features")
    time.set_defaults(run=_time)
    args = parser.parse_args()
    args.run(args)


# -------------------------------------------------------------------------------- quality


def _quality(args: argparse.Namespace) -> None:
    folder = twin_facades("test").images if args.data == "twins" else Path(args.data)
    names = list_images(folder)
    split = split_folder(names)
    asked = np.arange(len(split.queries))
    if args.queries and args.queries < len(asked):
        asked = np.linspace(0, len(asked) - 1, args.queries).round().astype(int)
    others = [name for name in embedded_models() if name != args.base]
    cache = FeatureCache(args.cache, capacity=4 * len(names))
    rows: list[Reranked] = []
    for name in [args.base, *(others if args.models is None else args.models)]:
        model = load_model(name)
        about = f"{args.data} {len(asked)}/{len(names)} {args.size}px {name} {model.fingerprint()}"
        methods = dict.fromkeys(["none", *args.rerank] if name == args.base else ["none"])
        known = known_rows(args.results, about)
        if set(methods) - set(known):
            ranking, context, cost = _search(model, folder, names, split, asked, args.size)
            context = replace(context, features=cache)
        for method in methods:
            row = known.get(method)
            if row is None:
                row = _row(method, ranking, context, _scorer(split, asked), cost)
            if row is not None:
                keep_row(args.results, about, row)
                rows.append(row if name == args.base else replace(row, name=f"{name} alone"))
    labels = split.labels[split.queries[asked]]
    pairs = labels // 2 if args.data == "twins" else labels  # a landmark and its twin: one draw
    print(f"{args.data}: {len(asked)} queries, {len(split.database)} photographs, {args.base}")
    print(reranking_table(rows, pairs))


def _search(
    model: RetrievalModel,
    folder: Path,
    names: list[str],
    split: FolderSplit,
    asked: np.ndarray,
    size: int,
) -> tuple[Ranking, RerankContext, tuple[float, float]]:
    """The initial retrieval, what re-rankers may see of it, and its milliseconds per query."""
    paths = [folder / name for name in names]
    vectors = describe(model, paths, size=size)
    queries, database = split.queries[asked], split.database
    index = DescriptorIndex.build(vectors[database], [names[i] for i in database])
    index.search(vectors[:1], 1)  # FAISS copies the vectors on first use
    seconds, ranking = _timed(lambda: index.search(vectors[queries], len(index)))
    context = RerankContext(
        queries=vectors[queries],
        database=index,
        query_images=[paths[i] for i in queries],
        database_images=[paths[i] for i in database],
        model=model,
        own=asked if split.leave_one_out else None,
    )
    if split.leave_one_out:
        ranking = without_self(ranking, asked)
    return ranking, context, (1000 * seconds[0] / len(asked), 1000 * seconds[1] / len(asked))


def _row(
    method: str,
    ranking: Ranking,
    context: RerankContext,
    score: Callable[[Ranking], np.ndarray],
    first: tuple[float, float],
) -> Reranked | None:
    try:
        row = rerank_timed(method, ranking, context.fresh(), score)
    except ImportError as error:
        print(f"{method} is left out: {error}")
        return None
    if method == "none":
        row = replace(row, milliseconds=first[0], cpu_milliseconds=first[1])
    print(
        f"{method}: mAP {100 * np.nanmean(row.ap):.1f}, {row.milliseconds:.1f} ms/query and "
        f"{row.features_milliseconds:.1f} ms/query for local features",
        flush=True,
    )
    return row


def _scorer(split: FolderSplit, asked: np.ndarray) -> Callable[[Ranking], np.ndarray]:
    return partial(
        labelled_ap,
        query_labels=split.labels[split.queries[asked]],
        database_labels=split.labels[split.database],
        own=asked if split.leave_one_out else None,
    )


# ----------------------------------------------------------------------------------- time


def _time(args: argparse.Namespace) -> None:
    data = twin_facades("test", landmarks=args.landmarks)
    real = describe(load_model("lite0-gem"), data.paths)
    asked = np.linspace(0, len(data) - 1, args.queries).round().astype(int)
    cache = FeatureCache(args.cache, capacity=2 * len(data))
    table: dict[str, list[tuple[float, float]]] = {}
    for size in args.sizes:
        for stage, seconds in _stages(real, data.paths, asked, size, cache).items():
            table.setdefault(stage, []).append(seconds)
        print(f"{size} vectors done", flush=True)
    print(_time_table(table, args.sizes))


def _stages(
    real: np.ndarray, paths: Sequence[Path], asked: np.ndarray, size: int, cache: FeatureCache
) -> dict[str, tuple[float, float]]:
    """Seconds per query (wall, processor) of each stage, database of ``size`` vectors."""
    index = DescriptorIndex.build(
        np.concatenate([real, _distractors(real[asked], size - len(real))])[:size],
        [str(i) for i in range(size)],
    )
    index.search(real[asked], 1)  # FAISS copies the vectors on first use
    first, ranking = _timed(lambda: index.search(real[asked], min(1000, size)))
    stages = {"initial retrieval": first}
    context = RerankContext(
        queries=real[asked],
        database=index,
        query_images=[paths[i] for i in asked],
        database_images=paths,
        features=cache,
    )
    shortlist = np.unique(ranking.ids[:, :100])
    stages["neighbour lists, once"], _ = _timed(lambda: context.lists().of(shortlist))
    stages["uncertainty"], _ = _timed(lambda: context.uncertainty(ranking))
    for image in np.unique(np.concatenate([shortlist, asked])):
        cache.get(sift(), paths[image])  # features are at hand, matches are not
    for method in TIME:
        ready = replace(context, _verifiers={})  # lists are kept: they are the database's own
        stages[method], _ = _timed(lambda m=method, c=ready: by_name(m)(ranking, c))
    return {stage: (wall / len(asked), cpu / len(asked)) for stage, (wall, cpu) in stages.items()}


def _distractors(queries: np.ndarray, count: int) -> np.ndarray:
    """Unit vectors that no query finds before a real photograph: orthogonal to all of them."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((max(count, 0), queries.shape[1]), dtype=np.float32)
    basis, _ = np.linalg.qr(queries.T)  # (D, Q)
    for start in range(0, len(rows), 65536):
        part = rows[start : start + 65536]
        part -= part @ basis @ basis.T
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return rows


def _time_table(table: dict[str, list[tuple[float, float]]], sizes: Sequence[int]) -> str:
    lines = [
        "ms/query, wall (processor)",
        "| stage | " + " | ".join(f"{size:,}" for size in sizes) + " | published, 10⁶ |",
        "|---" * (len(sizes) + 2) + "|",
    ]
    for stage, cells in table.items():
        published = PUBLISHED_SECONDS.get(stage)
        last = f"{1000 * published:g}" if published is not None else ""
        found = " | ".join(f"{1000 * wall:.2f} ({1000 * cpu:.2f})" for wall, cpu in cells)
        lines.append(f"| {stage} | {found} | {last} |")
    return "\n".join(lines)


def _timed(run: Callable[[], object]) -> tuple[tuple[float, float], Any]:
    start, cpu_start = perf_counter(), process_time()
    found = run()
    return (perf_counter() - start, process_time() - cpu_start), found


if __name__ == "__main__":
    main()
