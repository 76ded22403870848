"""Curves: a map one cell high, smoothed, and anything else over a number."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from torch import Tensor

from spatial_retrieval.layers.smoothing import smooth
from spatial_retrieval.plots.style import COLORS, base_layout

__all__ = ["one_cell_signal", "plain_array", "signals"]


def signals(
    lines: Mapping[str, ArrayLike],
    *,
    points: Sequence[str] = (),
    x_title: str = "cell",
    y_title: str = "value",
) -> go.Figure:
    """Curves by name, (N,) each; those named in ``points`` are drawn as dots."""
    fig = go.Figure()
    for name, values in lines.items():
        mode = "markers" if name in points else "lines"
        marks = {"marker": {"size": 7, "opacity": 0.7}, "line": {"width": 3}}
        fig.add_trace(go.Scatter(y=plain_array(values).ravel(), name=name, mode=mode, **marks))
    fig.update_xaxes(title=x_title)
    fig.update_yaxes(title=y_title)
    fig = base_layout(fig, height=320)
    return fig.update_layout(legend={"orientation": "h", "y": 1.15})


def one_cell_signal(
    x: Tensor, f: Tensor, *, cell: int, a: float, c: float, kernel_size: int
) -> go.Figure:
    """A signal (1, 1, 1, N) smoothed with a = c = 1, but for one cell that has its own."""
    bandwidth, confidence = x.new_ones(x.shape), x.new_ones(x.shape)
    bandwidth[..., cell], confidence[..., cell] = a, c
    y = smooth(x, f, bandwidth, confidence, kernel_size=kernel_size)
    fig = signals(
        {"x": x, f"smoothed, a = {a:.2f} and c = {c:.2f} at cell {cell}": y}, points=["x"]
    )
    there = {"x": [cell], "y": [float(y[..., cell])], "mode": "markers", "showlegend": False}
    return fig.add_scatter(**there, marker={"size": 12, "color": COLORS[2], "symbol": "diamond"})


def plain_array(values: ArrayLike) -> np.ndarray:
    """Values as a float array, a tensor that requires gradients too."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=float)
