"""Scores for anyone's folder: sub-folders are labels.

Two protocols, chosen by what is in the folder:

* ``query*`` files, where there are any, are the queries and everything else is the database;
* otherwise every photograph is once the query, all others the database (leave-one-out).

AP is that of :mod:`~spatial_retrieval.metrics.average_precision`; nothing is junk. A query whose
label no other photograph has is NaN and leaves the means. Labels of many photographs dominate the
mean over queries; the macro mean averages within each label first.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from spatial_retrieval.datasets.folders import labels_of
from spatial_retrieval.index import DescriptorIndex
from spatial_retrieval.metrics.average_precision import (
    average_precision,
    labelled_positives,
    mean_present,
    precision_at,
)
from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank.order import without_self

__all__ = ["FolderScores", "FolderSplit", "folder_scores", "split_folder"]

_CELLS = 20_000_000  # entries of the largest ranking that is held at once

Rerank = Callable[[Ranking, np.ndarray], Ranking]


@dataclass(frozen=True, slots=True, eq=False)
class FolderSplit:
    """Queries and database, as positions in a list of N names.

    Attributes:
        labels: (N,) int64.
        label_names: the sub-folders.
        queries: (Q,) int64.
        database: (M,) int64.
        leave_one_out: whether queries are in the database and are left out of their own hits.
    """

    labels: np.ndarray
    label_names: tuple[str, ...]
    queries: np.ndarray
    database: np.ndarray
    leave_one_out: bool


@dataclass(frozen=True, slots=True, eq=False)
class FolderScores:
    """Scores of a folder.

    Attributes:
        map: mean average precision over queries that have a positive.
        macro_map: mean over labels of each label's mean average precision.
        mp_at: k → mean precision at k.
        ap_per_query: (Q,) average precision, NaN for a query without a positive.
        query_labels: (Q,) int64, for intervals over labels.
    """

    map: float
    macro_map: float
    mp_at: dict[int, float]
    ap_per_query: np.ndarray
    query_labels: np.ndarray


def split_folder(names: Sequence[str]) -> FolderSplit:
    """Labels, queries and database of relative names such as "tower/query_1.jpg".

    Raises:
        ValueError: if a photograph is in no sub-folder, there is only one label, or nothing is
            left to search among.

    Example:
        >>> split_folder(["a/1.jpg", "a/query_1.jpg", "b/1.jpg"]).queries
        array([1])
    """
    labels, label_names = labels_of(names)
    if len(label_names) < 2:
        raise ValueError(f"expected at least 2 sub-folders as labels, got {len(label_names)}")
    is_query = np.array([PurePosixPath(name).name.lower().startswith("query") for name in names])
    everyone = np.arange(len(names))
    if not is_query.any():
        return FolderSplit(labels, label_names, everyone, everyone, True)
    if is_query.all():
        raise ValueError("expected photographs to search among, got query* files only")
    return FolderSplit(labels, label_names, everyone[is_query], everyone[~is_query], False)


def folder_scores(
    descriptors: np.ndarray,
    split: FolderSplit,
    ks: Sequence[int] = (1, 5, 10),
    *,
    rerank: Rerank | None = None,
) -> FolderScores:
    """Search with every query and score the hits.

    Args:
        descriptors: (N, D) unit rows, of all names that were split.
        split: queries and database.
        ks: where precision is measured.
        rerank: (ranking of some queries, their positions in ``split.queries``) → ranking; ids are
            positions in ``split.database``.

    Raises:
        ValueError: if the numbers of rows and labels differ.
    """
    if len(descriptors) != len(split.labels):
        raise ValueError(f"expected {len(split.labels)} descriptors, got {len(descriptors)}")
    query_labels = split.labels[split.queries]
    aps = np.full(len(split.queries), np.nan)
    precisions = np.full((len(split.queries), len(ks)), np.nan)
    for rows, ranking in _rankings(descriptors, split):
        ranking = rerank(ranking, rows) if rerank is not None else ranking
        own = rows if split.leave_one_out else None
        hits = labelled_positives(
            ranking, query_labels[rows], split.labels[split.database], own=own
        )
        aps[rows] = average_precision(*hits)
        precisions[rows] = np.stack([precision_at(*hits, k) for k in ks], axis=1)
    per_label = [mean_present(aps[query_labels == label]) for label in np.unique(query_labels)]
    mp_at = dict(zip(ks, map(mean_present, precisions.T), strict=True))
    macro = mean_present(np.array(per_label))
    return FolderScores(mean_present(aps), macro, mp_at, aps, query_labels)


def _rankings(descriptors: np.ndarray, split: FolderSplit) -> Iterator[tuple[np.ndarray, Ranking]]:
    """Whole rankings, some queries at a time; no query is among its own hits."""
    m = len(split.database)
    index = DescriptorIndex.build(descriptors[split.database], [str(i) for i in range(m)])
    step = max(1, _CELLS // m)
    for start in range(0, len(split.queries), step):
        rows = np.arange(start, min(start + step, len(split.queries)))
        ranking = index.search(descriptors[split.queries[rows]], m)
        yield rows, without_self(ranking, rows) if split.leave_one_out else ranking
