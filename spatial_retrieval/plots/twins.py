"""Twin Façades: contact sheets, and what pooling keeps and forgets of a pair."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.subplots import make_subplots

from spatial_retrieval.facades.data import TwinFacades
from spatial_retrieval.plots.style import COLORS, base_layout

__all__ = [
    "channel_scatter",
    "contact_sheet",
    "interval_bars",
    "map_pair",
    "twin_fronts",
]

_PAPER = (250, 248, 243)


def contact_sheet(
    data: TwinFacades,
    landmarks: Sequence[int],
    *,
    views: Sequence[int] = (0, 1, 2),
    masked: Sequence[int] = (1, 2),
    side: int = 168,
) -> Image.Image:
    """One row for each house: frontal drawing, photographs, photographs with the mask's outline.

    Args:
        landmarks: the rows.
        views: numbers of the photographs shown plainly.
        masked: numbers of those shown again with the outline of what is visible.
        side: of each picture, pixels.
    """
    rows = []
    for landmark in landmarks:
        mine = np.flatnonzero(data.labels == landmark)
        tiles = [_front(data, landmark, side)]
        tiles += [_tile(np.asarray(data.image(int(mine[v]))), side) for v in views]
        tiles += [_tile(_outlined(data, int(mine[v])), side) for v in masked]
        rows.append(_joined(tiles, axis=1))
    return Image.fromarray(_joined(rows, axis=0))


def twin_fronts(data: TwinFacades, landmark: int, *, height: int = 420) -> Image.Image:
    """A house and its twin as drawn, side by side."""
    pair = [_front(data, k, height) for k in (landmark, int(data.twin_of[landmark]))]
    return Image.fromarray(_joined(pair, axis=1))


def channel_scatter(
    descriptor: np.ndarray,
    others: Mapping[str, np.ndarray],
    *,
    axis: str = "query",
    title: str | None = None,
) -> go.Figure:
    """Each channel of one descriptor (D,) against the same channel of others."""
    fig = go.Figure()
    top = float(max(np.max(descriptor), *(np.max(other) for other in others.values())))
    fig.add_scatter(
        x=[0, top],
        y=[0, top],
        mode="lines",
        line={"color": "#999999", "dash": "dot"},
        name="equal",
        hoverinfo="skip",
    )
    for color, (name, other) in zip(COLORS, others.items(), strict=False):
        cosine = float(np.dot(descriptor, other))
        fig.add_scatter(
            x=np.round(descriptor, 4),
            y=np.round(other, 4),
            mode="markers",
            marker={"size": 4, "opacity": 0.6, "color": color},
            name=f"{name}, cosine {cosine:.3f}",
            hovertemplate="channel %{pointNumber}<extra></extra>",
        )
    base_layout(fig, height=420, title=title)
    fig.update_layout(legend={"orientation": "h", "y": -0.2})
    fig.update_xaxes(title=f"channel of the {axis}")
    return fig.update_yaxes(title="the same channel")


def map_pair(
    maps: Mapping[str, np.ndarray],
    *,
    title: str | None = None,
    span: tuple[float, float] | None = None,
) -> go.Figure:
    """Maps (H, W) side by side on one colour scale, rows from the top down.

    Args:
        maps: caption → values.
        span: ends of the colour scale, by default the values' own.
    """
    low, high = span or (
        min(float(m.min()) for m in maps.values()),
        max(float(m.max()) for m in maps.values()),
    )
    fig = make_subplots(1, len(maps), subplot_titles=list(maps), horizontal_spacing=0.06)
    for column, values in enumerate(maps.values(), start=1):
        heat = go.Heatmap(
            z=np.round(np.asarray(values, dtype=np.float64), 3),
            zmin=low,
            zmax=high,
            colorscale="Viridis",
            showscale=column == len(maps),
        )
        fig.add_trace(heat, row=1, col=column)
        anchor = "x" if column == 1 else f"x{column}"
        fig.update_xaxes(visible=False, constrain="domain", row=1, col=column)
        fig.update_yaxes(visible=False, autorange="reversed", scaleanchor=anchor, row=1, col=column)
    base_layout(fig, height=340 if len(maps) < 3 else 260, title=title)
    return fig.update_layout(margin={"t": 80 if title else 40, "l": 8, "b": 8})


def interval_bars(
    scores: Mapping[str, Mapping[str, object]], *, chance: float = 0.5, title: str | None = None
) -> go.Figure:
    """Scores with their intervals, in percent: method → (group → interval).

    An interval has `value`, `low` and `high` in [0, 1]; a dotted line marks chance.
    """
    fig = go.Figure()
    for color, (name, groups) in zip(COLORS, scores.items(), strict=False):
        value, low, high = (
            100 * np.array([getattr(i, part) for i in groups.values()])
            for part in ("value", "low", "high")
        )
        error = {"type": "data", "array": high - value, "arrayminus": value - low, "thickness": 1}
        fig.add_bar(
            x=list(groups), y=np.round(value, 1), name=name, marker_color=color, error_y=error
        )
    fig.add_hline(y=100 * chance, line={"color": "#999999", "dash": "dot"})
    base_layout(fig, height=380, title=title)
    fig.update_layout(legend={"orientation": "h", "y": -0.15})
    return fig.update_yaxes(title="twin accuracy, %", range=[0, 104])


def _front(data: TwinFacades, landmark: int, side: int) -> np.ndarray:
    """The frontal drawing on paper, in a square of `side` pixels."""
    rgba = data.frontal(landmark)
    opacity = rgba[..., 3:].astype(np.float32) / 255
    flat = (rgba[..., :3] * opacity + np.float32(_PAPER) * (1 - opacity)).astype(np.uint8)
    return _tile(flat, side)


def _tile(rgb: np.ndarray, side: int) -> np.ndarray:
    h, w = rgb.shape[:2]
    scale = side / max(h, w)
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    tile = np.full((side, side, 3), _PAPER, dtype=np.uint8)
    y, x = side - small.shape[0], (side - small.shape[1]) // 2
    tile[y : y + small.shape[0], x : x + small.shape[1]] = small
    return tile


def _outlined(data: TwinFacades, i: int) -> np.ndarray:
    rgb = np.array(data.image(i))
    mask = data.mask(i).astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for width, color in ((7, (255, 255, 255)), (4, (214, 60, 0))):
        cv2.drawContours(rgb, outlines, -1, color, width, cv2.LINE_AA)
    return rgb


def _joined(tiles: Sequence[np.ndarray], *, axis: int) -> np.ndarray:
    """Tiles in a row (axis 1) or a column (axis 0), with thin gaps of paper."""
    gap = 4
    pads = [(0, 0), (0, 0), (0, 0)]
    pads[axis] = (0, gap)
    padded = [
        np.stack([np.pad(t[..., c], pads[:2], constant_values=_PAPER[c]) for c in range(3)], axis=2)
        for t in tiles
    ]
    padded[-1] = tiles[-1]
    return np.concatenate(padded, axis=axis)
