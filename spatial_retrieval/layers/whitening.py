r"""Whitening: centre, rotate, rescale, cut, and bring back to unit length.

From pairs (learned; Mikolajczyk and Matas 2007, as in Radenović et al. 2019, sec. 3.4)::

    m = mean of the queries        S = mean of (q − p)(q − p)ᵀ over matching pairs
    P = V ᵀ L⁻¹                    L Lᵀ = S (Cholesky), V = eigenvectors of L⁻¹(X − m)(X − m)ᵀL⁻ᵀ

so that differences within a pair have unit covariance, and the axes are sorted by how much the
whole set varies along them. By PCA: m the mean, P = Λ^(−power) Vᵀ of the covariance, power ½.

From labels (within-class covariance normalisation; Hatch, Kajarekar & Stolcke, Interspeech 2006),
with x in the D principal components that data of N rows can fill, L labels of ≥ 3 rows, m_l and n_l
their means and sizes::

    S = 1/L Σ_l 1/n_l Σ_{i in l} (x_i − m_l)(x_i − m_l)ᵀ       each label counts alike
    S ← (1 − shrink) S + shrink · tr(S)/D · I
    A = S^(−½)                P = Λ^(−power) Vᵀ A              Λ, V: PCA of A (x − m)

so that what varies between views of one thing counts little. Shrinking keeps directions in which
few labels happen not to vary from counting too much (Ledoit & Wolf 2004).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Whitening", "choose_shrink", "label_whitening", "learn_whitening", "pca_whitening"]


@dataclass(frozen=True, slots=True, eq=False)
class Whitening:
    """An affine map of descriptors: y = P (x − m), cut to some dimensions, unit length.

    Attributes:
        mean: (D,).
        projection: (D′, D), rows sorted by importance.
    """

    mean: Tensor  # (D,)
    projection: Tensor  # (D′, D)

    def apply(self, x: Tensor, dim: int | None = None) -> Tensor:
        """Whiten rows.

        Args:
            x: (N, D).
            dim: keep so many leading dimensions; None keeps all.

        Returns:
            (N, dim) unit rows.

        Raises:
            ValueError: if D does not fit, or ``dim`` is not in 1 … D′.
        """
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise ValueError(f"expected rows of {len(self.mean)} numbers, got {tuple(x.shape)}")
        projection = self._cut(dim).to(x)
        return nn.functional.normalize((x - self.mean.to(x)) @ projection.T, dim=1)

    def linear(self, dim: int | None = None) -> nn.Linear:
        """The same map as a linear layer (D → dim), without the final normalisation."""
        projection = self._cut(dim).float()
        layer = nn.Linear(projection.shape[1], projection.shape[0])
        with torch.no_grad():
            layer.weight.copy_(projection)
            layer.bias.copy_(-projection @ self.mean.float())
        return layer

    def _cut(self, dim: int | None) -> Tensor:
        dim = len(self.projection) if dim is None else dim
        if not 1 <= dim <= len(self.projection):
            raise ValueError(f"expected dim in 1 … {len(self.projection)}, got {dim}")
        return self.projection[:dim]


def learn_whitening(x: Tensor, query_ids: Tensor, positive_ids: Tensor) -> Whitening:
    """Learn a whitening from matching pairs.

    Args:
        x: (N, D) descriptors.
        query_ids: (P,) rows of the queries.
        positive_ids: (P,) rows that show the same as the query next to it.

    Raises:
        ValueError: if the shapes don't fit, or the differences span fewer than D dimensions.
    """
    _check_rows(x)
    if query_ids.ndim != 1 or query_ids.shape != positive_ids.shape or not len(query_ids):
        raise ValueError(
            f"expected as many positives as queries, at least one pair, got "
            f"{tuple(query_ids.shape)} and {tuple(positive_ids.shape)}"
        )
    x = x.double()
    mean = x[query_ids].mean(dim=0)  # (D,)
    difference = x[query_ids] - x[positive_ids]  # (P, D)
    lower, failed = torch.linalg.cholesky_ex(difference.T @ difference / len(difference))
    if failed:
        raise ValueError(
            f"expected pairs whose differences span all {x.shape[1]} dimensions, got "
            f"{len(difference)} pairs that don't; use more pairs or pca_whitening"
        )
    shaped = torch.linalg.solve_triangular(lower, (x - mean).T, upper=False)  # (D, N)
    _, vectors = torch.linalg.eigh(shaped @ shaped.T)
    rotation = vectors.flip(dims=(1,)).T  # rows by falling eigenvalue
    inverse = torch.linalg.solve_triangular(lower, torch.eye(len(lower)).to(lower), upper=False)
    return Whitening(mean, rotation @ inverse)


def pca_whitening(x: Tensor, *, power: float = 0.5, eps: float = 1e-12) -> Whitening:
    """Whiten by the principal components of (N, D) descriptors.

    Args:
        x: (N, D), N ≥ 2.
        power: 0.5 whitens fully, 0 only rotates, between them the spectrum is flattened in part.
        eps: eigenvalues below ``eps`` times the largest count as that (directions without data).

    Raises:
        ValueError: if there are fewer than two rows.
    """
    _check_rows(x)
    x = x.double()
    mean = x.mean(dim=0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    values, vectors = values.flip(0), vectors.flip(dims=(1,))
    scale = values.clamp(min=max(float(values[0]) * eps, torch.finfo(x.dtype).tiny)) ** -power
    return Whitening(mean, scale[:, None] * vectors.T)


def label_whitening(
    x: Tensor,
    labels: Tensor | None,
    *,
    shrink: float = 0.3,
    power: float = 0.1,
    components: int = 1500,
) -> Whitening:
    """Learn a whitening from labelled descriptors.

    Args:
        x: (N, D) descriptors, N ≥ 2; need not have unit length.
        labels: (N,) integers, −1 for none; those of fewer than 3 rows serve the PCA alone. None:
            no labels at all, which is :func:`pca_whitening`.
        shrink: share of the identity in the scatter, 0 … 1.
        power: of the variances after it; 0 only rotates.
        components: principal components that are kept before the scatter is measured, so that
            it can be measured: no more than there are rows.

    Raises:
        ValueError: if shapes or numbers are not as above, or no label has 3 rows.
    """
    _check_rows(x)
    wrong = labels is not None and labels.shape != x.shape[:1]
    if wrong or not 0 <= shrink <= 1 or components < 1:
        raise ValueError(
            f"expected {len(x)} labels, shrink in 0 … 1 and components >= 1, got "
            f"{None if labels is None else tuple(labels.shape)}, {shrink} and {components}"
        )
    x = x.double()
    mean = x.mean(dim=0)
    axes = _principal_axes(x - mean, components)  # (D, D′)
    if labels is not None:
        axes = axes @ _inverse_root(_shrunk(_within((x - mean) @ axes, labels), shrink))
    after = pca_whitening((x - mean) @ axes, power=power)
    return Whitening(mean, after.projection @ axes.T)


def choose_shrink(
    x: Tensor,
    labels: Tensor,
    score: Callable[[Tensor, Tensor], float],
    *,
    shrinks: Sequence[float] = (0.1, 0.2, 0.3, 0.5, 0.7),
    folds: int = 5,
    dim: int | None = None,
) -> tuple[float, dict[float, float]]:
    """Choose ``shrink`` by leaving labels out: fit on some, score on those it has not seen.

    Args:
        x: (N, D) descriptors.
        labels: (N,) integers; the i-th of the sorted labels is left out in fold i mod ``folds``.
        score: (n, dim) unit rows, (n,) labels → a number, larger is better, such as a mAP.
        shrinks: to choose from.
        folds: ≥ 2.
        dim: of the whitened rows; None: all.

    Returns:
        The best (the first of equals), and the mean score of each.
    """
    if folds < 2 or not shrinks:
        raise ValueError(f"expected folds >= 2 and something to choose, got {folds}, {shrinks}")
    fold = torch.unique(labels, return_inverse=True)[1] % folds  # (N,)
    means = {}
    for shrink in shrinks:
        scores = []
        for left_out in range(folds):
            seen, unseen = fold != left_out, fold == left_out
            whitening = label_whitening(x[seen], labels[seen], shrink=shrink)
            most = None if dim is None else min(dim, len(whitening.projection))
            scores.append(score(whitening.apply(x[unseen], most), labels[unseen]))
        means[shrink] = sum(scores) / folds
    return max(means, key=lambda s: means[s]), means


def _principal_axes(a: Tensor, count: int, eps: float = 1e-10) -> Tensor:
    """(N, D) centred rows → (D, D′): orthonormal axes of falling variance, those with data."""
    wide = a.shape[0] < a.shape[1]
    values, vectors = torch.linalg.eigh(a @ a.T if wide else a.T @ a)
    values, vectors = values.flip(0), vectors.flip(dims=(1,))
    kept = min(count, int((values > eps * values[0]).sum()))
    values, vectors = values[:kept], vectors[:, :kept]
    return a.T @ (vectors / values.sqrt()) if wide else vectors


def _within(y: Tensor, labels: Tensor) -> Tensor:
    """Scatter (D, D) of rows around their label's mean, the mean of it over labels."""
    found, counts = torch.unique(labels[labels >= 0], return_counts=True)
    found = found[counts >= 3]
    if not len(found):
        raise ValueError("expected at least one label with 3 rows, got none")
    total = torch.zeros(y.shape[1], y.shape[1], dtype=y.dtype, device=y.device)
    for label in found:
        rows = y[labels == label]
        rows = rows - rows.mean(dim=0)
        total += rows.T @ rows / len(rows)
    return total / len(found)


def _shrunk(scatter: Tensor, shrink: float) -> Tensor:
    one = torch.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)
    return (1 - shrink) * scatter + shrink * scatter.diagonal().mean() * one


def _inverse_root(scatter: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(scatter)
    if values[0] <= 1e-12 * values[-1]:
        raise ValueError("expected shrink > 0 where labels don't vary in every direction, got 0")
    return vectors / values.sqrt() @ vectors.T


def _check_rows(x: Tensor) -> None:
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"expected descriptors (N, D) with N ≥ 2, got {tuple(x.shape)}")
