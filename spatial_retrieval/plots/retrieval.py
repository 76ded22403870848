"""Hits next to their query, where the time went, and who resembles whom."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from spatial_retrieval.images import ImageSource, load_image, resize
from spatial_retrieval.plots.style import COLORS, base_layout, hide_axes, image_trace

__all__ = ["hit_strip", "similarity_heatmap", "stage_times"]

_SIDE = 200  # longest side of each picture in pixels


def hit_strip(
    query: ImageSource,
    hits: Sequence[ImageSource],
    scores: Sequence[float] | None = None,
    *,
    captions: Sequence[str] | None = None,
    correct: Sequence[bool] | None = None,
    title: str | None = None,
) -> go.Figure:
    """The query and its ranked hits in a row, each with its rank and score.

    Args:
        query, hits: photographs, best hit first.
        scores: one per hit; None: only the ranks are written.
        captions: what is written above each hit instead.
        correct: whether each hit shows what the query shows; drawn as ✓ and ✗.

    Raises:
        ValueError: if there are not as many scores, captions or marks as hits.
    """
    for given in (scores, captions, correct):
        if given is not None and len(given) != len(hits):
            raise ValueError(f"expected a score, caption and mark for each of {len(hits)} hits")
    if captions is None:
        marks = [""] * len(hits) if correct is None else [" ✓" if c else " ✗" for c in correct]
        texts = [""] * len(hits) if scores is None else [f" · {score:.2f}" for score in scores]
        captions = [f"{i}{t}{m}" for i, (t, m) in enumerate(zip(texts, marks, strict=True), 1)]
    captions = ["query", *captions]
    fig = make_subplots(1, len(captions), subplot_titles=captions, horizontal_spacing=0.01)
    for column, source in enumerate([query, *hits], start=1):
        pixels = np.asarray(resize(load_image(source, draft=_SIDE), _SIDE))
        fig.add_trace(image_trace(pixels, hoverinfo="skip"), row=1, col=column)
        fig.update_xaxes(visible=False, constrain="domain", row=1, col=column)
        anchor = "x" if column == 1 else f"x{column}"
        fig.update_yaxes(visible=False, scaleanchor=anchor, row=1, col=column)
    for caption, mark in zip(fig.layout.annotations[1:], correct or [], strict=False):
        caption.font.color = COLORS[2] if mark else COLORS[1]
    base_layout(fig, height=190 if title else 150, title=title)
    fig.update_layout(margin={"l": 4, "r": 4, "b": 4, "t": 70 if title else 30})
    fig.update_annotations(font_size=12)
    return fig


def stage_times(milliseconds: Mapping[str, float], *, title: str | None = None) -> go.Figure:
    """Milliseconds of each stage of a search, as one bar each."""
    names = list(milliseconds)
    bars = go.Bar(
        x=[milliseconds[name] for name in names],
        y=names,
        orientation="h",
        text=[
            f"{time:,.0f} ms" if time >= 100 else f"{time:.3g} ms" for time in milliseconds.values()
        ],
        marker_color=COLORS[0],
    )
    fig = base_layout(go.Figure(bars), height=90 + 36 * len(names), title=title)
    fig.update_layout(margin={"l": 90})
    fig.update_yaxes(autorange="reversed")
    return fig.update_xaxes(title="milliseconds")


def similarity_heatmap(
    descriptors: np.ndarray, labels: Sequence[object], *, title: str | None = None
) -> go.Figure:
    """Cosine similarity of all pairs of (N, D) unit rows, sorted by label."""
    order = np.argsort(np.asarray([str(label) for label in labels]), kind="stable")
    rows = np.asarray(descriptors)[order]
    names = [f"{labels[i]} · {i}" for i in order]
    heat = go.Heatmap(
        z=np.round(rows @ rows.T, 3),
        x=names,
        y=names,
        colorscale="Viridis",
        colorbar={"title": "cosine"},
    )
    fig = base_layout(go.Figure(heat), height=420, title=title)
    return hide_axes(fig)
