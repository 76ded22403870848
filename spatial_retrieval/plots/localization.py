"""From degree to seed to region, and what was found in each photograph."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from PIL import Image, ImageDraw
from plotly.subplots import make_subplots
from torch import Tensor

from spatial_retrieval.images import resize
from spatial_retrieval.localize import Localization, LostResult, Query
from spatial_retrieval.localize.regions import enlarge
from spatial_retrieval.plots.style import COLORS, base_layout, hide_axes, image_trace

__all__ = [
    "degree_map",
    "found_in",
    "heat_map",
    "lost_steps",
    "overlay",
    "query_cells",
    "score_histogram",
]

_SIDE = 200  # of a photograph in a figure, pixels
_HEAT = "RdBu_r"


def overlay(
    photograph: Image.Image,
    found: Localization,
    *,
    color: str = COLORS[1],
    width: int | None = None,
) -> Image.Image:
    """The photograph with each region tinted, outlined and boxed, and what was not found greyed.

    Args:
        photograph: RGB.
        found: regions in its pixels, see :func:`~spatial_retrieval.localize.find_in_photographs`.
        color: of the regions, #RRGGBB.
        width: of the lines in pixels; by default grows with the photograph.
    """
    pixels = np.asarray(photograph.convert("RGB")).astype(np.float32)
    mask = found.mask.cpu().numpy()
    if mask.shape != pixels.shape[:2]:
        raise ValueError(f"expected masks of {pixels.shape[:2]} pixels, got {mask.shape}")
    grey = pixels.mean(axis=2, keepdims=True)
    tint = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float32)
    shown = np.where(mask[..., None], 0.7 * pixels + 0.3 * tint, 0.5 * pixels + 0.5 * grey)
    image = Image.fromarray(shown.clip(0, 255).astype(np.uint8))
    draw, width = ImageDraw.Draw(image), width or max(1, round(max(image.size) / 200))
    for region in found:
        for outline in region.polygons():
            points = [tuple(map(int, p)) for p in outline]
            draw.line([*points, points[0]], fill=color, width=width, joint="curve")
        x0, y0, x1, y1 = region.box
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline="#ffffff", width=width)
    return image


def found_in(
    photographs: Sequence[Image.Image],
    results: Sequence[Localization],
    *,
    query: Image.Image | None = None,
    box: Sequence[float] | None = None,
    captions: Sequence[str] | None = None,
    title: str | None = None,
) -> go.Figure:
    """Overlays in a row; in front of them the query and its ``box``, if given.

    Args:
        photographs: what was searched.
        results: one for each, see :func:`~spatial_retrieval.localize.find_in_photographs`.
        query: what was searched for.
        box: the part of it that was meant, in its pixels.
        captions: what is written above each overlay, in front of its score if that isn't 0.
    """
    if len(photographs) != len(results) or (captions and len(captions) != len(results)):
        raise ValueError(f"expected a result (and caption) for each of {len(photographs)} images")
    captions = captions or [""] * len(results)
    texts = [f"{c}{_score_text(r)}" for c, r in zip(captions, results, strict=True)]
    images = [overlay(p, r) for p, r in zip(photographs, results, strict=True)]
    if query is not None:
        texts, images = ["query", *texts], [_boxed(query, box), *images]
    return _row(images, [t.removeprefix(" · ") for t in texts], title)


def _score_text(found: Localization) -> str:
    if not len(found):
        return f" · {found.score:.2f}, none"
    return f" · {found.score:.2f}" if found.score else ""


def query_cells(photograph: Image.Image, query: Query, *, title: str | None = None) -> go.Figure:
    """Which cells of the query are the object (orange), which are not (blue), and the seed map."""
    state = query.positive.float() - query.negative.float()
    size = resize(photograph, _SIDE).size
    fig = make_subplots(1, 2, subplot_titles=["object and background", "similarity to the seeds"])
    for column, values in enumerate((state, query.seed), start=1):
        _picture(fig, photograph, column)
        _heat_trace(fig, values, size, column, smooth=column == 2)
    return _finish(fig, title)


def heat_map(
    photograph: Image.Image, found: Localization, *, title: str | None = None
) -> go.Figure:
    """The photograph and, over it, the heat: red where the object is likely, blue where not."""
    fig = make_subplots(1, 2, subplot_titles=["photograph", "heat"])
    _picture(fig, photograph, 1)
    _picture(fig, photograph, 2)
    _heat_trace(fig, found.heat, resize(photograph, _SIDE).size, 2, smooth=True)
    return _finish(fig, title)


def degree_map(
    photograph: Image.Image, results: Sequence[LostResult], titles: Sequence[str]
) -> go.Figure:
    """LOST's degrees of one photograph, once per result, with each seed as a cross."""
    if len(results) != len(titles):
        raise ValueError(f"expected {len(results)} titles, got {len(titles)}")
    fig = make_subplots(1, len(results) + 1, subplot_titles=["photograph", *titles])
    _picture(fig, photograph, 1)
    for column, found in enumerate(results, start=2):
        degree = found.degree.cpu().numpy()
        fig.add_trace(
            go.Heatmap(z=degree, colorscale="Viridis", showscale=False), row=1, col=column
        )
        _cross(fig, found, 1.0, 1.0, column)
        _square(fig, column)
    return _finish(fig, None)


def lost_steps(
    photograph: Image.Image, features: Tensor, found: LostResult, *, title: str | None = None
) -> go.Figure:
    """LOST step by step: degree and seed, similarity to the seed, region."""
    shown = resize(photograph, _SIDE)
    cells = features.flatten(1) - features.flatten(1).mean(dim=1, keepdim=True)
    alike = torch.zeros_like(found.degree, dtype=torch.float32)
    if found.seed is not None:
        unit = torch.nn.functional.normalize(cells, dim=0)
        alike = (unit.T @ unit[:, found.seed]).view_as(found.degree)
    names = ["degree, and the seed", "similarity to the seed", "region"]
    fig = make_subplots(1, 3, subplot_titles=names, horizontal_spacing=0.02)
    fx, fy = (shown.size[k] / found.degree.shape[1 - k] for k in (0, 1))
    for column, values in ((1, -found.degree.float()), (2, alike), (3, found.mask.float() - 0.5)):
        _picture(fig, photograph, column)
        _heat_trace(fig, values, shown.size, column, smooth=column < 3)
        _cross(fig, found, fx, fy, column)
    return _finish(fig, title)


def score_histogram(
    groups: dict[str, Sequence[float]], threshold: float, *, title: str | None = None
) -> go.Figure:
    """How often each score occurs, by group of photographs, and the threshold."""
    edges = np.linspace(0, 1, 26)
    fig = go.Figure()
    colors = (COLORS[2], COLORS[4], COLORS[0])
    for (name, values), color in zip(groups.items(), colors, strict=False):
        share = np.histogram(values, edges)[0] / max(1, len(values))
        middle = (edges[1:] + edges[:-1]) / 2
        fig.add_trace(go.Bar(x=middle, y=share, name=name, marker_color=color, opacity=0.75))
    fig.add_vline(x=threshold, line_dash="dash", line_color="#7f7f7f")
    fig.update_layout(barmode="overlay", bargap=0.05, legend={"orientation": "h", "y": 1.1})
    fig.update_xaxes(title="score: share of matches that agree", range=[0, 1])
    fig.update_yaxes(title="share of photographs", tickformat=".0%")
    return base_layout(fig, height=320, title=title)


def _boxed(photograph: Image.Image, box: Sequence[float] | None) -> Image.Image:
    image = photograph.convert("RGB")
    if box is not None:
        x0, y0, x1, y1 = (int(v) for v in box)
        width = max(2, round(max(image.size) / 150))
        ImageDraw.Draw(image).rectangle((x0, y0, x1 - 1, y1 - 1), outline=COLORS[1], width=width)
    return image


def _row(images: Sequence[Image.Image], captions: Sequence[str], title: str | None) -> go.Figure:
    fig = make_subplots(1, len(images), subplot_titles=captions, horizontal_spacing=0.01)
    for column, image in enumerate(images, start=1):
        _picture(fig, image, column)
    return _finish(fig, title)


def _picture(fig: go.Figure, photograph: Image.Image, column: int) -> None:
    pixels = np.asarray(resize(photograph.convert("RGB"), _SIDE))
    fig.add_trace(image_trace(pixels, hoverinfo="skip"), row=1, col=column)
    _square(fig, column)


def _heat_trace(
    fig: go.Figure, values: Tensor, size: tuple[int, int], column: int, *, smooth: bool
) -> None:
    """Half-transparent heat over a picture of ``size``; the largest absolute value is full red."""
    if smooth:
        z = enlarge(values - values.mean() if float(values.max()) <= 0 else values, size).numpy()
        z = z[::6, ::6]
    else:
        z = values.float().numpy()
    step = (size[0] / z.shape[1], size[1] / z.shape[0])
    limit = float(np.abs(z).max()) or 1.0
    fig.add_trace(
        go.Heatmap(
            z=np.round(z, 2),
            **{"x0": step[0] / 2, "dx": step[0], "y0": step[1] / 2, "dy": step[1]},
            **{"colorscale": _HEAT, "zmin": -limit, "zmax": limit},
            showscale=False,
            opacity=0.6,
            hovertemplate="%{z:.2f}<extra></extra>",
        ),
        row=1,
        col=column,
    )


def _cross(fig: go.Figure, found: LostResult, fx: float, fy: float, column: int) -> None:
    if found.seed is None:
        return
    y, x = divmod(found.seed, found.degree.shape[1])
    offset = 0.0 if fx == 1.0 else 0.5  # a heat map's cells are centred at whole numbers
    marker = {"symbol": "x", "size": 11, "color": COLORS[1]}
    marker["line"] = {"color": "white", "width": 1.5}
    seed = go.Scatter(
        x=[(x + offset) * fx],
        y=[(y + offset) * fy],
        mode="markers",
        showlegend=False,
        marker=marker,
        hovertemplate="seed<extra></extra>",
    )
    fig.add_trace(seed, row=1, col=column)


def _square(fig: go.Figure, column: int) -> None:
    hide_axes(fig, row=1, col=column)
    anchor = "x" if column == 1 else f"x{column}"
    fig.update_yaxes(scaleanchor=anchor, row=1, col=column)


def _finish(fig: go.Figure, title: str | None) -> go.Figure:
    base_layout(fig, height=290 if title else 260, title=title)
    fig.update_layout(margin={"l": 4, "r": 4, "b": 4, "t": 76 if title else 28})
    return fig
