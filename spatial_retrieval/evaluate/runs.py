"""From photographs to scores: describe, search, re-rank, score, with the time that each took.

Bars show the progress where the standard error is a terminal.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from spatial_retrieval.datasets.revisited import RevisitedImages
from spatial_retrieval.evaluate.folder import FolderScores, FolderSplit, folder_scores
from spatial_retrieval.facades.baselines import baseline_scores
from spatial_retrieval.facades.data import TwinFacades
from spatial_retrieval.facades.scores import TwinScores, evaluate_twins, score_ranking
from spatial_retrieval.features.extraction import describe
from spatial_retrieval.images import Box
from spatial_retrieval.index import DescriptorIndex
from spatial_retrieval.metrics.revisited import PROTOCOLS, RevisitedScores, revisited_scores
from spatial_retrieval.models import RetrievalModel
from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank import FeatureCache, RerankContext, Reranker, resolve
from spatial_retrieval.rerank.order import without_self

__all__ = [
    "FolderRun",
    "RevisitedRun",
    "Timing",
    "TwinRun",
    "run_folder",
    "run_revisited",
    "run_twins",
]


@dataclass(frozen=True, slots=True)
class Timing:
    """What a run cost.

    Attributes:
        seconds_per_image: decoding and describing one photograph.
        seconds_per_query: searching and re-ranking for one described query.
        index_bytes: memory of the database's descriptors.
    """

    seconds_per_image: float
    seconds_per_query: float
    index_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class RevisitedRun:
    """Scores by protocol ("E", "M", "H"), the ranking they are of, and its cost."""

    scores: dict[str, RevisitedScores]
    ranking: Ranking
    timing: Timing


@dataclass(frozen=True, slots=True, eq=False)
class FolderRun:
    """Scores of a folder and their cost."""

    scores: FolderScores
    timing: Timing


@dataclass(frozen=True, slots=True, eq=False)
class TwinRun:
    """Scores on Twin Façades, those of the initial retrieval, and the cost."""

    scores: TwinScores
    first: TwinScores
    timing: Timing


def run_revisited(
    model: RetrievalModel,
    images: RevisitedImages,
    *,
    size: int = 1024,
    scales: Sequence[float] = (1.0,),
    crop: bool = True,
    rerank: Reranker | str = "none",
) -> RevisitedRun:
    """Evaluate a model on ROxford or RParis.

    Args:
        model: what describes the photographs.
        images: from :func:`~spatial_retrieval.datasets.revisited.open_revisited`; database images
            beyond those of the ground truth are distractors.
        size: longest side of a database image; 1024 is the protocol.
        scales: factors whose descriptors are averaged.
        crop: cut queries to their boxes, as the protocol asks, at the database's scale.
        rerank: a re-ranker, or its name, see :mod:`spatial_retrieval.rerank`.

    Raises:
        ImageError: if a photograph cannot be read.
        ValueError: if the re-ranker is unknown.
    """
    reranker = resolve(rerank)
    truth = images.ground_truth
    boxes = [tuple(map(float, box)) for box in truth.boxes] if crop else None
    start = perf_counter()
    rows = _describe(model, images.database, size, scales)
    queries = _describe(model, images.queries, size, scales, boxes=boxes)
    described = perf_counter()
    index = DescriptorIndex.build(rows, [str(i) for i in range(len(rows))])
    index.search(queries[:1], 1)  # builds what only the first call builds
    context = RerankContext(
        queries=queries,
        database=rows,
        query_images=images.queries,
        database_images=images.database,
        query_boxes=boxes,
        model=model,
        features=FeatureCache.kept(),
    )
    built = perf_counter()
    ranking = reranker(index.search(queries, len(index)), context)
    searched = perf_counter()
    scores = {protocol: revisited_scores(ranking, truth, protocol) for protocol in PROTOCOLS}
    per_image = (described - start) / (len(rows) + len(queries))
    timing = Timing(per_image, (searched - built) / len(queries), rows.nbytes)
    return RevisitedRun(scores, ranking, timing)


def run_folder(
    model: RetrievalModel,
    paths: Sequence[Path],
    split: FolderSplit,
    *,
    size: int = 480,
    scales: Sequence[float] = (1.0,),
    rerank: Reranker | str = "none",
) -> FolderRun:
    """Evaluate a model on a folder of labelled photographs.

    Args:
        paths: (N,) photographs, in the order of the names that were split.
        split: from :func:`~spatial_retrieval.evaluate.folder.split_folder`.

    The other arguments and errors are those of :func:`run_revisited`.
    """
    reranker = resolve(rerank)
    start = perf_counter()
    rows = _describe(model, paths, size, scales)
    described = perf_counter()
    database, features = [paths[i] for i in split.database], FeatureCache.kept()

    def reranked(ranking: Ranking, chosen: np.ndarray) -> Ranking:
        context = RerankContext(
            queries=rows[split.queries[chosen]],
            database=rows[split.database],
            query_images=[paths[i] for i in split.queries[chosen]],
            database_images=database,
            model=model,
            features=features,
            own=chosen if split.leave_one_out else None,
        )
        return reranker(ranking, context)

    scores = folder_scores(rows, split, rerank=reranked)
    searched = perf_counter()
    timing = Timing(
        (described - start) / len(paths),
        (searched - described) / len(split.queries),
        rows[split.database].nbytes,
    )
    return FolderRun(scores, timing)


def run_twins(
    model: RetrievalModel,
    data: TwinFacades,
    *,
    size: int = 448,
    scales: Sequence[float] = (1.0,),
    rerank: Reranker | str = "none",
    baselines: bool = True,
) -> TwinRun:
    """Evaluate a model on Twin Façades, each photograph once the query, all others the database.

    What a re-ranker is scored by is its order: twin accuracy is then the share of triplets whose
    positive comes before the twin.

    Args:
        data: from :func:`~spatial_retrieval.facades.data.twin_facades`.
        baselines: score a colour histogram, a thumbnail and the oracle that undoes the true
            perspective too: what statistics, layout and full knowledge of geometry reach.

    The other arguments and errors are those of :func:`run_revisited`.
    """
    reranker = resolve(rerank)
    everyone = np.arange(len(data))
    start = perf_counter()
    rows = _describe(model, data.paths, size, scales)
    described = perf_counter()
    index = DescriptorIndex.build(rows, [str(i) for i in everyone])
    context = RerankContext(
        queries=rows,
        database=rows,
        query_images=data.paths,
        database_images=data.paths,
        model=model,
        features=FeatureCache.kept(),
        own=everyone,
    )
    ranking = reranker(without_self(index.search(rows, len(data)), everyone), context)
    searched = perf_counter()
    scores = first = evaluate_twins(rows, data)
    others = {}
    if rerank != "none":
        scores, others = score_ranking(ranking, data), {"initial retrieval": first}
    if baselines:
        others |= baseline_scores(data, progress=sys.stderr.isatty())
    per_image, per_query = (described - start) / len(data), (searched - described) / len(data)
    timing = Timing(per_image, per_query, rows.nbytes)
    return TwinRun(replace(scores, baselines=others), first, timing)


def _describe(
    model: RetrievalModel,
    images: Sequence[Path],
    size: int,
    scales: Sequence[float],
    *,
    boxes: Sequence[Box] | None = None,
) -> np.ndarray:
    """(N, D) unit rows."""
    bar = sys.stderr.isatty()
    return describe(model, images, boxes=boxes, size=size, scales=scales, progress=bar)
