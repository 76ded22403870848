r"""Whitening: centre, rotate, rescale, cut, and bring back to unit length.

From pairs (learned; Mikolajczyk and Matas 2007, as in Radenović et al. 2019, sec. 3.4)::

    m = mean of the queries        S = mean of (q − p)(q − p)ᵀ over matching pairs
    P = V ᵀ L⁻¹                    L Lᵀ = S (Cholesky), V = eigenvectors of L⁻¹(X − m)(X − m)ᵀL⁻ᵀ

so that differences within a pair have unit covariance, and the axes are sorted by how much the
whole set varies along them. By PCA: m the mean, P = Λ^(−power) Vᵀ of the covariance, power ½.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Whitening", "learn_whitening", "pca_whitening"]


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
        positive_ids: (P,) rows that show the same as the query beside it.

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


def _check_rows(x: Tensor) -> None:
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"expected descriptors (N, D) with N ≥ 2, got {tuple(x.shape)}")
