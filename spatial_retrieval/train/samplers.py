r"""Which items share a batch. A sampler is a function of the step, and has no state to lose.

Batch = groups × (a landmark and its twin) × views. Twins in one batch are what makes a loss ask
for arrangement: with other landmarks alone, parts and colours suffice. ``harder`` names for each
group the groups that a model confuses it with (found by FAISS, :func:`mine_groups`); then half of a
batch is drawn in order and the other half are their hard neighbours.

pytorch-metric-learning's ``MPerClassSampler`` draws from a hidden global generator, so a run that
was killed could not go on with the batches it would have had; hence these.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np

from spatial_retrieval.train.data import LabelledSet

__all__ = ["BatchSource", "Batches", "MixedBatches", "item_seed", "mine_groups"]


class BatchSource(Protocol):
    """Anything that says which items step ``step`` sees."""

    def batch(self, step: int) -> np.ndarray:
        """(B,) item indices; the same for the same step."""
        ...


class Batches:
    """Groups × (label, twin) × views.

    Args:
        data: the set; all of its labels have twins, or none has. Where ``data.repeats``, a label
            with fewer items than ``views`` may give one twice.
        groups: landmarks in a batch (each with its twin, where there are twins).
        views: items of each label.
        seed: of all draws.

    Attributes:
        anchors: (G,) the label that stands for each group.
        harder: None, or (G, n) for each group the numbers of the groups to draw with it.

    Raises:
        ValueError: if there are fewer than two labels, or a label has too few items.
    """

    def __init__(
        self, data: LabelledSet, *, groups: int = 8, views: int = 2, seed: int = 0
    ) -> None:
        labels, twins = data.labels, data.twin_of
        present = np.unique(labels)
        _check(data, present, views)
        paired = twins[present] >= 0
        if paired.any() and not paired.all():
            raise ValueError(
                f"expected twins for all labels or for none, got {int(paired.sum())} of "
                f"{len(present)}; mix sets with MixedBatches"
            )
        self.anchors = present[(twins[present] < 0) | (present < twins[present])]
        if not 1 <= groups <= len(self.anchors) or len(present) < 2:
            raise ValueError(
                f"expected 1 … {len(self.anchors)} groups in a batch (as many landmarks as there "
                f"are), got {groups}"
            )
        self.groups, self.views, self.seed = groups, views, seed
        self.harder: np.ndarray | None = None
        self._twins = twins
        order = np.argsort(labels, kind="stable")
        bounds = np.searchsorted(labels[order], np.arange(labels.max() + 2))
        self._items = [order[a:b] for a, b in pairwise(bounds)]

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every landmark was drawn about once."""
        return max(1, len(self.anchors) // self._drawn)

    def batch(self, step: int) -> np.ndarray:
        """(B,) item indices of a step: a label's views, then its twin's, group by group."""
        epoch, turn = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.anchors))
        rng = np.random.default_rng([self.seed, 1, step])
        drawn = order[turn * self._drawn : (turn + 1) * self._drawn]
        chosen = self._with_neighbours(drawn, rng)
        labels = [
            label
            for anchor in self.anchors[chosen]
            for label in (anchor, self._twins[anchor])
            if label >= 0
        ]
        return np.concatenate([self._draw(label, rng) for label in labels])

    @property
    def _drawn(self) -> int:
        return self.groups if self.harder is None else max(1, self.groups // 2)

    def _with_neighbours(self, drawn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Add hard neighbours (or, where they repeat, any other group) up to ``groups``."""
        if self.harder is None:
            return drawn
        wanted = [int(rng.choice(row)) for row in self.harder[drawn]]
        rest = rng.permutation(len(self.anchors)).tolist()
        unique = dict.fromkeys([*drawn.tolist(), *wanted, *rest])
        return np.asarray(list(unique)[: self.groups])

    def _draw(self, label: int, rng: np.random.Generator) -> np.ndarray:
        items = self._items[label]
        return rng.choice(items, self.views, replace=len(items) < self.views)


class MixedBatches:
    """Batches of several joined sets after one another, so much of each as its own sampler says.

    Args:
        parts: one sampler for each set of a :class:`~spatial_retrieval.train.data.ConcatSet`.
        starts: index at which each set begins.
    """

    def __init__(self, parts: Sequence[BatchSource], starts: Sequence[int]) -> None:
        if not parts or len(starts) < len(parts):
            raise ValueError(f"expected a start for each of {len(parts)} samplers, at least one")
        self.parts, self.starts = list(parts), list(starts)

    def batch(self, step: int) -> np.ndarray:
        """(B,) indices into the joined set."""
        pairs = zip(self.parts, self.starts, strict=False)
        return np.concatenate([part.batch(step) + int(start) for part, start in pairs])


def item_seed(seed: int, step: int, position: int) -> int:
    """Seed of the augmentation of one item of one batch."""
    return int(np.random.SeedSequence([seed, step, position]).generate_state(1, np.uint64)[0] >> 1)


def mine_groups(descriptors: np.ndarray, labels: np.ndarray, batches: Batches, n: int = 5) -> None:
    """Set ``batches.harder``: for each group the ``n`` groups with the nearest mean descriptor.

    Args:
        descriptors: (M, D) unit rows of some items; at least one of each group's anchor.
        labels: (M,) their labels.
    """
    import faiss

    if not 1 <= n < len(batches.anchors):
        raise ValueError(f"expected 1 … {len(batches.anchors) - 1} hard groups, got {n}")
    means = np.stack([descriptors[labels == anchor].mean(axis=0) for anchor in batches.anchors])
    means = np.ascontiguousarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)
    index = faiss.IndexFlatIP(means.shape[1])
    index.add(means)
    _, near = index.search(means, n + 1)
    rows = [row[row != i][:n] for i, row in enumerate(near)]
    batches.harder = np.stack(rows).astype(np.int64)


def _check(data: LabelledSet, present: np.ndarray, views: int) -> None:
    if len(present) < 2:
        raise ValueError(
            f"expected items of at least two labels, got {len(present)}; a model cannot learn to "
            "tell one landmark from nothing"
        )
    if views < 2:
        raise ValueError(f"expected at least 2 views of each label in a batch, got {views}")
    counts = np.bincount(data.labels)
    lonely = present[counts[present] < 2]
    if len(lonely) and not data.repeats:
        item = int(np.flatnonzero(data.labels == lonely[0])[0])
        raise ValueError(
            f"expected at least 2 images of each label, got one of label {lonely[0]} "
            f"({data.names[item]})"
            + (f" and of {len(lonely) - 1} more" if len(lonely) > 1 else "")
            + "; add images, leave the label out, or augment (photographs as instances)"
        )
