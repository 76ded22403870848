"""From photographs to pixel scores: rank as on ROxford, localize in each labelled hit, score."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spatial_retrieval.datasets.pixel import Pair, Polygons
from spatial_retrieval.datasets.revisited import RevisitedImages
from spatial_retrieval.evaluate.runs import Timing, run_revisited
from spatial_retrieval.features.extraction import feature_maps
from spatial_retrieval.images import load_image
from spatial_retrieval.localize import (
    Query,
    find_in_photographs,
    fine_layer,
    prepare_photograph,
)
from spatial_retrieval.metrics.pixel import PixelScores, pixel_scores
from spatial_retrieval.models import RetrievalModel
from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank import Reranker

__all__ = ["PixelRun", "localize_pairs", "run_pixel"]


@dataclass(frozen=True, slots=True, eq=False)
class PixelRun:
    """Scores by protocol ("M", "H"), the ranking and the regions they are of, and the cost."""

    scores: dict[str, PixelScores]
    ranking: Ranking
    found: Mapping[Pair, np.ndarray]
    timing: Timing


def run_pixel(
    model: RetrievalModel,
    images: RevisitedImages,
    labels: Mapping[Pair, Polygons],
    *,
    size: int = 1024,
    rerank: Reranker | str = "none",
    found: Mapping[Pair, np.ndarray] | None = None,
) -> PixelRun:
    """Evaluate a model on PROxford or PRParis.

    Args:
        model: describes the photographs and localizes in them.
        images: from :func:`~spatial_retrieval.datasets.revisited.open_revisited`.
        labels: from :func:`~spatial_retrieval.datasets.pixel.load_pixel_labels`.
        size: longest side of a database image in pixels.
        rerank: a re-ranker, or its name, see :mod:`spatial_retrieval.rerank`.
        found: regions of another method, see
            :func:`~spatial_retrieval.datasets.pixel.load_found_regions`; None: localize here.

    Raises:
        ImageError: if a photograph cannot be read.
        ValueError: if the re-ranker is unknown.
    """
    run = run_revisited(model, images, size=size, rerank=rerank)
    if found is None:
        found = localize_pairs(model, images, labels, size=size)
    truth, labelled = images.ground_truth, {query for query, _ in labels}
    unlabelled = [q for q in range(len(truth)) if q not in labelled]
    scores = {
        protocol: pixel_scores(run.ranking, found, labels, truth, protocol, unlabelled=unlabelled)
        for protocol in ("M", "H")
    }
    return PixelRun(scores, run.ranking, found, run.timing)


def localize_pairs(
    model: RetrievalModel, images: RevisitedImages, pairs: Iterable[Pair], *, size: int = 1024
) -> dict[Pair, np.ndarray]:
    """Where each pair's database image shows what is in its query's box.

    Args:
        model: its finest suitable layer is used.
        images: a revisited data set.
        pairs: (query, database image).
        size: longest side of the photographs in pixels.

    Returns:
        (query, image) → (n, 2) outline of the best region, pixels (x, y) of the database image;
        pairs without a region are left out.
    """
    by_image: dict[int, list[int]] = {}
    for query, image in sorted(pairs):
        by_image.setdefault(image, []).append(query)
    prepared: dict[int, Query] = {}
    found = {}
    for image, queries in by_image.items():
        new = [q for q in queries if q not in prepared]
        prepared |= {q: _prepared(model, images, q, size) for q in new}
        outlines = _outlines(model, images, image, [prepared[q] for q in queries], size)
        found |= {(q, image): o for q, o in zip(queries, outlines, strict=True) if o is not None}
    return found


def _prepared(model: RetrievalModel, images: RevisitedImages, query: int, size: int) -> Query:
    photograph = load_image(images.queries[query])
    layer = fine_layer(model.backbone)
    x = feature_maps(model, [photograph], size=size, layer=layer)[0]
    box = tuple(map(float, images.ground_truth.boxes[query]))
    return prepare_photograph(x, photograph.size, box=box)


def _outlines(
    model: RetrievalModel,
    images: RevisitedImages,
    image: int,
    queries: Sequence[Query],
    size: int,
) -> list[np.ndarray | None]:
    """Of each query the best region's largest outline in one database image, (n, 2) or None."""
    photograph = load_image(images.database[image])
    x = feature_maps(model, [photograph], size=size, layer=fine_layer(model.backbone))[0]
    hits = [find_in_photographs(query, [x], [photograph], limit=1)[0] for query in queries]
    outlines = [hit.regions[0].polygons() if hit.regions else [] for hit in hits]
    return [found[0] if found else None for found in outlines]
