r"""Second-order pooling: which local features occur together.

With the cells of a map as columns :math:`z_1 … z_N ∈ ℝ^C`, each perhaps with a weight
:math:`w_n`, the descriptor is the upper triangle of the matrix square root of their second moment,

.. math::
    G = \frac{1}{N} \sum_n w_n^2\, z_n z_n^\top, \qquad
    y = \operatorname{triu}(G^{1/2}) \,/\, \lVert \operatorname{triu}(G^{1/2}) \rVert .

The moment counts pairs of channels that fire in one cell (Carreira, Caseiro, Batista &
Sminchisescu, *Semantic Segmentation with Second-Order Pooling*, ECCV 2012, §3; Lin, RoyChowdhury
& Maji, *Bilinear CNN Models*, ICCV 2015). The root tames bursts: what occurs a hundred times counts
ten times (Li, Xie, Wang & Zuo, *Is Second-Order Information Helpful for Large-Scale Visual
Recognition?*, ICCV 2017). It is taken by the coupled Newton–Schulz iteration on
:math:`Y_0 = G / \operatorname{tr} G` (Li, Xie, Wang & Gao, *Towards Faster Training of Global
Covariance Pooling Networks by Iterative Matrix Square Root Normalization*, CVPR 2018, eq. 5),

.. math::
    T_k = \tfrac12 (3 I - Z_k Y_k), \qquad Y_{k+1} = Y_k T_k, \qquad Z_{k+1} = T_k Z_k,
    \qquad Z_0 = I, \qquad G^{1/2} ≈ \sqrt{\operatorname{tr} G}\; Y_k,

which is made of matrix products alone and so has a gradient everywhere.
"""

import torch
from torch import Tensor, nn

from spatial_retrieval.layers.rebuildable import Rebuildable

__all__ = ["SecondOrderPooling", "matrix_root", "second_order"]


def matrix_root(g: Tensor, *, steps: int = 12) -> Tensor:
    """Square root of positive semi-definite matrices by Newton–Schulz.

    Args:
        g: (B, C, C), symmetric.
        steps: of the iteration; with 12 the descriptor of a map of 112 channels is that of an
            eigendecomposition to 1e-4.

    Returns:
        (B, C, C); zeros for a matrix of zeros.

    Raises:
        ValueError: if ``g`` is not (B, C, C), or ``steps`` is below 1.

    Example:
        >>> matrix_root(torch.tensor([[[4.0, 0.0], [0.0, 9.0]]])).round(decimals=3)
        tensor([[[2., 0.],
                 [0., 3.]]])
    """
    if g.ndim != 3 or g.shape[1] != g.shape[2] or steps < 1:
        raise ValueError(
            f"expected matrices (B, C, C) and steps >= 1, got {tuple(g.shape)} and {steps}"
        )
    trace = g.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[:, None, None]
    trace = trace.clamp(min=torch.finfo(g.dtype).tiny)  # (B, 1, 1)
    one = torch.eye(g.shape[-1], dtype=g.dtype, device=g.device)
    y, z = g / trace, one
    for _ in range(steps):
        t = 1.5 * one - 0.5 * (z @ y)
        y, z = y @ t, t @ z
    return y * trace.sqrt()


def second_order(
    x: Tensor, weights: Tensor | None = None, *, projection: Tensor | None = None, steps: int = 12
) -> Tensor:
    """Pool a map to the root of its second moment.

    Args:
        x: (B, C, H, W).
        weights: (B, 1, H, W), multiplied onto the cells; None: all count alike.
        projection: (P, C), applied to the cells first where C is large; None: none.
        steps: see :func:`matrix_root`.

    Returns:
        (B, P(P+1)/2) unit rows, at least float32; P = C without a projection.

    Raises:
        ValueError: if shapes are not as above, or the map has no cells.

    Example:
        >>> second_order(torch.tensor([[[[3.0, 0.0]], [[0.0, 3.0]]]])).round(decimals=3)
        tensor([[0.7070, 0.0000, 0.7070]])
    """
    _check(x, weights, projection)
    z = x.flatten(2).to(torch.promote_types(x.dtype, torch.float32))  # (B, C, N)
    if projection is not None:
        z = projection.to(z) @ z
    if weights is not None:
        z = z * weights.flatten(2).to(z)
    root = matrix_root(z @ z.mT / z.shape[-1], steps=steps)
    rows, columns = torch.triu_indices(*root.shape[-2:], device=x.device)
    return nn.functional.normalize(root[:, rows, columns], dim=1)


class SecondOrderPooling(Rebuildable, nn.Module):
    """:func:`second_order` of a map of C channels, its cells perhaps weighed and projected.

    Args:
        channels: C.
        weigh: a module (B, C, H, W) → (B, 1, H, W), such as
            :class:`~spatial_retrieval.layers.cell_weights.Rarity`; None: all cells count alike.
        project: P, for a fixed projection to so many channels; None: none. It starts as random
            orthonormal rows and is a buffer, ``projection``, to be filled with principal axes.
        steps: see :func:`matrix_root`.

    Attributes:
        out_features: length of the pooled vector.

    Example:
        >>> SecondOrderPooling(64, project=16)(torch.rand(2, 64, 7, 9)).shape
        torch.Size([2, 136])
    """

    projection: Tensor | None

    def __init__(
        self,
        channels: int,
        *,
        weigh: nn.Module | None = None,
        project: int | None = None,
        steps: int = 12,
    ) -> None:
        super().__init__()
        width = channels if project is None else project
        if not 1 <= width <= channels or steps < 1:
            raise ValueError(
                f"expected 1 <= project <= channels = {channels} and steps >= 1, got {project} "
                f"and {steps}"
            )
        self.channels, self.steps = channels, steps
        self.out_features = width * (width + 1) // 2
        self.weigh = weigh
        self.register_buffer("projection", None if project is None else _axes(project, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, out_features) unit rows."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"expected a map (B, C = {self.channels}, H, W), got {tuple(x.shape)}")
        weights = None if self.weigh is None else self.weigh(x)
        return second_order(x, weights, projection=self.projection, steps=self.steps)


def _axes(rows: int, columns: int) -> Tensor:
    """(rows, columns) with orthonormal rows, the same on every call."""
    draw = torch.randn(columns, rows, generator=torch.Generator().manual_seed(0))
    return torch.linalg.qr(draw)[0].T.contiguous()


def _check(x: Tensor, weights: Tensor | None, projection: Tensor | None) -> None:
    if x.ndim != 4 or x.shape[-1] * x.shape[-2] == 0:
        raise ValueError(f"expected a feature map (B, C, H, W) with cells, got {tuple(x.shape)}")
    if weights is not None and weights.shape != (x.shape[0], 1, *x.shape[2:]):
        raise ValueError(
            f"expected weights {(x.shape[0], 1, *x.shape[2:])}, got {tuple(weights.shape)}"
        )
    if projection is not None and (projection.ndim != 2 or projection.shape[1] != x.shape[1]):
        raise ValueError(f"expected a projection (P, {x.shape[1]}), got {tuple(projection.shape)}")
