"""What a score is made of: ranked lists, precision and recall, differences, thresholds."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from spatial_retrieval.plots.style import COLORS, base_layout

__all__ = [
    "box_overlap",
    "paired_differences",
    "precision_recall",
    "ranked_kinds",
    "score_bars",
    "threshold_curves",
]

_KINDS = ("easy", "hard", "junk", "wrong")
_KIND_COLORS = dict(zip(_KINDS, (COLORS[2], COLORS[0], COLORS[4], "#b0b0b0"), strict=True))


def ranked_kinds(lists: Mapping[str, Sequence[str]], *, title: str | None = None) -> go.Figure:
    """Ranked lists as rows of coloured cells.

    Args:
        lists: caption → the kind of each hit, best first: "easy", "hard", "junk" or "wrong".

    Raises:
        ValueError: if a kind is none of the four.
    """
    unknown = {kind for row in lists.values() for kind in row} - set(_KINDS)
    if unknown:
        raise ValueError(f"expected kinds of {_KINDS}, got {', '.join(sorted(unknown))}")
    fig = go.Figure()
    for kind in _KINDS:
        cells = [
            (rank, caption)
            for caption, row in lists.items()
            for rank, found in enumerate(row, start=1)
            if found == kind
        ]
        fig.add_scatter(
            x=[rank for rank, _ in cells],
            y=[caption for _, caption in cells],
            mode="markers",
            name=kind,
            hovertemplate="rank %{x}, " + kind + "<extra></extra>",
            marker={"symbol": "square", "size": 16, "color": _KIND_COLORS[kind]},
        )
    base_layout(fig, height=130 + 34 * len(lists), title=title)
    fig.update_layout(
        margin={"l": 190, "t": 70 if title else 40},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
    )
    fig.update_yaxes(categoryorder="array", categoryarray=list(lists)[::-1], showgrid=False)
    return fig.update_xaxes(title="rank", rangemode="tozero", showgrid=False)


def precision_recall(
    ranks: Sequence[int], n_positives: int, *, title: str | None = None
) -> go.Figure:
    """The precision–recall curve whose area by trapezoids is the average precision.

    Args:
        ranks: zero-based ranks of the positives that were found, ascending.
        n_positives: all positives.
    """
    recall, precision, notes = [0.0], [1.0], ["start"]
    for j, rank in enumerate(ranks):
        before = j / rank if rank else 1.0
        for hits, value in ((j, before), (j + 1, (j + 1) / (rank + 1))):
            recall.append(hits / n_positives)
            precision.append(value)
            notes.append(f"{hits} found by rank {rank + (hits > j)}")
    fig = go.Figure(
        go.Scatter(
            x=recall,
            y=precision,
            text=notes,
            mode="lines+markers",
            fill="tozeroy",
            line={"color": COLORS[0]},
            fillcolor="rgba(0, 114, 178, 0.2)",
            hovertemplate="%{text}: precision %{y:.3f}<extra></extra>",
        )
    )
    base_layout(fig, height=320, title=title)
    fig.update_xaxes(title="recall", range=[-0.02, 1.02])
    return fig.update_yaxes(title="precision", range=[0, 1.05])


def score_bars(
    scores: Mapping[str, Mapping[str, float]],
    *,
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    title: str | None = None,
) -> go.Figure:
    """Scores in percent, grouped: way of measuring → (protocol → score in [0, 1]).

    Args:
        scores: one colour for each way.
        intervals: the same keys, with (low, high), drawn as error bars.
    """
    fig = go.Figure()
    for colour, (way, values) in zip(_endless(), scores.items(), strict=False):
        names = list(values)
        percent = [100 * values[name] for name in names]
        bar = go.Bar(
            x=names,
            y=percent,
            name=way,
            marker_color=colour,
            textposition="auto",
            text=[f"{v:.1f}" for v in percent],
            insidetextanchor="start",
            textangle=0,
        )
        if intervals and way in intervals:
            ends = [intervals[way][name] for name in names]
            bar.error_y = {
                "array": [100 * high - v for (_, high), v in zip(ends, percent, strict=True)],
                "arrayminus": [v - 100 * low for (low, _), v in zip(ends, percent, strict=True)],
                "thickness": 1.2,
            }
        fig.add_trace(bar)
    base_layout(fig, height=360, title=title)
    fig.update_layout(barmode="group", legend={"orientation": "h", "y": -0.15})
    return fig.update_yaxes(title="%", range=[0, 105])


def paired_differences(
    a: Sequence[float],
    b: Sequence[float],
    *,
    interval: tuple[float, float] | None = None,
    names: tuple[str, str] = ("a", "b"),
    title: str | None = None,
) -> go.Figure:
    """How much better ``a`` is than ``b`` for each query, sorted, in points of AP.

    Args:
        a, b: (Q,) average precision of two methods; a query that is NaN for either is left out.
        interval: (low, high) of the mean difference, drawn as a band.
        names: of the two.
    """
    difference = 100 * (np.asarray(a, dtype=float) - np.asarray(b, dtype=float))
    order = [int(q) for q in np.argsort(difference) if not np.isnan(difference[q])]
    values = difference[order]
    fig = go.Figure(
        go.Bar(
            x=list(range(1, len(order) + 1)),
            y=values,
            text=[f"query {q}" for q in order],
            textposition="none",
            hovertemplate="%{text}: %{y:+.1f}<extra></extra>",
            marker_color=[COLORS[0] if v > 0 else COLORS[1] for v in values],
            showlegend=False,
        )
    )
    if interval:
        low, high = (100 * end for end in interval)
        band = {"x": [0.4, len(order) + 0.6, len(order) + 0.6, 0.4], "y": [low, low, high, high]}
        fig.add_scatter(
            **band,
            fill="toself",
            mode="lines",
            line={"width": 0},
            fillcolor="rgba(0, 158, 115, 0.35)",
            name="95 % interval of the mean",
        )
    base_layout(fig, height=330, title=title)
    fig.update_layout(
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        margin={"t": 80 if title else 40},
    )
    fig.update_xaxes(title="queries, sorted")
    return fig.update_yaxes(title=f"AP of {names[0]} − {names[1]}")


def threshold_curves(
    curves: Mapping[str, Sequence[float]],
    thresholds: Sequence[float],
    *,
    title: str | None = None,
) -> go.Figure:
    """Scores in percent over thresholds of IoU: caption → one score in [0, 1] a threshold."""
    fig = go.Figure()
    lines = zip(_endless(), curves.items(), strict=False)
    for i, (colour, (name, values)) in enumerate(lines):
        fig.add_scatter(
            x=list(thresholds),
            y=[100 * v for v in values],
            name=name,
            mode="lines+markers",
            line={"color": colour, "dash": "dot" if i % 2 else "solid"},
        )
    base_layout(fig, height=330, title=title)
    fig.update_layout(legend={"orientation": "h", "y": -0.25})
    fig.update_xaxes(title="IoU threshold")
    return fig.update_yaxes(title="%", range=[0, 105])


def box_overlap(
    truth: Sequence[float],
    found: Sequence[Sequence[float]],
    captions: Sequence[str],
    *,
    title: str | None = None,
) -> go.Figure:
    """One true box (x0, y0, x1, y1) and several found ones, a panel and a caption each.

    Raises:
        ValueError: if there are not as many captions as boxes.
    """
    if len(found) != len(captions) or not len(found):
        raise ValueError(f"expected a caption for each of {len(found)} boxes, at least one")
    fig = make_subplots(1, len(found), subplot_titles=list(captions), horizontal_spacing=0.03)
    for column, box in enumerate(found, start=1):
        for name, corners, colour in (("true", truth, COLORS[2]), ("found", box, COLORS[1])):
            x0, y0, x1, y1 = corners
            fig.add_scatter(
                x=[x0, x1, x1, x0, x0],
                y=[y0, y0, y1, y1, y0],
                mode="lines",
                fill="toself",
                opacity=0.7,
                line={"color": colour, "width": 2},
                name=name,
                showlegend=column == 1,
                row=1,
                col=column,
            )
        anchor = "x" if column == 1 else f"x{column}"
        fig.update_yaxes(visible=False, autorange="reversed", scaleanchor=anchor, row=1, col=column)
        fig.update_xaxes(visible=False, row=1, col=column)
    base_layout(fig, height=260, title=title)
    return fig.update_layout(
        legend={"orientation": "h", "y": -0.05}, margin={"t": 70 if title else 36}
    )


def _endless() -> list[str]:
    return list(COLORS) * 4
