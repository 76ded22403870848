"""Look inside: the learned kernel at a point, the graph over the photograph, the similarity."""

from collections.abc import Callable
from typing import Any

import gradio as gr
import numpy as np

from spatial_retrieval.demo import html
from spatial_retrieval.demo.components import said
from spatial_retrieval.demo.gallery import jpeg
from spatial_retrieval.demo.inside import Inside, heat_png
from spatial_retrieval.demo.results import Results
from spatial_retrieval.demo.tabs.shared import HEAVY, Shared, hidden_plot, intro, shown_plot
from spatial_retrieval.plots.refinement import graph_figure, messages_figure
from spatial_retrieval.plots.smoothing import heatmaps, kernel_figure

__all__ = ["InsideTab"]

_HOW = (
    "Which cells the similarity to a hit comes from, and what the context layers do at the "
    "cell you clicked last on the query (its middle, if you clicked none)."
)
_PLAIN = (
    "This model has no smoothing or refinement layer: each cell is pooled as it is. Choose another "
    "model on the Search tab to see what such a layer does."
)
_HINT = '<div class="sr-empty"><div>Choose a query first.</div></div>'
_SMOOTHING = (
    "Learnable smoothing: each cell is averaged with its neighbours, by weights that depend on "
    "what they show. Left, the weights around the marked cell; right, the bandwidth a (large: "
    "only very similar neighbours count) and the self-confidence c (the cell's own weight)."
)
_REFINEMENT = (
    "Spatial context-aware refinement: the strongest cells are nodes of a graph, joined to those "
    "near them and to those that look alike. Left, the nodes and the short edges; right, what the "
    "node nearest to the marked cell (star) receives, by relation; larger is more."
)


class InsideTab:
    """Builds the tab inside the current blocks.

    Args:
        shared: what all tabs share.
    """

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        intro(_HOW)
        self.rank = gr.Slider(
            1, 12, value=1, step=1, label="Hit, by its rank", elem_id="inside-rank"
        )
        self.shares = gr.HTML(_HINT, elem_id="shares")
        self.smoothed = gr.HTML(elem_id="inside-text")
        with gr.Row():
            self.kernel = hidden_plot()
            with gr.Column(min_width=300):
                self.bandwidth, self.confidence = hidden_plot(), hidden_plot()
        self.refined = gr.HTML()
        with gr.Row():
            self.graph, self.messages = hidden_plot(), hidden_plot()

    @property
    def blank(self) -> dict[Any, Any]:
        """Values that show nothing."""
        plots = self.kernel, self.bandwidth, self.confidence, self.graph, self.messages
        return {
            self.shares: _HINT,
            self.smoothed: "",
            self.refined: "",
            **{plot: shown_plot(None) for plot in plots},
        }

    def run(self, trigger: Callable[..., Any]) -> Any:
        """Look again when ``trigger`` fires, if the tab is open."""
        shared = self.shared
        return trigger(
            said(self._look),
            [shared.results, shared.marks, shared.view, self.rank],
            [
                self.rank,
                self.shares,
                self.smoothed,
                self.kernel,
                self.bandwidth,
                self.confidence,
                self.refined,
                self.graph,
                self.messages,
            ],
            trigger_mode="always_last",
            show_progress_on=[self.shares],
            **HEAVY,
        )

    def wire(self) -> None:
        """Connect the tab's own events."""
        for trigger in (self.shared.view.change, self.shared.results.change, self.rank.input):
            self.run(trigger)

    def _look(self, results: Results | None, marks: dict, view: str, rank: Any) -> tuple:
        if results is None or view != "inside":
            return (gr.skip(),) * 9
        point = marks["points"][-1] if marks["points"] else None
        count = len(results.hits)
        rank = min(rank, count) if isinstance(rank, int | float) else rank
        found = self.shared.service.inside(results, point=point, rank=rank)
        slider = gr.Slider(maximum=max(count, 2), value=rank)
        return slider, _shares(found), *_smoothing(found), *_refinement(found)


def _shares(found: Inside) -> str:
    limit = max(float(shares.abs().max()) for shares in found.shares)
    pictures = zip((found.image, found.other), found.shares, ("query", "hit"), strict=True)
    cards = [
        html.Card(
            jpeg(image),
            f"The {name}, coloured by what each cell adds to the similarity",
            title=f"{name}: its cells add up to {float(shares.sum()):.3f}",
            overlay=html.heat_overlay(heat_png(shares, limit)),
            size=image.size,
        )
        for image, shares, name in pictures
    ]
    return html.cards(cards, kind="pair") + html.note(_similarity(found))


def _similarity(found: Inside) -> str:
    parts = " + ".join(
        f"{part.weight:.2f} × {part.similarity:.3f} ({part.name})" for part in found.parts
    )
    made_of = f" = {parts}" if len(found.parts) > 1 else ""
    return (
        f"Cosine similarity {found.similarity:.3f}{made_of}. Orange cells raise it, blue ones "
        "lower it; what they leave open is the constant of the whitening."
    )


def _smoothing(found: Inside) -> tuple:
    layer = found.smoothing
    if layer is None:
        return "" if found.layers else html.note(_PLAIN), *[shown_plot(None)] * 3
    kernel = layer.kernel(found.inputs["smoothing"])
    weights = {f"weights at row {found.cell[0]}, column {found.cell[1]}": kernel.weights[0]}
    figure = kernel_figure(found.image, weights, found.cell, dilation=kernel.dilation)
    maps = {"bandwidth a": kernel.a, "self-confidence c": kernel.c}
    drawn = [heatmaps({name: values[0, 0]}) for name, values in maps.items()]
    return html.note(_SMOOTHING), *map(shown_plot, (figure, *drawn))


def _refinement(found: Inside) -> tuple:
    layer = found.refinement
    if found.node is None:
        return "", shown_plot(None), shown_plot(None)
    x, rgb = found.inputs["refinement"], np.asarray(found.image)
    heard = messages_figure(rgb, layer, x, found.node, height=540)
    heard.update_layout(legend={"orientation": "h", "y": 0, "yanchor": "top", "font_size": 11})
    graph = graph_figure(rgb, layer, x, height=540)
    return html.note(_REFINEMENT), shown_plot(graph), shown_plot(heard)
