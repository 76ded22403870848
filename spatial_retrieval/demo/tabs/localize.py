"""Localise: what is marked on the query, outlined in every hit."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from spatial_retrieval.demo import html, limits
from spatial_retrieval.demo.components import card_grid, said
from spatial_retrieval.demo.gallery import Gallery
from spatial_retrieval.demo.localizer import LocalizedHit
from spatial_retrieval.demo.results import Results
from spatial_retrieval.demo.tabs.shared import HEAVY, Shared, intro, query_html
from spatial_retrieval.localize import THRESHOLD

__all__ = ["LocalizeTab"]

_HOW = (
    "Click the thing you mean on the query; Shift-click, or press long, what you do not mean; or "
    "drag a box. Backspace undoes. Without marks the query's main object is looked for."
)
_HINT = '<div class="sr-empty"><div>Choose a query; its hits appear here.</div></div>'
_SAVE = "() => document.querySelector('#found-downloads a')?.click()"
_SIDE = 320


class LocalizeTab:
    """Builds the tab inside the current blocks.

    Args:
        shared: what all tabs share.
    """

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        intro(_HOW)
        with gr.Row():
            self.view = gr.Radio(
                [("Outline", "outline"), ("Heat map", "heat"), ("Box", "box")],
                value="outline",
                label="Show",
                scale=5,
                min_width=250,
                elem_id="show",
            )
            self.layer = gr.Radio(
                [("fine, stride 16", "fine"), ("as pooled", "pooled")],
                value="fine",
                label="Feature map",
                scale=5,
                min_width=250,
                elem_id="layer",
            )
            self.threshold = gr.Slider(
                0,
                1,
                value=THRESHOLD,
                step=0.01,
                label="Lowest score",
                scale=4,
                min_width=180,
                elem_id="threshold",
            )
        with gr.Row():
            self.find = gr.Button("Find the seed for me", size="sm", elem_id="find-seed")
            self.pack = gr.Button("Download hits and overlays", size="sm", elem_id="pack")
        self.times = gr.HTML(min_height=24)
        self.hits = card_grid(_HINT, "found")
        with gr.Accordion("Marks by keyboard", open=False):
            with gr.Row():
                self.x = gr.Number(
                    0, label="x, pixels", precision=0, minimum=0, min_width=90, elem_id="mark-x"
                )
                self.y = gr.Number(
                    0, label="y, pixels", precision=0, minimum=0, min_width=90, elem_id="mark-y"
                )
                self.wanted = gr.Checkbox(
                    True, label="this is what I mean", min_width=160, elem_id="mark-wanted"
                )
            self.add = gr.Button("Add this mark", size="sm", elem_id="add-mark")
        self.links = gr.HTML(elem_id="found-downloads")
        self.last = gr.State(None)  # what the hits were drawn for

    @property
    def blank(self) -> dict[Any, Any]:
        """Values that show nothing."""
        return {self.hits: _HINT, self.times: "", self.links: "", self.last: None}

    def run(self, trigger: Callable[..., Any], *, open_tab: bool = False) -> Any:
        """Localise when ``trigger`` fires; the hits that came meanwhile are left out."""
        shared = self.shared
        if open_tab:
            opened = trigger(
                _tab_for_marks,
                shared.view,
                [shared.tabs, shared.view],
                queue=False,
                show_progress="hidden",
                trigger_mode="multiple",
                api_visibility="private",
            )
            trigger = opened.then
        return trigger(
            said(self._localize),
            [
                shared.results,
                shared.marks,
                self.view,
                self.layer,
                self.threshold,
                self.last,
                shared.view,
            ],
            [self.last, self.hits, self.times],
            trigger_mode="always_last",
            show_progress_on=[self.hits],
            **HEAVY,
        )

    def wire(self) -> None:
        """Connect the tab's own events."""
        shared = self.shared
        self.run(shared.view.change)
        self.run(shared.results.change)
        for control in (self.view, self.layer):
            self.run(control.input)
        self.run(self.threshold.input)
        marks = [shared.marks, shared.canvas]
        added = self.add.click(
            said(self._add),
            [shared.query, shared.marks, self.x, self.y, self.wanted],
            marks,
            **HEAVY,
        )
        self.run(added.success)
        found = self.find.click(
            said(self._seed),
            [shared.query, shared.marks, shared.results, self.layer],
            marks,
            **HEAVY,
        )
        self.run(found.success)
        packed = self.pack.click(
            said(self._pack),
            [shared.results, shared.marks, self.layer, self.threshold],
            self.links,
            show_progress_on=[self.links],
            **HEAVY,
        )
        packed.success(None, js=_SAVE)

    def _localize(self, *values: Any) -> tuple:
        results, marks, view, layer, threshold, last, open_tab = values
        asked = (results, marks, view, layer, threshold)
        if results is None or open_tab != "localize" or asked == last:
            return (gr.skip(),) * 3
        limits.choice(view, "the view", ("outline", "heat", "box"))
        localized = self.shared.service.localize(
            results, points=marks["points"], box=marks["box"], layer=layer, threshold=threshold
        )
        home = self.shared.service.gallery_of(results.gallery)
        cards = [self._card(home, found, view) for found in localized.found]
        return asked, html.cards(cards, kind="whole"), html.timings(localized.milliseconds)

    def _card(self, home: Gallery, found: LocalizedHit, view: str) -> html.Card:
        regions, pictures = found.result.regions, self.shared.service.pictures
        if view == "heat":
            overlay = html.heat_overlay(found.heat_png())
        else:
            lines = [line for outlines in found.outlines for line in outlines]
            boxes = [region.box for region in regions]
            overlay = html.outline_overlay(
                found.size, lines if view == "outline" else [], boxes if view == "box" else []
            )
        count = f"{len(regions)} regions" if len(regions) > 1 else "found"
        hint = f"{count if regions else 'not found'} · score {found.result.score:.2f}"
        return html.Card(
            pictures.photograph(home, found.name, _SIDE),
            f"Hit {found.rank}: {found.label}, {hint}",
            title=found.label,
            badge=str(found.rank),
            hint=hint,
            overlay=overlay,
            size=found.size,
            faded=not regions and view != "heat",
        )

    def _pack(self, results: Results | None, marks: dict, layer: str, threshold: float) -> str:
        if results is None:
            raise ValueError("search first: choose a query")
        packed = self.shared.service.bundle(
            results, points=marks["points"], box=marks["box"], layer=layer, threshold=threshold
        )
        return html.downloads([("hits.zip", packed, "application/zip")])

    def _add(self, query: Any, marks: dict, x: Any, y: Any, wanted: Any) -> tuple:
        return self._marked(query, marks, [x, y, int(bool(wanted))])

    def _seed(self, query: Any, marks: dict, results: Results | None, layer: str) -> tuple:
        model = None if results is None else results.model
        x, y = self.shared.service.seed(query, box=marks["box"], layer=layer, model=model)
        return self._marked(query, marks, [x, y, 1])

    def _marked(self, query: Any, marks: dict, point: list) -> tuple:
        kept = self.shared.service.queries[query]
        points = limits.marked_points([*marks["points"], point], kept.image.size)
        new = {**marks, "points": points, "stamp": marks["stamp"] + 1}
        drawn = query_html(kept, self.shared.service, points=points, box=marks["box"])
        return new, drawn


def _tab_for_marks(view: str) -> tuple:
    """Marks lead to this tab, unless the open one shows what they change."""
    if view in ("localize", "inside"):
        return gr.skip(), gr.skip()
    return gr.Tabs(selected="localize"), "localize"
