r"""Second-order attention (SOLAR): every cell attends to all others, the peer of smoothing.

.. math:: y = x + v\big(\mathrm{softmax}(f(x)^\top g(x) / \sqrt{m})\; h(x)\big)

f, g: 1×1 convolution, batch norm, ReLU to m channels; h, v: 1×1 convolutions, v starts at 0.
Ng, Balntas, Tian, Mikolajczyk: *SOLAR: Second-Order Loss and Attention for Image Retrieval*,
ECCV 2020.
"""

import torch
from torch import Tensor, nn

from spatial_retrieval.layers.rebuildable import Rebuildable

__all__ = ["SecondOrderAttention", "attention_weights"]


def attention_weights(f: Tensor, g: Tensor) -> Tensor:
    """How much each cell attends to each other one: softmax over the second N of fᵀg/√m.

    Args:
        f: (B, m, H, W), what a cell looks for.
        g: (B, m, H, W), what a cell shows.

    Returns:
        (B, N, N), rows sum to 1.

    Raises:
        ValueError: if f and g are not of one shape (B, m, H, W).

    Example:
        >>> attention_weights(torch.zeros(1, 4, 1, 2), torch.ones(1, 4, 1, 2))
        tensor([[[0.5000, 0.5000],
                 [0.5000, 0.5000]]])
    """
    if f.ndim != 4 or f.shape != g.shape:
        raise ValueError(
            f"expected f and g of one shape (B, m, H, W), got {tuple(f.shape)} and {tuple(g.shape)}"
        )
    scores = torch.bmm(f.flatten(2).transpose(1, 2), g.flatten(2))  # (B, N, N)
    return torch.softmax(scores * f.shape[1] ** -0.5, dim=-1)


class SecondOrderAttention(Rebuildable, nn.Module):
    """SOLAR's block; its state dict loads from and into the published one.

    Args:
        channels: C of the map.
        reduction: m = C // reduction; SOLAR uses 4 after conv4 and 2 after conv5.

    Example:
        >>> SecondOrderAttention(64, reduction=4)(torch.rand(2, 64, 7, 9)).shape
        torch.Size([2, 64, 7, 9])
    """

    def __init__(self, channels: int, *, reduction: int = 4) -> None:
        super().__init__()
        middle = channels // reduction if reduction >= 1 else 0
        if middle < 1:
            raise ValueError(
                f"expected 1 <= reduction <= channels = {channels}, got reduction = {reduction}"
            )
        self.f = nn.Sequential(nn.Conv2d(channels, middle, 1), nn.BatchNorm2d(middle), nn.ReLU())
        self.g = nn.Sequential(nn.Conv2d(channels, middle, 1), nn.BatchNorm2d(middle), nn.ReLU())
        self.h = nn.Conv2d(channels, middle, 1)
        self.v = nn.Conv2d(middle, channels, 1)
        nn.init.zeros_(self.v.weight)
        nn.init.zeros_(self.v.bias)

    def attention(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, N, N): row n holds what cell n attends to."""
        _check_map(x, self.h.in_channels)
        return attention_weights(self.f(x), self.g(x))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        attention = self.attention(x)
        z = torch.bmm(self.h(x).flatten(2), attention.transpose(1, 2))  # (B, m, N)
        return x + self.v(z.unflatten(2, x.shape[-2:]))


def _check_map(x: Tensor, channels: int) -> None:
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"expected x (B, C = {channels}, H, W), got {tuple(x.shape)}")
