r"""How well descriptors tell a house from its twin.

**Leave-one-out mAP.** Each photograph is a query, all others are the database; the other
photographs of its landmark are the positives, its twin's count as wrong.

**Twin accuracy.** Over all triplets (query q, positive p, twin's photograph t) in which p and t
have the same difficulty,

.. math:: \mathrm{acc} = \operatorname{mean}\big[\,s(q,p) > s(q,t)\,\big],

a tie counting one half. Without the match in difficulty the measure would be biased: an easy
photograph of the wrong house beats a hard one of the right house. Chance is 50 %, and that is where
a descriptor stays that only knows which parts a house has.

Intervals are bootstrapped over pairs of twins, which is what varies between two benchmarks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from spatial_retrieval.facades.data import TwinFacades
from spatial_retrieval.metrics.average_precision import labelled_ap
from spatial_retrieval.metrics.bootstrap import Interval, bootstrap_interval, paired_bootstrap
from spatial_retrieval.ranking import Ranking

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from spatial_retrieval.models import RetrievalModel

__all__ = ["TwinScores", "cell_shuffle", "evaluate_twins", "score_ranking", "score_twins"]

LEVELS = ("E", "M", "H")


@dataclass(frozen=True, slots=True, eq=False)
class TwinScores:
    """Scores of one method on Twin Façades.

    Attributes:
        data: the photographs.
        ap: (N,) average precision of each photograph as a query, NaN without a positive.
        triplets: (T, 3) int64, query, positive, twin's photograph; the latter two equally hard.
        correct: (T,) 1 where the positive scored higher, ½ for a tie, else 0.
        baselines: scores of other methods on the same photographs, to be printed below.
    """

    data: TwinFacades
    ap: np.ndarray
    triplets: np.ndarray
    correct: np.ndarray
    baselines: Mapping[str, "TwinScores"] = field(default_factory=dict)

    def map(self, level: str | None = None) -> Interval:
        """Mean average precision of all queries, or of those of one difficulty (E, M or H)."""
        chosen = self.data.difficulty == level if level else np.ones(len(self.data), dtype=bool)
        return bootstrap_interval(self.ap[chosen], self._pairs(np.flatnonzero(chosen)))

    def accuracy(self, *, kind: str | None = None, level: str | None = None) -> Interval:
        """Twin accuracy, of one kind of re-arrangement, or with p and t of one difficulty."""
        query, positive, _ = self.triplets.T
        chosen = np.ones(len(query), dtype=bool)
        if kind:
            chosen &= self.data.kind[self.data.labels[query]] == kind
        if level:
            chosen &= self.data.difficulty[positive] == level
        return bootstrap_interval(self.correct[chosen], self._pairs(query[chosen]))

    def by_kind(self) -> dict[str, Interval]:
        """Twin accuracy of all triplets, and by kind of re-arrangement."""
        kinds = [str(k) for k in dict.fromkeys(self.data.kind)]
        return {"all": self.accuracy(), **{k: self.accuracy(kind=k) for k in kinds}}

    def gain(self, other: "TwinScores") -> tuple[Interval, Interval]:
        """What this method has over another on the same photographs: in mAP, in twin accuracy."""
        everyone, queries = np.arange(len(self.data)), self.triplets[:, 0]
        return (
            paired_bootstrap(self.ap, other.ap, self._pairs(everyone)),
            paired_bootstrap(self.correct, other.correct, self._pairs(queries)),
        )

    def lines(self, name: str = "this model") -> list[str]:
        """A report to print: one row for this method, one for each baseline."""
        landmarks = len(self.data.twin_of)
        rows = {name: self, **self.baselines}
        width = max(len(n) for n in rows) + 2
        columns = ("all", *LEVELS)
        return [
            f"Twin Façades {self.data.split}: {landmarks} landmarks, {len(self.data)} photographs",
            "in %, [95 % interval over pairs of twins]; chance for twin accuracy is 50",
            "",
            _row("mAP", columns, width),
            *(
                _row(n, [s.map(c if c in LEVELS else None) for c in columns], width)
                for n, s in rows.items()
            ),
            "",
            _row("twin accuracy", columns, width),
            *(
                _row(n, [s.accuracy(level=c if c in LEVELS else None) for c in columns], width)
                for n, s in rows.items()
            ),
            "",
            _row("… by kind", list(self.by_kind()), width),
            *(_row(n, list(s.by_kind().values()), width) for n, s in rows.items()),
        ]

    def _pairs(self, photographs: np.ndarray) -> np.ndarray:
        return self.data.labels[photographs] // 2


def score_twins(similarity: np.ndarray, data: TwinFacades) -> TwinScores:
    """Score a similarity between all photographs.

    Args:
        similarity: (N, N), larger is more alike; the diagonal is not read.
        data: the N photographs.

    Raises:
        ValueError: if the shape is not (N, N), or values are not finite.
    """
    similarity = np.asarray(similarity)
    n = len(data)
    if similarity.shape != (n, n):
        raise ValueError(f"expected a similarity of shape {(n, n)}, got {similarity.shape}")
    if not np.isfinite(similarity).all():
        raise ValueError("expected finite similarities, got NaN or infinity")
    triplets = _triplets(data)
    query, positive, twin = triplets.T
    ahead = similarity[query, positive] - similarity[query, twin]
    return TwinScores(
        data=data,
        ap=_leave_one_out(similarity, data.labels),
        triplets=triplets,
        correct=(np.sign(ahead) + 1) / 2,
    )


def evaluate_twins(descriptors: np.ndarray, data: TwinFacades) -> TwinScores:
    """Score descriptors (N, D), compared by inner product.

    Raises:
        ValueError: if there is not one row for each photograph.

    Example:
        >>> from spatial_retrieval import twin_facades
        >>> data = twin_facades("test", landmarks=2, views=3, size=64)
        >>> perfect = np.eye(2)[data.labels]
        >>> evaluate_twins(perfect, data).accuracy().value
        1.0
    """
    descriptors = np.asarray(descriptors)
    if descriptors.ndim != 2 or len(descriptors) != len(data):
        raise ValueError(f"expected descriptors of shape ({len(data)}, D), got {descriptors.shape}")
    return score_twins(descriptors @ descriptors.T, data)


def score_ranking(ranking: Ranking, data: TwinFacades) -> TwinScores:
    """Score an order, such as a re-ranker's: only places count, not scores.

    Args:
        ranking: N lists of length N - 1, each photograph once the query among all others.
        data: the N photographs.

    Raises:
        ValueError: if the lists are not whole, or a photograph is its own hit.
    """
    n = len(data)
    if ranking.ids.shape != (n, n - 1):
        raise ValueError(f"expected a ranking of shape {(n, n - 1)}, got {ranking.ids.shape}")
    if (ranking.ids == np.arange(n)[:, None]).any():
        raise ValueError("expected each photograph to be left out of its own hits")
    similarity = np.zeros((n, n))
    np.put_along_axis(similarity, ranking.ids, -np.arange(n - 1.0)[None], axis=1)
    return score_twins(similarity, data)


def cell_shuffle(
    model: "RetrievalModel", images: Sequence[object], *, size: int = 448, seed: int = 0
) -> np.ndarray:
    """Similarity of each image's descriptor to the one after its map's cells were shuffled.

    The cells of each map that the model reads change places before the context layers see them.
    Without context layers the descriptor of one pooled map is the same but for rounding (1.0); a
    descriptor that uses where features are, moves.

    Returns:
        (N,) float32 cosine similarities.
    """
    import torch

    from spatial_retrieval.features.extraction import load_tensor

    generator = torch.Generator().manual_seed(seed)
    found = []
    for image in images:
        batch = load_tensor(image, size=size)[None].to(model.device, model.dtype)
        with torch.inference_mode():
            maps = model.maps(batch)
            shuffled = {layer: _shuffled(x, generator) for layer, x in maps.items()}
            a, b = model.from_maps(maps), model.from_maps(shuffled)
        found.append(float((a * b).sum()))
    return np.array(found, dtype=np.float32)


def _shuffled(x: "Tensor", generator: "torch.Generator") -> "Tensor":
    """(1, C, H, W) → the same with its cells at random places."""
    import torch

    order = torch.randperm(x.shape[2] * x.shape[3], generator=generator).to(x.device)
    return x.flatten(2)[:, :, order].view_as(x)


def _triplets(data: TwinFacades) -> np.ndarray:
    """(T, 3) query, positive and twin's photograph, the latter two of one difficulty."""
    by_group = {
        (landmark, level): np.flatnonzero((data.labels == landmark) & (data.difficulty == level))
        for landmark in range(len(data.twin_of))
        for level in LEVELS
    }
    found = [np.empty((0, 3), dtype=np.int64)]
    for query, landmark in enumerate(data.labels):
        twin = int(data.twin_of[landmark])
        for level in LEVELS if twin >= 0 else ():
            positives = by_group[landmark, level]
            grid = np.meshgrid(positives[positives != query], by_group[twin, level], indexing="ij")
            pairs = np.stack(grid, axis=-1).reshape(-1, 2)
            found.append(np.insert(pairs, 0, query, axis=1))
    return np.concatenate(found)


def _leave_one_out(similarity: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) average precision of each photograph among all others, equal scores in data order."""
    everyone = np.arange(len(similarity))
    order = np.argsort(-similarity, axis=1, kind="stable")
    others = order[order != everyone[:, None]].reshape(len(everyone), -1)
    return labelled_ap(others, labels, labels, own=everyone)


def _row(name: str, cells: Sequence[object], width: int) -> str:
    return name.ljust(width) + "".join(str(cell).rjust(22) for cell in cells)
