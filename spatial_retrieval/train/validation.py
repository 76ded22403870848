"""How good a model is on held-out sets while it trains: leave-one-out mAP and twin accuracy."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from spatial_retrieval.metrics.average_precision import labelled_ap
from spatial_retrieval.train.data import LabelledSet

__all__ = ["encode", "leave_one_out_map", "score_names", "twin_accuracy", "validate"]


def score_names(sets: Mapping[str, LabelledSet]) -> list[str]:
    """Names of the scores that :func:`validate` gives, in order."""
    twins = {name: bool((one.twin_of >= 0).any()) for name, one in sets.items()}
    return [
        f"{name}/{score}" for name, has in twins.items() for score in ("map", "twin")[: 1 + has]
    ]


def validate(
    model: nn.Module, sets: Mapping[str, LabelledSet], *, batch_size: int = 32
) -> dict[str, float]:
    """Score a model: "NAME/map" for each set, and "NAME/twin" where the set has twins; in 0 … 1."""
    scores, names = {}, score_names(sets)
    for name, one in sets.items():
        descriptors = encode(model, one, batch_size=batch_size)
        scores[f"{name}/map"] = leave_one_out_map(descriptors, one.labels)
        if f"{name}/twin" in names:
            scores[f"{name}/twin"] = twin_accuracy(
                descriptors, one.labels, one.twin_of, one.difficulty
            )
    return scores


def encode(
    model: nn.Module,
    data: LabelledSet,
    *,
    indices: np.ndarray | None = None,
    batch_size: int = 32,
) -> np.ndarray:
    """Descriptors (M, D) float32 of some items (all by default), with the model in eval mode."""
    indices = np.arange(len(data)) if indices is None else np.asarray(indices)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            rows = [model(batch.to(device)) for batch in _batches(data, indices, batch_size)]
    finally:
        model.train(was_training)
    return torch.cat(rows).float().cpu().numpy()


def leave_one_out_map(descriptors: np.ndarray, labels: np.ndarray) -> float:
    """Each item queries all others; the mean of the average precisions (macro over labels).

    AP is that of the revisited protocol. Items whose label has no other item are left out of the
    mean.

    Args:
        descriptors: (N, D) unit rows.
        labels: (N,).
    """
    labels, everyone = np.asarray(labels), np.arange(len(labels))
    order = np.argsort(-(descriptors @ descriptors.T), axis=1, kind="stable")
    order = order[order != everyone[:, None]].reshape(len(order), -1)
    ap = labelled_ap(order, labels, labels, own=everyone)
    asked = ~np.isnan(ap)
    if not asked.any():
        raise ValueError("expected at least two items of some label, got none")
    present = np.unique(labels[asked])
    return float(np.mean([ap[asked & (labels == label)].mean() for label in present]))


def twin_accuracy(
    descriptors: np.ndarray,
    labels: np.ndarray,
    twin_of: np.ndarray,
    difficulty: np.ndarray | None = None,
) -> float:
    """How often a view is nearer to a view of its landmark than to one of the twin's.

    Positive and twin view have the same difficulty, so that neither is easier to be near to.
    Averaged over each landmark's triplets, then over landmarks.
    """
    levels = np.zeros(len(labels)) if difficulty is None else np.asarray(difficulty)
    found = []
    for label in np.flatnonzero(twin_of >= 0):
        own, other = np.flatnonzero(labels == label), np.flatnonzero(labels == twin_of[label])
        right = total = 0.0
        for level in np.unique(levels[own]):
            positives, twins = own[levels[own] == level], other[levels[other] == level]
            near = descriptors[own] @ descriptors[positives].T  # (Q, P)
            far = descriptors[own] @ descriptors[twins].T  # (Q, T)
            asked = (own[:, None] != positives)[..., None] & np.ones(len(twins), bool)
            ahead = np.sign(near[..., None] - far[:, None])  # (Q, P, T), a tie counts one half
            right += (asked * (ahead + 1) / 2).sum()
            total += asked.sum()
        if total:
            found.append(right / total)
    if not found:
        raise ValueError("expected views of a landmark and of its twin at one level, got none")
    return float(np.mean(found))


def _batches(data: LabelledSet, indices: np.ndarray, size: int) -> Iterator[Tensor]:
    """Items in order, stacked as long as they have one shape."""
    waiting: list[Tensor] = []
    for index in indices:
        item = data[int(index), 0]
        if waiting and (len(waiting) == size or waiting[0].shape != item.shape):
            yield torch.stack(waiting)
            waiting = []
        waiting.append(item)
    if waiting:
        yield torch.stack(waiting)
