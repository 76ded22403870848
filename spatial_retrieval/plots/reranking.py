"""Where the milliseconds go, what verification sees, and whether it was needed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from spatial_retrieval.images import Box, ImageSource, check_box, load_image, resize
from spatial_retrieval.plots.style import COLORS, base_layout, image_trace
from spatial_retrieval.rerank import Matches

__all__ = [
    "community_graph",
    "gain_by_uncertainty",
    "matched_inliers",
    "quality_and_price",
    "time_breakdown",
]


def time_breakdown(
    milliseconds: Mapping[str, float],
    *,
    published: Mapping[str, float] | None = None,
    title: str | None = None,
) -> go.Figure:
    """Milliseconds per query of each stage, on a logarithmic axis.

    Args:
        milliseconds: stage → time.
        published: the same for somebody else's measurement, drawn next to it.
        title: of the figure.
    """
    names = list(milliseconds)
    fig = go.Figure(_bars(names, milliseconds, "here", COLORS[0]))
    if published is not None:
        fig.add_trace(_bars(names, published, "published, a million images", COLORS[1]))
    base_layout(fig, height=140 + (60 if published else 36) * len(names), title=title)
    fig.update_layout(
        barmode="group", showlegend=published is not None, legend={"orientation": "h", "y": -0.3}
    )
    fig.update_layout(margin={"l": 150, "r": 70, "b": 50})
    fig.update_yaxes(autorange="reversed", showgrid=False)
    return fig.update_xaxes(
        type="log", title="milliseconds per query", dtick=1, exponentformat="power"
    )


_LINES = 60  # point pairs drawn at most


def matched_inliers(
    query: ImageSource,
    image: ImageSource,
    matches: Matches,
    *,
    box: Box | None = None,
    side: int = 300,
    title: str | None = None,
) -> go.Figure:
    """Two photographs side by side, point pairs that agree on one geometry joined by lines.

    At most 60 pairs are drawn, evenly taken from all.

    Args:
        query: the first photograph of ``matches``.
        image: the second.
        matches: what spatial verification found between them.
        box: part of the query that was searched for.
        side: longest side of each picture in pixels.
        title: of the figure, by default the number of inliers.
    """
    left = load_image(query)
    left = resize(left if box is None else left.crop(check_box(box, left.size)), side)
    right = resize(load_image(image, draft=side), side)
    scale_a, scale_b = left.width / matches.size_a[0], right.width / matches.size_b[0]
    offset = left.width + 12
    width, height = offset + right.width, max(left.height, right.height)
    pictures = (
        image_trace(np.asarray(left), hoverinfo="skip"),
        image_trace(np.asarray(right), hoverinfo="skip", x0=offset),
    )
    fig = go.Figure(pictures)
    chosen = np.linspace(0, len(matches) - 1, min(_LINES, len(matches))).round().astype(int)
    for place, i in enumerate(chosen):
        (x0, y0), (x1, y1) = scale_a * matches.a[i], scale_b * matches.b[i]
        fig.add_trace(_match_line((x0, x1 + offset), (y0, y1), COLORS[place % 6]))
    title = f"{len(matches)} inliers" if title is None else title
    base_layout(fig, height=height + 52, title=title)
    fig.update_layout(margin={"l": 4, "r": 4, "b": 4}, showlegend=False)
    fig.update_xaxes(visible=False, range=[0, width], constrain="domain")
    return fig.update_yaxes(visible=False, range=[height, 0], scaleanchor="x", constrain="domain")


def community_graph(
    communities: Sequence[Sequence[int]],
    neighbours: Mapping[int, Sequence[int]],
    ranks: Mapping[int, int],
    *,
    names: Sequence[str] | None = None,
    title: str | None = None,
) -> go.Figure:
    """The first hits as a graph: one ring for each community, a line for each neighbour relation.

    Args:
        communities: groups of hits, see `RerankContext.communities`.
        neighbours: a hit's neighbour list; those that are no hits are not drawn.
        ranks: a hit's rank, written on its node.
        names: of the database, shown under the pointer.
        title: of the figure.
    """
    places = _rings(communities)
    fig = go.Figure(_edges(places, neighbours))
    for number, group in enumerate(communities):
        x, y = zip(*(places[i] for i in group), strict=True)
        nodes = go.Scatter(
            x=x,
            y=y,
            mode="markers+text",
            text=[str(ranks[i]) for i in group],
            textfont={"color": "white", "size": 11},
            name=f"size {len(group)}",
            marker={"size": 24, "color": COLORS[number % len(COLORS)]},
            hovertext=[names[i] if names else str(i) for i in group],
            hoverinfo="text",
        )
        fig.add_trace(nodes)
    base_layout(fig, height=340, title=title)
    fig.update_layout(showlegend=len(communities) <= 7, legend={"title": {"text": "communities"}})
    fig.update_xaxes(visible=False)
    return fig.update_yaxes(visible=False, scaleanchor="x")


def gain_by_uncertainty(
    uncertainty: Sequence[float],
    before: Sequence[float],
    after: Sequence[float],
    *,
    names: Sequence[str] | None = None,
    title: str | None = None,
) -> go.Figure:
    """What re-ranking changed in each query's average precision, against the uncertainty before.

    Args:
        uncertainty: (Q,) in nats; the line at 1 is where the start is no longer trusted.
        before: (Q,) average precision of the initial retrieval.
        after: (Q,) average precision after re-ranking.
        names: of the queries, shown under the pointer.
        title: of the figure.
    """
    gain = 100 * (np.asarray(after) - np.asarray(before))
    dots = go.Scatter(
        x=np.asarray(uncertainty),
        y=gain,
        mode="markers",
        text=names,
        marker={
            "size": 9,
            "color": np.asarray(before) * 100,
            "colorscale": "Viridis",
            "cmin": 0,
            "cmax": 100,
            "colorbar": {"title": "AP before"},
        },
    )
    fig = base_layout(go.Figure(dots), height=380, title=title)
    fig.add_vline(x=1, line={"dash": "dot", "color": "#999999"})
    fig.update_xaxes(title="uncertainty of the first 20 hits, nats")
    return fig.update_yaxes(title="AP gained, points")


def quality_and_price(
    names: Sequence[str],
    score: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    milliseconds: Sequence[float],
    *,
    title: str | None = None,
) -> go.Figure:
    """Score with its interval against milliseconds per query, one dot for each method.

    Args:
        names: of the methods.
        score: mAP of each, in [0, 1].
        low: lower ends of the intervals.
        high: upper ends.
        milliseconds: per query.
        title: of the figure.
    """
    score, low, high = (100 * np.asarray(x, dtype=float) for x in (score, low, high))
    fig = go.Figure()
    for i, name in enumerate(names):
        dot = go.Scatter(
            x=[max(milliseconds[i], 1e-3)],
            y=[score[i]],
            name=name,
            mode="markers",
            marker={"size": 12, "color": COLORS[i % len(COLORS)]},
            error_y={"array": [high[i] - score[i]], "arrayminus": [score[i] - low[i]]},
        )
        fig.add_trace(dot)
    base_layout(fig, height=400, title=title)
    fig.update_xaxes(type="log", title="milliseconds per query", dtick=1, exponentformat="power")
    return fig.update_yaxes(title="mAP, %, with its 95 % interval")


def _bars(names: list[str], times: Mapping[str, float], label: str, color: str) -> go.Bar:
    known = [name for name in names if name in times]
    return go.Bar(
        x=[times[name] for name in known],
        y=known,
        orientation="h",
        name=label,
        marker_color=color,
        text=[_milliseconds(times[name]) for name in known],
        textposition="outside",
        cliponaxis=False,
    )


def _milliseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _match_line(x: tuple[float, float], y: tuple[float, float], color: str) -> go.Scatter:
    line, marker = {"color": color, "width": 1.2}, {"size": 4}
    return go.Scatter(x=x, y=y, mode="lines+markers", line=line, marker=marker, hoverinfo="skip")


def _rings(communities: Sequence[Sequence[int]]) -> dict[int, tuple[float, float]]:
    """Places of nodes: each community on a ring of its own, rings side by side."""
    places, left = {}, 0.0
    for group in communities:
        radius = 0.0 if len(group) == 1 else 0.5 / np.sin(np.pi / max(len(group), 3))
        for turn, node in enumerate(group):
            angle = 2 * np.pi * turn / len(group)
            places[node] = (left + radius * (1 + np.sin(angle)), radius * np.cos(angle))
        left += 2 * radius + 1
    return places


def _edges(places: Mapping[int, tuple[float, float]], neighbours: Mapping[int, Any]) -> go.Scatter:
    links = {tuple(sorted((i, j))) for i in places for j in neighbours.get(i, ()) if j in places}
    x = [v for i, j in sorted(links) for v in (places[i][0], places[j][0], None)]
    y = [v for i, j in sorted(links) for v in (places[i][1], places[j][1], None)]
    line = {"color": "rgba(128, 128, 128, 0.5)", "width": 1}
    return go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False)
