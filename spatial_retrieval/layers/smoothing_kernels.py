r"""The arithmetic below smoothing: sums over K×K neighbourhoods that never build K²·C·H·W numbers.

With o = (i, j) one of the K² offsets, δ the dilation, and p+o the cell that lies δ(i−⌊K/2⌋) rows
and δ(j−⌊K/2⌋) columns away (offsets are counted row by row)::

    aggregate(x, w)       y[:, p]  = Σ_o w[o, p] · x[:, p+o]       cells outside the map count as 0
    correlate(g, x)       s[o, p]  = ⟨g[:, p], x[:, p+o]⟩
    transpose(w)          wᵀ[o, p] = w[−o, p+o]
    squared_distances(f)  D[o, p]  = ‖f[:, p] − f[:, p+o]‖²        0 where p+o is outside

They are each other's derivatives: ∂y/∂x is ``aggregate`` with ``transpose(w)``, ∂y/∂w is
``correlate``, and so on for any order, so nothing but the inputs is kept for the backward pass.

The map is cut into tiles of 8 × 8 cells. The neighbourhoods of one tile lie in a window of
(8 + δ(K−1))² cells; its weights form a banded matrix (64 × window), filled through a strided view
of its diagonals, and one dense product with the window's (window × C) features does the rest. Three
quarters of that matrix are zeros, yet the product runs at the speed of a matrix product. For C =
2048, 32×32 cells and K = 7 on one thread it took 14 ms; a sparse (HW × HW) matrix 15 ms, bands of
whole rows 19, shift-and-add 30. The sparse one, about as fast, is one per image; this takes batches
and half precision as they are, and is made of plain operations that every device has.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["aggregate", "correlate", "inside", "squared_distances", "transpose"]

# Cells a side: 4 is as fast but starts 4 times as many products, 16 takes 1.6 times as long.
TILE = 8


def aggregate(x: Tensor, w: Tensor, *, kernel_size: int, dilation: int = 1) -> Tensor:
    """Weighted sum over each cell's neighbourhood.

    Args:
        x: (B, C, H, W), any memory layout.
        w: (B, K², H, W), weights of the neighbours of each cell.
        kernel_size: K, odd.
        dilation: δ ≥ 1, distance of two neighbouring offsets in cells.

    Returns:
        (B, C, H, W) of x's dtype, channels-last in memory.
    """
    with torch.autocast(x.device.type, enabled=False):  # the dtype of x decides
        return _Aggregate.apply(x, w.to(x.dtype), kernel_size, dilation)


def correlate(g: Tensor, x: Tensor, *, kernel_size: int, dilation: int = 1) -> Tensor:
    """Inner products of each cell of g with its neighbours in x: (B, C, H, W) → (B, K², H, W)."""
    with torch.autocast(x.device.type, enabled=False):
        return _Correlate.apply(g, x, kernel_size, dilation)


def transpose(w: Tensor, *, kernel_size: int, dilation: int = 1) -> Tensor:
    """Weights (B, K², H, W) as the neighbours see them: (p, o) becomes (p+o, −o)."""
    reach = dilation * (kernel_size // 2)
    height, width = w.shape[-2:]
    padded = F.pad(w, (reach, reach, reach, reach)).flip(1)
    corners = [divmod(o, kernel_size) for o in range(kernel_size**2)]
    shifted = [
        padded[:, o, i * dilation : i * dilation + height, j * dilation : j * dilation + width]
        for o, (i, j) in enumerate(corners)
    ]
    return torch.stack(shifted, dim=1)


def squared_distances(f: Tensor, *, kernel_size: int, dilation: int = 1) -> Tensor:
    """‖f[p] − f[p+o]‖², 0 where p+o is beyond the border: (B, d, H, W) → (B, K², H, W)."""
    with torch.autocast(f.device.type, enabled=False):
        return _SquaredDistances.apply(f, kernel_size, dilation)


def inside(height: int, width: int, *, kernel_size: int, dilation: int, like: Tensor) -> Tensor:
    """(K², H, W) bool on like's device: whether the neighbour at each offset is on the map."""
    offset = (torch.arange(kernel_size, device=like.device) - kernel_size // 2) * dilation  # (K,)
    rows, columns = (
        torch.arange(size, device=like.device) + offset[:, None] for size in (height, width)
    )
    in_rows = (rows >= 0) & (rows < height)  # (K, H)
    in_columns = (columns >= 0) & (columns < width)  # (K, W)
    return (in_rows[:, None, :, None] & in_columns[None, :, None, :]).flatten(0, 1)


class _Aggregate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, w: Tensor, kernel_size: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.sizes = {"kernel_size": kernel_size, "dilation": dilation}
        cells = _cells(x)  # (B, H, W, C)
        y = torch.empty_like(cells)
        band, diagonals = _band(w, kernel_size, dilation)
        offsets = w.unflatten(1, (kernel_size, kernel_size)).permute(
            0, 3, 4, 1, 2
        )  # (B, H, W, K, K)
        for rows, columns, window, part in _tiles(w.shape, kernel_size, dilation):
            tile = offsets[:, rows, columns]  # (B, h, w, K, K)
            height, width = tile.shape[1:3]
            diagonals[:, :height, :width] = tile
            weights = band[:, :height, :width, part[0], part[1]].flatten(3).flatten(1, 2)
            features = cells[:, window[0], window[1]].flatten(1, 2)  # (B, cells of the window, C)
            y[:, rows, columns] = torch.bmm(weights, features).unflatten(1, (height, width))
        return y.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        grad_x = grad_w = None
        if ctx.needs_input_grad[1]:  # first: it returns little, so fewer maps live at one time
            grad_w = correlate(grad, x, **ctx.sizes)
        if ctx.needs_input_grad[0]:
            grad_x = aggregate(grad, transpose(w, **ctx.sizes), **ctx.sizes)
        return grad_x, grad_w, None, None


class _Correlate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, g: Tensor, x: Tensor, kernel_size: int, dilation: int) -> Tensor:
        ctx.save_for_backward(g, x)
        ctx.sizes = {"kernel_size": kernel_size, "dilation": dilation}
        left, right = _cells(g), _cells(x)  # (B, H, W, C)
        batch, _, height, width = x.shape
        s = x.new_empty(batch, kernel_size**2, height, width)
        offsets = s.unflatten(1, (kernel_size, kernel_size)).permute(0, 3, 4, 1, 2)
        band, diagonals = _band(s, kernel_size, dilation)
        for rows, columns, window, part in _tiles(s.shape, kernel_size, dilation):
            a = left[:, rows, columns]  # (B, h, w, C)
            b = right[:, window[0], window[1]]  # (B, rows and columns of the window, C)
            products = torch.bmm(a.flatten(1, 2), b.flatten(1, 2).transpose(1, 2))
            h, v = a.shape[1:3]
            band.zero_()  # beyond the border nothing is written, and 0 is what belongs there
            band[:, :h, :v, part[0], part[1]] = products.view(batch, h, v, *b.shape[1:3])
            offsets[:, rows, columns] = diagonals[:, :h, :v]
        return s

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        g, x = ctx.saved_tensors
        grad_g = grad_x = None
        if ctx.needs_input_grad[0]:
            grad_g = aggregate(x, grad, **ctx.sizes)
        if ctx.needs_input_grad[1]:
            grad_x = aggregate(g, transpose(grad, **ctx.sizes), **ctx.sizes)
        return grad_g, grad_x, None, None


class _SquaredDistances(torch.autograd.Function):
    @staticmethod
    def forward(ctx, f: Tensor, kernel_size: int, dilation: int) -> Tensor:
        ctx.save_for_backward(f)
        ctx.sizes = {"kernel_size": kernel_size, "dilation": dilation}
        batch, _, height, width = f.shape
        reach = dilation * (kernel_size // 2)
        padded = F.pad(f, (reach, reach, reach, reach))
        distances = f.new_empty(batch, kernel_size, kernel_size, height, width)
        for i in range(kernel_size):  # one row of offsets at a time keeps the differences small
            row = padded[:, :, i * dilation : i * dilation + height].unfold(3, width, dilation)
            # (B, d, H, K, W) − (B, d, H, 1, W)
            distances[:, i] = (row - f.unsqueeze(3)).square().sum(1).transpose(1, 2)
        on_map = inside(height, width, kernel_size=kernel_size, dilation=dilation, like=f)
        return distances.flatten(1, 2) * on_map

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        (f,) = ctx.saved_tensors
        on_map = inside(*f.shape[-2:], **ctx.sizes, like=f)
        grad = grad * on_map
        both = grad + transpose(grad, **ctx.sizes)  # a distance pulls at both of its ends
        pulled = f * both.sum(1, keepdim=True) - aggregate(f, both, **ctx.sizes)
        return 2 * pulled, None, None


def _cells(x: Tensor) -> Tensor:
    """(B, C, H, W) → (B, H, W, C) with each cell's features side by side in memory."""
    cells = x.permute(0, 2, 3, 1)
    if cells.is_contiguous():
        return cells
    batch, channels, height, width = x.shape
    out = x.new_empty(batch, height * width, channels)
    for matrix, image in zip(out, x, strict=True):  # torch transposes one matrix 5 times faster
        matrix.copy_(image.flatten(1).t())
    return out.view(batch, height, width, channels)


def _band(w: Tensor, kernel_size: int, dilation: int) -> tuple[Tensor, Tensor]:
    """Zeros (B, tile, tile, window, window), and the view (B, tile, tile, K, K) of its diagonals.

    The cell (y, x) of a tile has its neighbour (i, j) at (y + δi, x + δj) of the window, so a step
    in y moves both the row of the matrix and the place within it.
    """
    tile_h, tile_w = min(TILE, w.shape[2]), min(TILE, w.shape[3])
    extra = dilation * (kernel_size - 1)
    band = w.new_zeros(w.shape[0], tile_h, tile_w, tile_h + extra, tile_w + extra)
    b, y, x, row, column = band.stride()
    shape = (w.shape[0], tile_h, tile_w, kernel_size, kernel_size)
    strides = (b, y + row, x + column, dilation * row, dilation * column)
    return band, band.as_strided(shape, strides)


_Area = tuple[slice, slice]


def _tiles(
    shape: torch.Size, kernel_size: int, dilation: int
) -> Iterator[tuple[slice, slice, _Area, _Area]]:
    """Per tile: its rows and columns, its window on the map, and that window within the band."""
    reach = dilation * (kernel_size // 2)
    for rows, row_window, row_part in _cuts(shape[2], reach):
        for columns, column_window, column_part in _cuts(shape[3], reach):
            yield rows, columns, (row_window, column_window), (row_part, column_part)


def _cuts(size: int, reach: int) -> Iterator[tuple[slice, slice, slice]]:
    tile = min(TILE, size)
    for start in range(0, size, tile):
        first, last = max(start - reach, 0), min(start + tile + reach, size)
        part = slice(first - start + reach, last - start + reach)
        yield slice(start, min(start + tile, size)), slice(first, last), part
