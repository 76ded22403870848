r"""How much each cell of a map counts: a cell among its likes counts less.

The smoothing kernel of :mod:`~spatial_retrieval.layers.smoothing` finds a cell's likes, and its
normaliser Σw says how many there are. With the cells centred over the map and brought to unit
length as kernel features :math:`f_p`, one bandwidth a and c = 1,

.. math::
    s_p = \frac{1}{n_p} \sum_q \exp(-a \lVert f_p - f_q \rVert^2), \qquad
    w_p = s_p^{-β} \Big/ \frac1N \sum_r s_r^{-β},

where q runs over the K×K neighbourhood of p as far as it lies on the map, and :math:`n_p` is the
number of cells there. β = 1 divides a run of equal cells by its length, β = 0 changes nothing. It
is the burstiness of Jégou, Douze & Schmid (*On the Burstiness of Visual Elements*, CVPR 2009, eq.
4), here between neighbours on the map.
"""

import torch
from torch import Tensor, nn

from spatial_retrieval.layers.rebuildable import Rebuildable
from spatial_retrieval.layers.smoothing import smoothing_weights
from spatial_retrieval.layers.smoothing_kernels import inside

__all__ = ["Rarity", "TrustedRarity", "rarity"]


def rarity(
    x: Tensor, *, kernel_size: int = 7, bandwidth: float = 5.0, burstiness: float = 1.0
) -> Tensor:
    """The weight w of every cell.

    Args:
        x: (B, C, H, W).
        kernel_size: K, odd.
        bandwidth: a ≥ 0; larger: only nearly equal cells are likes.
        burstiness: β ≥ 0.

    Returns:
        (B, 1, H, W), > 0, of mean 1 over each map, at least float32.

    Raises:
        ValueError: if the map, K or the numbers are not as above.

    Example:
        >>> rarity(torch.tensor([[[[1.0, 1.0, 1.0, 9.0]]]]), kernel_size=3).round(decimals=2)
        tensor([[[[0.7300, 0.7300, 1.0900, 1.4500]]]])
    """
    if x.ndim != 4 or x.shape[-1] * x.shape[-2] == 0:
        raise ValueError(f"expected a feature map (B, C, H, W) with cells, got {tuple(x.shape)}")
    if bandwidth < 0 or burstiness < 0:
        raise ValueError(
            f"expected bandwidth >= 0 and burstiness >= 0, got {bandwidth} and {burstiness}"
        )
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    f = nn.functional.normalize(x - x.mean(dim=(-2, -1), keepdim=True), dim=1)
    one = torch.ones_like(f[:, :1])  # (B, 1, H, W)
    w = smoothing_weights(f, bandwidth * one, one, kernel_size=kernel_size)  # (B, K², H, W)
    there = inside(*x.shape[-2:], kernel_size=kernel_size, dilation=1, like=f)
    s = w.sum(dim=1, keepdim=True) / there.sum(dim=-3, keepdim=True)
    weight = s**-burstiness
    return weight / weight.mean(dim=(-2, -1), keepdim=True)


class Rarity(Rebuildable, nn.Module):
    """:func:`rarity` with its numbers kept: (B, C, H, W) → (B, 1, H, W).

    Example:
        >>> Rarity(kernel_size=3)(torch.rand(2, 8, 5, 4)).shape
        torch.Size([2, 1, 5, 4])
    """

    def __init__(
        self, *, kernel_size: int = 7, bandwidth: float = 5.0, burstiness: float = 1.0
    ) -> None:
        super().__init__()
        self.numbers = {
            "kernel_size": kernel_size, "bandwidth": bandwidth, "burstiness": burstiness,
        }  # fmt: skip
        rarity(torch.ones(1, 1, 1, 1), **self.numbers)  # says now what is wrong with them

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, 1, H, W)."""
        return rarity(x, **self.numbers)


class TrustedRarity(Rebuildable, nn.Module):
    r"""Rarity times a learned self-confidence: smoothing's c as a weight of the cell.

    .. math:: w_p = \mathrm{rarity}_p \cdot 2\,\sigma(g(x)_p), \qquad
              g = \mathrm{Conv}_{1×1} ∘ \mathrm{GELU} ∘ \mathrm{Conv}_{1×1} ∘ \mathrm{GroupNorm}

    g is 0 at the start, so that an untrained one is :class:`Rarity` itself.

    Args:
        channels: C.
        hidden: width of g.
        kernel_size, bandwidth, burstiness: of :func:`rarity`.

    Example:
        >>> TrustedRarity(8, kernel_size=3)(torch.rand(2, 8, 5, 4)).shape
        torch.Size([2, 1, 5, 4])
    """

    def __init__(
        self,
        channels: int,
        *,
        hidden: int = 64,
        kernel_size: int = 7,
        bandwidth: float = 5.0,
        burstiness: float = 1.0,
    ) -> None:
        super().__init__()
        self.rarity = Rarity(kernel_size=kernel_size, bandwidth=bandwidth, burstiness=burstiness)
        self.confidence = nn.Sequential(
            nn.GroupNorm(1, channels),
            nn.Conv2d(channels, hidden, 1),
            nn.GELU(),
            nn.Conv2d(hidden, 1, 1),
        )
        nn.init.zeros_(self.confidence[3].weight)
        nn.init.zeros_(self.confidence[3].bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, 1, H, W)."""
        return self.rarity(x) * 2 * self.confidence(x).sigmoid()
