r"""Cells in the query's own terms: what all of them share counts less.

The cells of query and gallery are whitened by the query's statistics, so that what its cells share
(light, blur, sky) counts less than what tells them apart. With the mean :math:`\mu` and covariance
:math:`\Sigma = V \Lambda V^\top` of all its cells,

.. math:: z = \frac{W (x - \mu)}{\|W (x - \mu)\|}, \qquad
          W = (\Lambda + \rho\,\bar\lambda)^{-p/2}\, V^\top ,

a full whitening for p = 1, centring alone for p = 0.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["Whitener"]


@dataclass(frozen=True, slots=True, eq=False)
class Whitener:
    """The map x → z of this module.

    Attributes:
        mean: (C, 1).
        matrix: (K, C), K ≤ C directions that hold all variance.
    """

    mean: Tensor
    matrix: Tensor

    @classmethod
    def fit(cls, x: Tensor, *, power: float = 0.5, ridge: float = 0.1) -> "Whitener":
        """Statistics of the cells of one map (C, H, W)."""
        cells = x.flatten(1)
        mean = cells.mean(dim=1, keepdim=True)
        centred = cells - mean
        values, directions = _principal(centred)
        floor = ridge * values.sum() / len(cells)
        scale = (values + floor).clamp(min=1e-12) ** (-power / 2)
        if centred.abs().max() <= 1e-5 * cells.abs().max():  # a constant map: rounding, no cells
            scale = torch.zeros_like(scale)
        return cls(mean, scale[:, None] * directions.T)

    def __call__(self, x: Tensor) -> Tensor:
        """(C, H, W) → (N, K) unit rows."""
        return normalize(self.matrix @ (x.flatten(1) - self.mean), dim=0).T


def _principal(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Variances (K,) of centred cells (C, N) along their K = min(C, N) directions (C, K)."""
    channels, count = centred.shape
    if channels > count:
        directions, spread, _ = torch.linalg.svd(centred, full_matrices=False)
        return spread.square() / count, directions
    # The covariance takes a third of the SVD's time; in double, as products lose half the digits.
    exact = centred.double()
    values, directions = torch.linalg.eigh(exact @ exact.T / count)
    return values.to(centred.dtype), directions.to(centred.dtype)
