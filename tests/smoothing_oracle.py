"""Smoothing in plain loops and in plain operations, and the grids on which it is compared."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

# batch, height, width, K, dilation: one cell, one row, one column, several uneven tiles, a kernel
# that is larger than the map, and dilations that leave holes
GRIDS = [
    (1, 1, 1, 3, 1),
    (1, 1, 9, 3, 1),
    (2, 11, 1, 5, 1),
    (3, 4, 3, 7, 1),
    (1, 9, 17, 3, 1),
    (3, 10, 9, 5, 1),
    (2, 9, 10, 3, 2),
    (1, 5, 12, 5, 3),
    (2, 3, 4, 1, 1),
]


def random_inputs(
    batch: int, height: int, width: int, channels: int = 4, d: int = 3
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch + 10 * height + 100 * width)
    double = {"dtype": torch.float64, "generator": generator}
    x = torch.randn(batch, channels, height, width, **double)
    f = torch.randn(batch, d, height, width, **double)
    a = torch.rand(batch, 1, height, width, **double) + 0.1
    c = torch.rand(batch, 1, height, width, **double) * 0.8 + 0.1
    return x, f, a, c


def neighbours(y: int, x: int, height: int, width: int, size: int, dilation: int):
    """(number of the offset, row, column) of the neighbours that are on the map."""
    for i, j in itertools.product(range(size), repeat=2):
        v, u = y + dilation * (i - size // 2), x + dilation * (j - size // 2)
        if 0 <= v < height and 0 <= u < width:
            yield i * size + j, v, u


def slow_weights(f: Tensor, a: Tensor, c: Tensor, size: int, dilation: int) -> Tensor:
    batch, _, height, width = f.shape
    w = torch.zeros(batch, size**2, height, width, dtype=f.dtype)
    for b, y, x in itertools.product(range(batch), range(height), range(width)):
        for o, v, u in neighbours(y, x, height, width, size, dilation):
            distance = sum(
                float(p - q) ** 2 for p, q in zip(f[b, :, y, x], f[b, :, v, u], strict=True)
            )
            alike = math.exp(-float(a[b, 0, y, x]) * distance)
            w[b, o, y, x] = c[b, 0, y, x] if (v, u) == (y, x) else alike
    return w


def slow_smooth(
    x: Tensor, w: Tensor, size: int, dilation: int, eps: float = 1e-6, beta: float = 0.0
) -> Tensor:
    batch, _, height, width = x.shape
    out = torch.zeros_like(x)
    for b, i, j in itertools.product(range(batch), range(height), range(width)):
        total = 0.0
        for o, v, u in neighbours(i, j, height, width, size, dilation):
            out[b, :, i, j] += w[b, o, i, j] * x[b, :, v, u]
            total += float(w[b, o, i, j])
        out[b, :, i, j] *= (total + eps) ** -(1 + beta)
    return out


def unfold_smooth(x: Tensor, f: Tensor, a: Tensor, c: Tensor, size: int, dilation: int) -> Tensor:
    """The formula in plain differentiable operations: an oracle for the gradients."""
    batch, channels, height, width = x.shape
    options = {"dilation": dilation, "padding": dilation * (size // 2)}
    near = F.unfold(x, size, **options).view(batch, channels, -1, height, width)
    near_f = F.unfold(f, size, **options).view(batch, f.shape[1], -1, height, width)
    on_map = F.unfold(torch.ones_like(a), size, **options).view(batch, -1, height, width)
    w = torch.exp(-a * (near_f - f.unsqueeze(2)).square().sum(1)) * on_map
    is_centre = torch.arange(size**2).view(1, -1, 1, 1) == size**2 // 2
    w = torch.where(is_centre, c, w)
    return (near * w.unsqueeze(1)).sum(2) / (w.sum(1, keepdim=True) + 1e-6)
