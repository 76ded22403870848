"""Figures of spatial context-aware refinement: the graph, the messages, what each block changed."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from torch import Tensor

from spatial_retrieval.layers.refinement import SpatialContextRefinement
from spatial_retrieval.plots.style import COLORS, base_layout, hide_axes, image_trace

__all__ = [
    "block_changes_figure",
    "graph_figure",
    "messages_figure",
    "relation_names",
    "relations_figure",
]

_SIDES = {1: ("around",), 4: ("right", "below", "left", "above")}
_SIDES[8] = ("right", "below right", "below", "below left")
_SIDES[8] += ("left", "above left", "above", "above right")


def relation_names(layer: SpatialContextRefinement) -> list[str]:
    """What each relation of a layer means, spatial ones first: "right, to 4 cells" …"""
    sides, rings = _SIDES[layer.sectors], layer.rings
    spatial = [f"within {rings[0]:g} cells"]
    spatial += [f"{side}, to {ring:g} cells" for ring in rings[1:] for side in sides]
    similar = [f"similar, {side}" for side in sides]
    return spatial[: layer.relations[0]] + similar[: layer.relations[1]]


def graph_figure(
    rgb: np.ndarray,
    layer: SpatialContextRefinement,
    x: Tensor,
    *,
    edges: str = "spatial",
    reach: float = 4.0,
    height: int = 420,
) -> go.Figure:
    """Nodes and edges over the photograph.

    Args:
        rgb: (h, w, 3) uint8.
        layer: whose nodes and edges are drawn.
        x: (1, C, H, W), the photograph's map.
        edges: "spatial" or "similarity".
        reach: spatial edges longer than so many cells are left out, to keep the picture readable.
        height: of the figure, pixels.
    """
    if edges not in ("spatial", "similarity"):
        raise ValueError(f"expected edges spatial or similarity, got {edges!r}")
    index, _, weights = _trace(layer, x)
    place = _pixels(index, x, rgb)
    pairs = (weights[0][edges == "similarity"][0] > 0).any(dim=0)
    if edges == "spatial":
        rows, columns = index // x.shape[3], index % x.shape[3]
        far = (rows[:, None] - rows).square() + (columns[:, None] - columns).square()
        pairs &= far <= reach**2
    pairs = torch.triu(pairs | pairs.T).nonzero().numpy()
    fig = _on_photograph(rgb, height, f"{len(index)} nodes, {len(pairs)} {edges} edges")
    lines = np.full((len(pairs), 3, 2), np.nan)
    lines[:, :2] = place[pairs]
    line = {"color": COLORS[5 if edges == "spatial" else 3], "width": 1}
    fig.add_scatter(
        x=lines[..., 0].ravel(),
        y=lines[..., 1].ravel(),
        mode="lines",
        line=line,
        opacity=0.5,
        hoverinfo="skip",
    )
    strength = x.flatten(2)[0, :, index].norm(dim=0)
    sizes = (4 + 8 * strength / strength.max()).tolist()
    texts = [f"node {k}" for k in range(len(index))]
    _add_nodes(fig, place, {"size": sizes, "color": COLORS[4]}, texts)
    return fig


def messages_figure(
    rgb: np.ndarray,
    layer: SpatialContextRefinement,
    x: Tensor,
    node: int,
    *,
    block: int = 0,
    height: int = 420,
) -> go.Figure:
    """What one node hears in a block: from whom, along which relation, how loud.

    Args:
        rgb: (h, w, 3) uint8.
        layer: with at least one kind of edges.
        x: (1, C, H, W), the photograph's map.
        node: number of the node, as :func:`graph_figure` shows it.
        block: counted from 0.
        height: of the figure, pixels.
    """
    index, states, weights = _trace(layer, x)
    if not 0 <= node < len(index) or not 0 <= block < len(layer.blocks):
        raise ValueError(
            f"expected a node below {len(index)} and a block below {len(layer.blocks)}, got "
            f"{node} and {block}"
        )
    place = _pixels(index, x, rgb)
    said = layer.blocks[block].contributions(states[block], weights[block], node)[0]  # (R, K)
    loudest = float(said.max()) if said.numel() and said.any() else 1.0
    fig = _on_photograph(rgb, height, f"what node {node} hears in block {block + 1}")
    for r, name in enumerate(relation_names(layer)[: len(said)]):
        heard = said[r].nonzero().flatten().numpy()
        if not len(heard):
            continue
        loud = said[r, heard].numpy() / loudest
        color, symbol = _relation_look(layer, r)
        marker = {"size": (3 + 18 * loud).tolist(), "color": color, "symbol": symbol}
        texts = [f"node {j}: {name}, {v:.2f}" for j, v in zip(heard, loud, strict=True)]
        _add_nodes(fig, place[heard], marker, texts, name=name)
    marker = {"size": 14, "color": "#ffffff", "symbol": "star"}
    _add_nodes(fig, place[[node]], marker, [f"node {node}"])
    fig.update_layout(showlegend=bool(len(said)), legend={"itemsizing": "constant"})
    return fig


def relations_figure(
    layer: SpatialContextRefinement, *, reach: int = 10, height: int = 360
) -> go.Figure:
    """The spatial relations of a node in the middle of a grid, one colour each."""
    from spatial_retrieval.layers.graph import displacement_bins

    side = 2 * reach + 1
    step = torch.arange(side)
    place = torch.stack(torch.meshgrid(step, step, indexing="ij"), dim=-1).reshape(1, -1, 2)
    bins = displacement_bins(place.float(), rings=layer.rings, sectors=layer.sectors)
    bins = bins[0, side**2 // 2].reshape(side, side).numpy().astype(float)
    names = np.array([*relation_names(layer), "no edge"])[bins.astype(int)]
    colors = [[k / 6, color] for k, color in enumerate(COLORS[:7])]
    axis = np.arange(-reach, reach + 1)
    shown = np.where(bins < 0, np.nan, bins % 7)
    heat = go.Heatmap(
        z=shown, x=axis, y=axis, text=names, colorscale=colors, showscale=False, xgap=1, ygap=1
    )
    heat.update(zmin=0, zmax=6, hovertemplate="%{x} right, %{y} down: %{text}<extra></extra>")
    fig = base_layout(go.Figure(heat), height=height, title="relations of the cell in the middle")
    fig.update_yaxes(autorange="reversed", scaleanchor="x", title="cells down")
    return fig.update_xaxes(constrain="domain", title="cells right")


def block_changes_figure(
    rgb: np.ndarray, layer: SpatialContextRefinement, x: Tensor, *, height: int = 300
) -> go.Figure:
    """How much each block changed each node, next to the photograph: ‖h′ − h‖ / ‖h‖."""
    from plotly.subplots import make_subplots

    index, states, _ = _trace(layer, x)
    if len(states) < 2:
        raise ValueError("expected a layer with at least one block, got none")
    titles = ["photograph", *(f"block {b}" for b in range(1, len(states)))]
    fig = make_subplots(rows=1, cols=len(states), subplot_titles=titles, horizontal_spacing=0.02)
    fig.add_trace(image_trace(rgb), row=1, col=1)
    changes = [((b - a).norm(dim=-1) / a.norm(dim=-1))[0] for a, b in pairwise(states)]
    top = max(float(change.max()) for change in changes)
    for col, change in enumerate(changes, start=2):
        cells = torch.full((x.shape[2] * x.shape[3],), torch.nan)
        cells[index] = change
        heat = go.Heatmap(
            z=cells.reshape(x.shape[2:]).numpy(), colorscale="Viridis", zmin=0, zmax=top
        )
        heat.update(showscale=col == len(states), hovertemplate="%{z:.2f}<extra></extra>")
        fig.add_trace(heat, row=1, col=col)
    base_layout(fig, height=height)
    for col in range(1, len(states) + 1):
        axis = "x" if col == 1 else f"x{col}"
        fig.update_xaxes(visible=False, constrain="domain", row=1, col=col)
        fig.update_yaxes(
            visible=False,
            autorange="reversed",
            scaleanchor=axis,
            constrain="domain",
            row=1,
            col=col,
        )
    return fig


@torch.no_grad()
def _trace(
    layer: SpatialContextRefinement, x: Tensor
) -> tuple[Tensor, list[Tensor], list[tuple[Tensor, ...]]]:
    """Cells of the nodes (K,), states and weights of :meth:`SpatialContextRefinement.trace`."""
    if x.ndim != 4 or len(x) != 1:
        raise ValueError(f"expected the map (1, C, H, W) of one photograph, got {tuple(x.shape)}")
    index, states, weights = layer.trace(x)
    return index[0], states, weights


def _relation_look(layer: SpatialContextRefinement, r: int) -> tuple[str, str]:
    """Colour by sector, symbol by ring; similarity edges have their own symbol."""
    spatial, sectors = layer.relations[0], layer.sectors
    if r >= spatial:
        return COLORS[(r - spatial) % len(COLORS)], "diamond"
    if r == 0:
        return COLORS[6], "circle"
    symbols = ("circle", "square", "triangle-up")
    return COLORS[(r - 1) % sectors % len(COLORS)], symbols[(r - 1) // sectors % len(symbols)]


def _pixels(index: Tensor, x: Tensor, rgb: np.ndarray) -> np.ndarray:
    """(K, 2) x and y in pixels of the centres of cells."""
    rows, columns = (index // x.shape[3]).numpy(), (index % x.shape[3]).numpy()
    scale = rgb.shape[1] / x.shape[3], rgb.shape[0] / x.shape[2]
    return np.stack([(columns + 0.5) * scale[0], (rows + 0.5) * scale[1]], axis=-1)


def _on_photograph(rgb: np.ndarray, height: int, title: str) -> go.Figure:
    fig = base_layout(go.Figure(image_trace(rgb, hoverinfo="skip")), height=height, title=title)
    fig.update_layout(showlegend=False, margin={"l": 8, "r": 8, "b": 8})
    return hide_axes(fig)


def _add_nodes(
    fig: go.Figure,
    place: np.ndarray,
    marker: Mapping[str, Any],
    text: list[str],
    *,
    name: str = "",
) -> None:
    marker = {"symbol": "circle", **marker, "line": {"color": "#222222", "width": 0.7}}
    fig.add_scatter(
        x=place[:, 0],
        y=place[:, 1],
        mode="markers",
        marker=marker,
        text=text,
        name=name,
        hovertemplate="%{text}<extra></extra>",
        showlegend=bool(name),
    )
