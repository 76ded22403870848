r"""Pixel retrieval: is the right image found, and the object in it?

At a threshold t a hit (query, image) counts as localized when its IoU is *above* t. With
:math:`\mathrm{AP}_t` the average precision of `revisited`, where only localized positives are
positive and the others stay in the ranking as wrong hits,

.. math:: \mathrm{mAP@50{:}5{:}95} = \tfrac1{10}
          \sum_{t \in \{.50, .55, …, .95\}} \operatorname{mean}_q \mathrm{AP}_t(q).

Two rules differ in what AP divides by and in who is in the mean:

official (what the published numbers were made with)
    AP divides by the number of *localized* positives, so localizing nothing but the first hit
    scores as well as localizing all. Queries without a localized positive leave the mean. The two
    queries that have no pixel labels (56 and 63 of ROxford, 57 and 59 of RParis) score 0 and stay.
    The published code does this for boxes only.
recall (what the text says)
    AP divides by *all* positives; a query without a localized positive scores 0; the two queries
    without labels are left out.

The mean IoU of hits has such a pair of rules as well: the official code counts an empty hit
as 0 for a hard image and skips it for an easy one; here it is 0 for both.

Source: An et al., ICCV 2023, and the evaluation code published with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from spatial_retrieval.datasets.pixel import Pair, Polygons, polygon_mask
from spatial_retrieval.datasets.revisited import RevisitedGroundTruth
from spatial_retrieval.metrics.average_precision import average_precision
from spatial_retrieval.metrics.localization import box_iou, mask_iou
from spatial_retrieval.metrics.revisited import Protocol, protocol_split
from spatial_retrieval.ranking import Ranking

__all__ = [
    "THRESHOLDS",
    "PixelScores",
    "mean_pair_iou",
    "pair_ious",
    "pixel_map",
    "pixel_map_curve",
    "pixel_scores",
]

Rule = Literal["official", "recall"]
THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))


@dataclass(frozen=True, slots=True)
class PixelScores:
    """Scores of one ranking with its regions under one protocol; each has "box" and "mask".

    Attributes:
        official_map: mAP@50:5:95 by the official rule.
        recall_map: mAP@50:5:95 that divides by all positives.
        official_miou: mean IoU of hits by the official rule.
        miou: mean IoU of hits, an empty hit counting as 0.
    """

    official_map: dict[str, float]
    recall_map: dict[str, float]
    official_miou: dict[str, float]
    miou: dict[str, float]


def pixel_scores(
    ids: np.ndarray | Ranking,
    found: Mapping[Pair, np.ndarray],
    labels: Mapping[Pair, Polygons],
    ground_truth: RevisitedGroundTruth,
    protocol: Protocol,
    *,
    unlabelled: Sequence[int] = (),
) -> PixelScores:
    """Score a ranking and the regions that were found in its images.

    Args:
        ids: (Q, K) database ids, best first.
        found: (query, image) → (n, 2) boundary points (x, y).
        labels: (query, image) → polygons of the object.
        ground_truth: which images are positives of which query.
        protocol: "M" or "H" as published; "E" works too.
        unlabelled: queries that have no pixel labels.

    Raises:
        ValueError: as :func:`~spatial_retrieval.metrics.revisited.revisited_scores`.
    """
    both = {p: pair_ious(found[p], labels[p]) for p in found if p in labels}
    kinds = {kind: {p: v[i] for p, v in both.items()} for i, kind in enumerate(("box", "mask"))}

    def maps(rule: Rule) -> dict[str, float]:
        return {
            kind: pixel_map(ids, ious, ground_truth, protocol, rule=rule, unlabelled=unlabelled)
            for kind, ious in kinds.items()
        }

    def means(rule: Rule) -> dict[str, float]:
        return {
            kind: mean_pair_iou(ious, ground_truth, protocol, rule=rule)
            for kind, ious in kinds.items()
        }

    return PixelScores(maps("official"), maps("recall"), means("official"), means("recall"))


def pair_ious(found: np.ndarray, polygons: Polygons) -> tuple[float, float]:
    """IoU of the boxes and of the masks of a found boundary (n, 2) and the true polygons.

    As the official code measures it: coordinates are cut to whole pixels, a box includes its last
    pixel, and the square canvas ends one pixel before the largest coordinate of either.
    """
    found, truth = np.asarray(found).astype(int), np.concatenate(polygons).astype(int)
    side = int(max(found.max(), truth.max(), 0))
    box = box_iou(_inclusive_box(found, side), _inclusive_box(truth, side))
    drawn = polygon_mask([found], (side, side)), polygon_mask(polygons, (side, side))
    return float(box), float(mask_iou(*drawn))


def pixel_map(
    ids: np.ndarray | Ranking,
    ious: Mapping[Pair, float],
    ground_truth: RevisitedGroundTruth,
    protocol: Protocol,
    *,
    rule: Rule = "recall",
    unlabelled: Sequence[int] = (),
) -> float:
    """mAP@50:5:95 from one IoU for each hit (query, image); a pair that is missing has 0.

    Raises:
        ValueError: if the shape of ``ids``, the protocol or the rule is wrong.
    """
    curve = pixel_map_curve(ids, ious, ground_truth, protocol, rule=rule, unlabelled=unlabelled)
    return float(curve.mean())


def pixel_map_curve(
    ids: np.ndarray | Ranking,
    ious: Mapping[Pair, float],
    ground_truth: RevisitedGroundTruth,
    protocol: Protocol,
    *,
    rule: Rule = "recall",
    unlabelled: Sequence[int] = (),
) -> np.ndarray:
    """mAP at each of ``THRESHOLDS``, (10,); arguments and errors are those of `pixel_map`."""
    rows = ids.ids if isinstance(ids, Ranking) else np.asarray(ids)
    if rows.ndim != 2 or len(rows) != len(ground_truth):
        raise ValueError(f"expected ids of shape ({len(ground_truth)}, K), got {rows.shape}")
    _check(rule)
    positives, ignored = protocol_split(ground_truth, protocol)
    queries = [q for q in range(len(rows)) if q not in unlabelled]
    aps = np.full((len(queries), len(THRESHOLDS)), np.nan)
    for row, q in enumerate(queries):
        overlap = np.array([ious.get((q, int(i)), 0.0) for i in positives[q]])
        localized = [positives[q][overlap > threshold] for threshold in THRESHOLDS]
        hits = np.array([np.isin(rows[q], ids_of) for ids_of in localized])  # (10, K)
        found = [len(ids_of) for ids_of in localized]
        total = found if rule == "official" else [len(positives[q])] * len(found)
        aps[row] = average_precision(hits, total, ignored=np.isin(rows[q], ignored[q]))
    if not any(map(len, positives)):
        return np.full(len(THRESHOLDS), np.nan)
    counted = (~np.isnan(aps)).sum(axis=0)
    if rule == "official":
        counted = counted + len(rows) - len(queries)
    return np.nansum(aps, axis=0) / np.maximum(counted, 1)


def mean_pair_iou(
    ious: Mapping[Pair, float],
    ground_truth: RevisitedGroundTruth,
    protocol: Protocol,
    *,
    rule: Rule = "recall",
) -> float:
    """Mean IoU over each query's positives, then over the queries that have any.

    Raises:
        ValueError: if the protocol or the rule is unknown.
    """
    _check(rule)
    positives, _ = protocol_split(ground_truth, protocol)
    means = []
    for q, ids in enumerate(positives):
        skip = set(ground_truth.easy[q].tolist()) if rule == "official" else set()
        values = [ious.get((q, i), 0.0) for i in ids.tolist() if (q, i) in ious or i not in skip]
        means += [np.mean(values)] if values else []
    return float(np.mean(means)) if means else float("nan")


def _inclusive_box(points: np.ndarray, side: int) -> np.ndarray:
    low = points.min(axis=0).clip(0, side)
    return np.concatenate([low, np.maximum((points.max(axis=0) + 1).clip(0, side), low)])


def _check(rule: str) -> None:
    if rule not in ("official", "recall"):
        raise ValueError(f'expected the rule "official" or "recall", got {rule!r}')
