"""A model's whitening, fitted anew on photographs: with labels if there are some, else by PCA."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spatial_retrieval.features.extraction import DEFAULT_SIZE, describe_readable
from spatial_retrieval.layers.whitening import label_whitening, learn_whitening
from spatial_retrieval.models import Head, RetrievalModel

__all__ = ["balance", "fit_pair_whitening", "fit_whitening", "pooled_rows"]


class _Pooled:
    """What the whitening of a model's head sees, asked for as a model is."""

    def __init__(self, model: RetrievalModel) -> None:
        self.device, self.dtype, self._model = model.device, model.dtype, model
        image = torch.zeros(1, 3, 64, 64, device=model.device, dtype=model.dtype)
        with torch.inference_mode():
            self.dim = self(image).shape[1]

    def __call__(self, images: Tensor, scales: Sequence[float] = (1.0,)) -> Tensor:
        model = self._model
        maps = model.backbone.maps(images, model.head.layers)
        return model.head.pooled(dict(zip(model.head.layers, maps, strict=True)))


def pooled_rows(
    model: RetrievalModel,
    photographs: Sequence[Path],
    *,
    size: int = DEFAULT_SIZE,
    progress: bool = False,
) -> tuple[np.ndarray, dict[int, str]]:
    """What the head's whitening sees of photographs.

    Returns:
        (N, ΣD) float32 rows, and position → reason for those that cannot be read (rows of 0).
    """
    asked = _Pooled(model)
    found = describe_readable(asked, photographs, size=size, progress=progress)
    rows = np.zeros((len(photographs), asked.dim), np.float32)
    rows[found.kept] = found.descriptors
    return rows, found.failed


def balance(model: RetrievalModel, rows: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Scale each branch so that its rows differ from their mean by its weight, on average.

    Args:
        model: its head's branches get their ``scale``; with that, ``rows`` were pooled.
        rows: (N, ΣD), see :func:`pooled_rows`.
        weights: one for each branch.

    Returns:
        (N, ΣD) the rows at the new scales.
    """
    branches = list(model.head.branches)
    if len(weights) != len(branches):
        raise ValueError(f"expected {len(branches)} weights, got {len(weights)}")
    lengths = _lengths(model)
    parts = np.split(rows, np.cumsum(lengths)[:-1], axis=1)
    scaled = []
    for branch, part, weight in zip(branches, parts, weights, strict=True):
        factor = weight / float(np.linalg.norm(part - part.mean(axis=0), axis=1).mean())
        branch.scale = (1.0 if branch.scale is None else branch.scale) * factor
        scaled.append(part * np.float32(factor))
    return np.concatenate(scaled, axis=1)


def fit_whitening(
    model: RetrievalModel,
    rows: np.ndarray,
    labels: np.ndarray | None,
    *,
    dim: int,
    shrink: float = 0.3,
) -> RetrievalModel:
    """The same model with a whitening fitted on pooled rows.

    Args:
        model: of one head.
        rows: (N, ΣD), see :func:`pooled_rows`.
        labels: (N,) integers, −1 for none; None: PCA.
        dim: length of the descriptor; no more than the rows span.
        shrink: see :func:`~spatial_retrieval.layers.whitening.label_whitening`.

    Raises:
        ValueError: if the model has two heads, or there are too few rows.
    """
    _check_one_head(model)
    known = None if labels is None else torch.from_numpy(np.asarray(labels))
    fitted = label_whitening(torch.from_numpy(rows), known, shrink=shrink)
    return model.with_whitening(fitted, min(dim, len(fitted.projection)))


def fit_pair_whitening(
    model: RetrievalModel, rows: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], *, dim: int
) -> RetrievalModel:
    """The same model with a whitening learned from matching pairs (Radenović et al. 2019).

    Args:
        model: of one head.
        rows: (N, ΣD), see :func:`pooled_rows`.
        pairs: (P,) rows of the queries, (P,) rows that show the same.
        dim: length of the descriptor.

    Raises:
        ValueError: if the model has two heads, or the pairs' differences span too little.
    """
    _check_one_head(model)
    queries, positives = (torch.from_numpy(np.asarray(ids)) for ids in pairs)
    fitted = learn_whitening(torch.from_numpy(rows), queries, positives)
    return model.with_whitening(fitted, min(dim, len(fitted.projection)))


def _check_one_head(model: RetrievalModel) -> None:
    if model.base is not None:
        raise ValueError("expected a model of one head, got one with a base; whiten its parts")


def _lengths(model: RetrievalModel) -> list[int]:
    image = torch.zeros(1, 3, 64, 64, device=model.device, dtype=model.dtype)
    head: Head = model.head
    with torch.inference_mode():
        maps = dict(zip(head.layers, model.backbone.maps(image, head.layers), strict=True))
        return [branch(maps).shape[1] for branch in head.branches]
