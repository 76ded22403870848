"""Look inside: the learned kernel at a point, the graph over the photograph, the similarity."""

from typing import Any

import gradio as gr
import numpy as np

from spatial_retrieval.demo import html
from spatial_retrieval.demo.components import said
from spatial_retrieval.demo.gallery import jpeg
from spatial_retrieval.demo.inside import Inside, heat_png
from spatial_retrieval.demo.results import Results
from spatial_retrieval.demo.tabs.shared import HEAVY, Shared
from spatial_retrieval.plots.refinement import graph_figure, messages_figure
from spatial_retrieval.plots.smoothing import kernel_figure, kernel_maps

__all__ = ["InsideTab"]

_HOW = (
    "Where the similarity to an answer comes from: orange cells speak for it, blue ones against. "
    "With a context layer: the last point you clicked on the query, and what it hears from where."
)
_PLAIN = (
    "This model has no context layer: each cell is pooled as it is. Choose one with smoothing or "
    "refinement, where there is one, to see its weights."
)


class InsideTab:
    """Builds the tab inside the current blocks.

    Args:
        shared: what all tabs share.
    """

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        gr.HTML(html.note(_HOW))
        with gr.Row():
            self.rank = gr.Slider(
                1, 12, value=1, step=1, label="Answer", min_width=160, elem_id="inside-rank"
            )
            self.show = gr.Button("Look again", min_width=120, elem_id="inside-show")
        self.shares = gr.HTML(elem_id="shares")
        self.text = gr.HTML(elem_id="inside-text")
        with gr.Row():
            self.kernel = gr.Plot(show_label=False, visible=False, min_width=300)
            self.maps = gr.Plot(show_label=False, visible=False, min_width=300)
        with gr.Row():
            self.graph = gr.Plot(show_label=False, visible=False, min_width=300)
            self.messages = gr.Plot(show_label=False, visible=False, min_width=300)

    def wire(self) -> None:
        """Connect the tab's own events."""
        shared = self.shared
        triggers = (shared.view.change, shared.results.change, self.rank.release, self.show.click)
        for trigger in triggers:
            trigger(
                said(self._look), [shared.results, shared.marks, shared.view, self.rank],
                [self.shares, self.text, self.kernel, self.maps, self.graph, self.messages],
                show_progress_on=[self.shares], **HEAVY,
            )  # fmt: skip

    def _look(self, results: Results | None, marks: dict, view: str, rank: Any) -> tuple:
        if results is None or view != "inside":
            return (gr.skip(),) * 6
        point = marks["points"][-1] if marks["points"] else None
        count = len(results.answers)
        rank = min(rank, count) if isinstance(rank, int | float) else rank
        found = self.shared.service.inside(results, point=point, rank=rank)
        text = "" if found.layers else html.note(_PLAIN)
        return (_shares(found), text, *_smoothing(found), *_refinement(found))


def _shares(found: Inside) -> str:
    limit = max(float(shares.abs().max()) for shares in found.shares)
    pictures = zip((found.image, found.other), found.shares, ("query", "answer"), strict=True)
    cards = [
        html.Card(
            jpeg(image), f"The {name}, coloured by what each cell adds to the similarity",
            title=f"{name}: these cells add up to {float(shares.sum()):.3f}",
            overlay=html.heat_overlay(heat_png(shares, limit)), size=image.size,
        )
        for image, shares, name in pictures
    ]  # fmt: skip
    return html.cards(cards, kind="pair") + html.note(
        f"Similarity by these maps alone: {found.similarity:.3f}."
    )


def _smoothing(found: Inside) -> tuple[gr.Plot, gr.Plot]:
    layer = found.smoothing
    if layer is None:
        return gr.Plot(visible=False), gr.Plot(visible=False)
    kernel = layer.kernel(found.inputs["smoothing"])
    shown = {"learned weights": kernel.weights[0]}
    figure = kernel_figure(found.image, shown, found.cell, dilation=kernel.dilation)
    return gr.Plot(figure, visible=True), gr.Plot(kernel_maps(kernel.a, kernel.c), visible=True)


def _refinement(found: Inside) -> tuple[gr.Plot, gr.Plot]:
    layer = found.refinement
    if found.node is None:
        return gr.Plot(visible=False), gr.Plot(visible=False)
    x, rgb = found.inputs["refinement"], np.asarray(found.image)
    graph = graph_figure(rgb, layer, x)
    heard = messages_figure(rgb, layer, x, found.node)
    return gr.Plot(graph, visible=True), gr.Plot(heard, visible=True)
