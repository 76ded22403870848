r"""Was re-ranking needed? What each re-ranker adds to a search, and what it costs.

Each re-ranker runs on the same initial retrieval, with its time; a table compares them, and
`gap_recovered` says how much of spatial verification's gain something else gives.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter, process_time

import numpy as np

from spatial_retrieval.metrics.bootstrap import bootstrap_interval, paired_bootstrap
from spatial_retrieval.metrics.gap import gap_recovered
from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank import RerankContext, Reranker, label_of, resolve

__all__ = [
    "PUBLISHED_SECONDS",
    "QueryVerdict",
    "Reranked",
    "rerank_timed",
    "reranking_table",
    "was_needed",
]


# Seconds per query on ROxford with a million distractors, as the authors of hypergraph propagation
# report them (NeurIPS 2021); neighbour lists and matches between database images are not counted.
PUBLISHED_SECONDS = {
    "initial retrieval": 0.62,
    "hypergraph": 1.07,
    "uncertainty": 0.0003,
    "verify": 41.12,
}


_COLUMNS = ("method", "mAP", "against initial retrieval", "gap recovered")
_COLUMNS += ("ms/query", "CPU ms/query")


@dataclass(frozen=True, slots=True, eq=False)
class Reranked:
    """One row of a comparison.

    Attributes:
        name: what was done.
        ranking: what came out.
        ap: (Q,) average precision, NaN for a query without a positive.
        milliseconds: per query, with local features at hand.
        cpu_milliseconds: the same in processor time, all cores together.
        features_milliseconds: per query, extracting the local features that were not at hand.
    """

    name: str
    ranking: Ranking
    ap: np.ndarray
    milliseconds: float
    cpu_milliseconds: float
    features_milliseconds: float = 0.0


@dataclass(frozen=True, slots=True)
class QueryVerdict:
    """What re-ranking did to one query.

    Attributes:
        uncertainty: entropy of the communities among its first hits, before.
        before: average precision of the initial retrieval.
        after: average precision after re-ranking.
        new_first: whether another image came first.
        moved: how many images changed their place.
    """

    uncertainty: float
    before: float
    after: float
    new_first: bool
    moved: int

    @property
    def needed(self) -> bool:
        """Whether the hits became better."""
        return self.after > self.before


def rerank_timed(
    reranker: Reranker | str,
    ranking: Ranking,
    context: RerankContext,
    score: Callable[[Ranking], np.ndarray],
    *,
    label: str | None = None,
) -> Reranked:
    """Re-rank, score, and note the time; extraction of local features is told apart.

    Args:
        reranker: a re-ranker, or its name, see `spatial_retrieval.rerank`.
        ranking: the initial retrieval's hits.
        context: what the re-ranker may see. It keeps matches, so give each run its own.
        score: ranking → (Q,) average precision; ground truth stays in here.
        label: name of the row, by default the re-ranker's.

    Raises:
        ValueError: if there is no re-ranker of that name, or the context lacks what it needs.
        ImportError: if it needs a package that is not installed; the message says how.
    """
    run = resolve(reranker)
    waited, worked = context.features.seconds, context.features.cpu_seconds
    start, cpu_start = perf_counter(), process_time()
    found = run(ranking, context)
    wall, cpu = perf_counter() - start, process_time() - cpu_start
    waited, worked = context.features.seconds - waited, context.features.cpu_seconds - worked
    per_query = 1000 / max(len(ranking), 1)
    return Reranked(
        name=label or label_of(reranker),
        ranking=found,
        ap=np.asarray(score(found), dtype=np.float64),
        milliseconds=(wall - waited) * per_query,
        cpu_milliseconds=(cpu - worked) * per_query,
        features_milliseconds=waited * per_query,
    )


def was_needed(before: Reranked, after: Reranked, uncertainty: np.ndarray) -> list[QueryVerdict]:
    """What re-ranking did, query by query.

    Args:
        before: the initial retrieval.
        after: the same queries re-ranked.
        uncertainty: (Q,) of the initial retrieval, see `RerankContext.uncertainty`.
    """
    if before.ranking.ids.shape != after.ranking.ids.shape:
        raise ValueError(
            f"expected two rankings of one shape, got {before.ranking.ids.shape} and "
            f"{after.ranking.ids.shape}"
        )
    changed = before.ranking.ids != after.ranking.ids  # (Q, K)
    return [
        QueryVerdict(
            uncertainty=float(uncertainty[q]),
            before=float(before.ap[q]),
            after=float(after.ap[q]),
            new_first=bool(changed[q, 0]),
            moved=int(changed[q].sum()),
        )
        for q in range(len(changed))
    ]


def reranking_table(
    rows: Sequence[Reranked],
    groups: Sequence[int] | np.ndarray | None = None,
    *,
    base: str = "none",
    verified: str = "verify",
) -> str:
    """The comparison as a Markdown table: scores in percent with 95 % intervals.

    Args:
        rows: what was compared, on the same queries.
        groups: (Q,) labels of the queries, drawn together in the intervals.
        base: name of the row the others are compared with.
        verified: name of the row that counts as spatial verification; without it the column
            of the gap stays empty.

    Raises:
        ValueError: if there is no row named ``base``.
    """
    named = {row.name: row for row in rows}
    if base not in named:
        raise ValueError(f"expected a row {base!r} among {', '.join(named)}")
    lines = [
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
    ]
    for row in rows:
        same = row.name == base
        gain = "" if same else paired_bootstrap(row.ap, named[base].ap, groups).signed()
        known = not same and verified in named
        gap = _gap(row, named[base], named[verified], groups) if known else ""
        score = bootstrap_interval(row.ap, groups)
        cost = f"{row.milliseconds:.1f} | {row.cpu_milliseconds:.1f}"
        lines.append(f"| {row.name} | {score} | {gain} | {gap} | {cost} |")
    return "\n".join(lines)


def _gap(row: Reranked, base: Reranked, verified: Reranked, groups: object) -> str:
    found = gap_recovered(row.ap, base.ap, verified.ap, groups)
    if np.isnan(found.value):
        return "no gap"
    low = "" if np.isnan(found.low) else f" [{100 * found.low:.0f}, {100 * found.high:.0f}]"
    return f"{100 * found.value:.0f} %{low}"
