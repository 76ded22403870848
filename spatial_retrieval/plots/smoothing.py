"""Pictures of Learnable Smoothing: kernels over the photograph, their maps, burstiness."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from PIL import Image
from plotly.subplots import make_subplots

from spatial_retrieval.plots.signals import plain_array
from spatial_retrieval.plots.style import COLORS, base_layout, hide_axes, image_trace

__all__ = [
    "heatmaps",
    "kernel_figure",
    "kernel_maps",
    "kernel_overlay",
    "kernel_values",
    "norm_maps",
]

Cell = tuple[int, int]  # row and column on the grid of the map


def kernel_overlay(
    image: Image.Image, weights: ArrayLike, cell: Cell, *, dilation: int = 1
) -> Image.Image:
    """One cell's kernel over the photograph: the redder a neighbour, the more it counts.

    Args:
        image: the photograph, any size; the map's grid is stretched over it.
        weights: (K², H, W) of `smoothing_weights` (or of `SmoothingKernel.weights`), one image.
        cell: its row and column.
        dilation: that of the kernel.

    Returns:
        An RGB image of the photograph's size; the cell itself has a white frame.

    Raises:
        ValueError: if the weights are not of that shape or the cell is not on the map.
    """
    weights = _weights(weights)
    _, height, width = weights.shape
    kernel = kernel_values(weights, cell)
    side = len(kernel)
    strength = np.zeros((height, width))
    for i, j in np.ndindex(side, side):
        row, column = cell[0] + dilation * (i - side // 2), cell[1] + dilation * (j - side // 2)
        if 0 <= row < height and 0 <= column < width:
            strength[row, column] = kernel[i, j]
    alpha = _stretch(0.8 * strength / max(kernel.max(), 1e-12), image.size)[..., None]
    grey = np.asarray(image.convert("L").convert("RGB"), float)
    red = np.array([213.0, 94.0, 0.0])  # COLORS[1]
    blend = (1 - alpha) * (0.7 * grey + 0.3 * np.asarray(image.convert("RGB"))) + alpha * red
    own = np.zeros((height, width))
    own[cell] = 1
    inner = _stretch(own, image.size) > 0
    blend[inner & ~_shrink(inner, max(2, image.width // 200))] = 255
    return Image.fromarray(blend.round().astype(np.uint8))


def kernel_values(weights: ArrayLike, cell: Cell) -> np.ndarray:
    """The (K, K) weights of one cell, out of (K², H, W)."""
    weights = _weights(weights)
    count, height, width = weights.shape
    if not (0 <= cell[0] < height and 0 <= cell[1] < width):
        raise ValueError(f"expected a cell on the {height}×{width} map, got {tuple(cell)}")
    side = round(count**0.5)
    return weights[:, cell[0], cell[1]].reshape(side, side)


def kernel_figure(
    image: Image.Image,
    kernels: Mapping[str, ArrayLike],
    cell: Cell,
    *,
    dilation: int = 1,
    margin: int | None = 2,
) -> go.Figure:
    """Several kernels of one cell side by side: over the photograph, and as K×K numbers below.

    Args:
        image: the photograph.
        kernels: title to weights (K², H, W), all on one grid.
        cell: its row and column.
        dilation: that of the kernels.
        margin: the photograph is cut to the neighbourhood and so many cells more; None: all of it.
    """
    count = len(kernels)
    fig = make_subplots(2, count, subplot_titles=list(kernels), vertical_spacing=0.04)
    box = _surroundings(image, next(iter(kernels.values())), cell, dilation, margin)
    for column, weights in enumerate(kernels.values(), start=1):
        overlay = kernel_overlay(image, weights, cell, dilation=dilation)
        fig.add_trace(image_trace(np.asarray(overlay.crop(box))), row=1, col=column)
        values = kernel_values(weights, cell)
        text = [[f"{v:.2f}".removeprefix("0") for v in row] for row in values]
        heat = go.Heatmap(z=values, text=text, texttemplate="%{text}", **_scale(0, 1))
        fig.add_trace(heat.update(showscale=False), row=2, col=column)
        for row in (1, 2):
            _square(fig, row, column, count)
    return base_layout(fig, height=500).update_layout(margin={"t": 32, "b": 8, "l": 8, "r": 8})


def heatmaps(
    maps: Mapping[str, ArrayLike],
    *,
    limits: tuple[float, float] | None = None,
    title: str | None = None,
) -> go.Figure:
    """Maps (H, W) side by side, by title; all on one colour scale if ``limits`` are given."""
    fig = make_subplots(1, len(maps), subplot_titles=list(maps), horizontal_spacing=0.1)
    for column, values in enumerate(maps.values(), start=1):
        heat = go.Heatmap(z=plain_array(values), **_scale(*(limits or (None, None))))
        end = fig.layout[_axis("xaxis", column)].domain[1]
        heat.update(colorbar={"x": end + 0.003, "len": 0.9, "thickness": 10, "xpad": 2})
        last = column == len(maps)
        fig.add_trace(heat.update(showscale=last or limits is None), row=1, col=column)
        _square(fig, 1, column, len(maps))
    fig = base_layout(fig, height=320 if title else 280, title=title)
    return fig.update_layout(margin={"t": 72 if title else 32, "b": 8, "l": 8, "r": 48})


def kernel_maps(a: ArrayLike, c: ArrayLike, *, title: str | None = None) -> go.Figure:
    """Bandwidth a and self-confidence c of every cell; each (H, W), or (1, 1, H, W)."""
    a, c = _grid(a, "a"), _grid(c, "c")
    return heatmaps({"bandwidth a (large: narrow)": a, "self-confidence c": c}, title=title)


def norm_maps(before: ArrayLike, after: ArrayLike, *, title: str | None = None) -> go.Figure:
    """Length of the features before and after smoothing, and how few cells hold their energy.

    Args:
        before: (C, H, W), one map.
        after: (C, H, W), the same smoothed.
        title: of the figure.

    Returns:
        Two maps on one scale, and for each the share of Σ‖x‖² in the strongest cells: the nearer
        to the diagonal, the less bursty.
    """
    x, y = plain_array(before), plain_array(after)
    if x.ndim != 3 or x.shape != y.shape:
        raise ValueError(f"expected two maps of one shape (C, H, W), got {x.shape} and {y.shape}")
    norms = {"‖x‖ before": np.linalg.norm(x, axis=0), "‖y‖ after": np.linalg.norm(y, axis=0)}
    names = [*norms, "share of the energy"]
    widths = [0.29, 0.29, 0.42]
    fig = make_subplots(1, 3, subplot_titles=names, horizontal_spacing=0.11, column_widths=widths)
    top = max(n.max() for n in norms.values())
    for column, (name, n) in enumerate(norms.items(), start=1):
        bar = {"x": fig.layout.xaxis2.domain[1] + 0.003, "len": 0.9, "thickness": 10, "xpad": 2}
        heat = go.Heatmap(z=n, **_scale(0, top), colorbar=bar, showscale=column == 2)
        fig.add_trace(heat, row=1, col=column)
        _square(fig, 1, column, 3)
        energy = np.sort(n.ravel() ** 2)[::-1].cumsum() / max((n**2).sum(), 1e-12)
        cells = np.arange(1, energy.size + 1) / energy.size
        color = COLORS[(1, 0)[column - 1]]
        line = go.Scatter(x=cells, y=energy, name=name, line={"color": color, "width": 3})
        fig.add_trace(line, row=1, col=3)
    even = {"color": "#999999", "dash": "dot"}
    diagonal = go.Scatter(x=[0, 1], y=[0, 1], name="even", line=even, mode="lines")
    fig.add_trace(diagonal, row=1, col=3)
    fig.update_xaxes(title="strongest cells", tickformat=".0%", row=1, col=3)
    fig.update_yaxes(tickformat=".0%", row=1, col=3)
    fig = base_layout(fig, height=340, title=title)
    margin = {"t": 72 if title else 32, "l": 8, "r": 24}
    return fig.update_layout(margin=margin, legend={"x": 0.99, "y": 0.05, "xanchor": "right"})


def _weights(values: ArrayLike) -> np.ndarray:
    weights = plain_array(values)
    side = round(len(weights) ** 0.5) if weights.ndim == 3 else 0
    if not side or side**2 != len(weights) or side % 2 == 0:
        raise ValueError(f"expected weights (K², H, W) of an odd K, got {weights.shape}")
    return weights


def _grid(values: ArrayLike, name: str) -> np.ndarray:
    grid = plain_array(values)
    if grid.ndim < 2 or grid.size != grid.shape[-1] * grid.shape[-2]:
        raise ValueError(f"expected {name} of one image, (H, W) or (1, 1, H, W), got {grid.shape}")
    return grid.reshape(grid.shape[-2:])


def _surroundings(
    image: Image.Image, weights: ArrayLike, cell: Cell, dilation: int, margin: int | None
) -> tuple[int, int, int, int]:
    """The neighbourhood of a cell and a margin, as a box of whole cells in pixels."""
    if margin is None:
        return (0, 0, *image.size)
    count, height, width = _weights(weights).shape
    reach = dilation * (round(count**0.5) // 2) + margin
    rows = max(cell[0] - reach, 0), min(cell[0] + reach + 1, height)
    columns = max(cell[1] - reach, 0), min(cell[1] + reach + 1, width)
    x0, x1 = (round(c * image.width / width) for c in columns)
    y0, y1 = (round(r * image.height / height) for r in rows)
    return x0, y0, x1, y1


def _stretch(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) → (h, w): each cell a block of pixels; ``size`` is the image's (w, h)."""
    blocks = Image.fromarray(grid.astype(np.float32)).resize(size, Image.Resampling.NEAREST)
    return np.asarray(blocks)


def _shrink(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask less a frame so many pixels wide, for a mask that is one rectangle."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    inner = np.zeros_like(mask)
    inner[rows[pixels:-pixels, None], columns[None, pixels:-pixels]] = True
    return inner


def _scale(low: float | None, high: float | None) -> dict[str, object]:
    return {"colorscale": "Cividis", "zmin": low, "zmax": high}


def _axis(name: str, number: int) -> str:
    return name if number == 1 else f"{name}{number}"


def _square(fig: go.Figure, row: int, column: int, columns: int) -> None:
    hide_axes(fig, row=row, col=column)
    x = _axis("x", (row - 1) * columns + column)
    fig.update_yaxes(scaleanchor=x, constrain="domain", row=row, col=column)
