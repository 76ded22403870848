r"""Generalised-mean pooling (GeM).

.. math:: y_c = \Big(\frac{1}{HW}\sum_{h,w} \max(x_{chw}, \varepsilon)^{p}\Big)^{1/p}

p = 1 is the average (SPoC), p → ∞ the maximum (MAC). Radenović, Tolias, Chum: *Fine-tuning CNN
Image Retrieval with No Human Annotation*, TPAMI 2019, eq. 2.

Regional GeM pools windows as well as the whole map. With R-MAC's overlapping squares (Tolias, Sicre
& Jégou: *Particular Object Retrieval with Integral Max-Pooling*, ICLR 2016, §3.2) taken as n × n
windows of 2/(n+1) of each side, n = 2 … L, and unit-length y,

.. math:: r = \hat y(\text{map}) + \sum_{n=2}^{L} \frac{1}{n^2} \sum_{i,j=1}^{n}
          \hat y(\text{window}_{n,ij}), \qquad \hat r = r / \lVert r \rVert .
"""

import torch
from torch import Tensor, nn

from spatial_retrieval.layers.rebuildable import Rebuildable

__all__ = ["GeM", "RegionalGeM", "gem", "mac", "regional_gem", "spoc", "windows"]


def gem(x: Tensor, p: float | Tensor = 3.0, eps: float = 1e-6) -> Tensor:
    """Pool a feature map to one vector: clamp, power, mean, root.

    Args:
        x: (B, C, H, W), read as non-negative: values below ``eps`` count as ``eps``.
        p: > 0, one number or one per channel (C,).
        eps: lower clamp, keeps powers and gradients finite.

    Returns:
        (B, C).

    Raises:
        ValueError: if ``x`` is not (B, C, H, W) with at least one cell, or ``p`` is not positive.

    Example:
        >>> gem(torch.tensor([[[[1.0, 3.0]]]]), p=1.0)
        tensor([[2.]])
    """
    _check_map(x)
    p = torch.as_tensor(p, dtype=x.dtype, device=x.device)
    if p.ndim > 1 or (p.ndim == 1 and p.numel() not in (1, x.shape[1])) or not bool((p > 0).all()):
        raise ValueError(f"expected p > 0, one number or C = {x.shape[1]} of them, got {p}")
    # Dividing by the maximum first keeps x**p finite for any p: gem(s·x) = s·gem(x).
    top = x.amax(dim=(-2, -1), keepdim=True).clamp(min=eps).detach()  # (B, C, 1, 1)
    power = p.reshape(-1, 1, 1)  # (C or 1, 1, 1)
    mean = (x.clamp(min=eps) / top).pow(power).mean(dim=(-2, -1))  # (B, C)
    return top.flatten(1) * mean.pow(1 / p)


def spoc(x: Tensor) -> Tensor:
    """Average pooling (B, C, H, W) → (B, C): GeM's limit p = 1 on a non-negative map."""
    _check_map(x)
    return x.mean(dim=(-2, -1))


def mac(x: Tensor) -> Tensor:
    """Maximum pooling (B, C, H, W) → (B, C): GeM's limit p → ∞."""
    _check_map(x)
    return x.amax(dim=(-2, -1))


class GeM(Rebuildable, nn.Module):
    """:func:`gem` with its own p: fixed, learned, or learned per channel.

    Args:
        p: start value, > 0.
        learnable: whether p is trained.
        channels: one p for each of so many channels; None: one p for all.
    """

    def __init__(
        self, p: float = 3.0, *, learnable: bool = False, channels: int | None = None
    ) -> None:
        super().__init__()
        if not p > 0:
            raise ValueError(f"expected p > 0, got {p}")
        start = torch.full((channels or 1,), float(p))
        self.p = nn.Parameter(start, requires_grad=learnable)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C)."""
        return gem(x, self.p.clamp(min=0.1) if self.p.requires_grad else self.p)


def windows(height: int, width: int, n: int) -> list[tuple[int, int, int, int]]:
    """The n × n overlapping windows of a grid, as (top, left, bottom, right), end-exclusive.

    Example:
        >>> windows(6, 3, 2)
        [(0, 0, 4, 2), (0, 1, 4, 3), (2, 0, 6, 2), (2, 1, 6, 3)]
    """
    rows, columns = _spans(height, n), _spans(width, n)
    return [(top, left, bottom, right) for top, bottom in rows for left, right in columns]


def regional_gem(
    x: Tensor, p: float | Tensor = 3.0, *, levels: int = 3, eps: float = 1e-6
) -> Tensor:
    """Sum of the unit GeM vectors of the map and of its windows, each level counting alike.

    Args:
        x: (B, C, H, W), read as :func:`gem` does.
        p: > 0, one number or one per channel (C,).
        levels: L ≥ 1; 1 is the unit GeM vector of the whole map.
        eps: lower clamp.

    Returns:
        (B, C) unit rows.

    Raises:
        ValueError: as :func:`gem`, or if ``levels`` is below 1.

    Example:
        >>> regional_gem(torch.ones(1, 4, 5, 5))
        tensor([[0.5000, 0.5000, 0.5000, 0.5000]])
    """
    if levels < 1:
        raise ValueError(f"expected levels >= 1, got {levels}")
    total = nn.functional.normalize(gem(x, p, eps), dim=1)
    for n in range(2, levels + 1):
        for top, left, bottom, right in windows(*x.shape[-2:], n):
            part = gem(x[..., top:bottom, left:right], p, eps)
            total = total + nn.functional.normalize(part, dim=1) / n**2
    return nn.functional.normalize(total, dim=1)


class RegionalGeM(Rebuildable, nn.Module):
    """:func:`regional_gem` with its own p, fixed or learned.

    Args:
        p: start value, > 0.
        levels: of windows.
        learnable: whether p is trained.

    Example:
        >>> RegionalGeM()(torch.rand(2, 64, 7, 9)).shape
        torch.Size([2, 64])
    """

    def __init__(self, p: float = 3.0, *, levels: int = 3, learnable: bool = False) -> None:
        super().__init__()
        if not p > 0 or levels < 1:
            raise ValueError(f"expected p > 0 and levels >= 1, got {p} and {levels}")
        self.levels = levels
        self.p = nn.Parameter(torch.full((1,), float(p)), requires_grad=learnable)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C) unit rows."""
        p = self.p.clamp(min=0.1) if self.p.requires_grad else self.p
        return regional_gem(x, p, levels=self.levels)


def _spans(side: int, n: int) -> list[tuple[int, int]]:
    """Start and end of n windows of 2/(n+1) of a side, evenly from one end to the other."""
    length = max(1, 2 * side // (n + 1))
    starts = [i * (side - length) // (n - 1) for i in range(n)] if n > 1 else [0]
    return [(start, start + length) for start in starts]


def _check_map(x: Tensor) -> None:
    if x.ndim != 4 or x.shape[-1] * x.shape[-2] == 0:
        raise ValueError(f"expected a feature map (B, C, H, W) with cells, got {tuple(x.shape)}")
