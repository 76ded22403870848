"""Search: ranked hits, a second model next to the first, and one hit against the query."""

import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from spatial_retrieval.demo import html, limits
from spatial_retrieval.demo.components import card_grid, event_value, said
from spatial_retrieval.demo.results import Results, moves
from spatial_retrieval.demo.tabs.shared import HEAVY, Shared, hit_cards, show
from spatial_retrieval.rerank import BASIC_NAMES

__all__ = ["SearchTab"]

_NONE = "none"
_HINT = (
    '<div class="sr-empty"><div>The ranked hits appear here. Compare two models to see what '
    "spatial context changes.</div></div>"
)
_TITLES = {
    "none": "none",
    "aqe": "α-query expansion",
    "dba+aqe": "database augmentation + αQE",
    "superglobal": "SuperGlobal",
    "verify": "spatial verification (SIFT)",
    "verify-cells": "spatial verification (map cells)",
    "hypergraph": "hypergraph propagation",
}
_TO_DETAIL = """() => {
  let left = 60;
  const look = () => {
    const found = document.querySelector('#slider');
    if (found?.offsetHeight) found.scrollIntoView({behavior: 'smooth', block: 'nearest'});
    else if (left--) requestAnimationFrame(look);
  };
  look();
}"""


class SearchTab:
    """Builds the tab inside the current blocks.

    Args:
        shared: what all tabs share.
    """

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self._settings()
        self.times = gr.HTML(min_height=24, elem_id="times")
        with gr.Row():
            with gr.Column(min_width=300):
                self.hits = card_grid(_HINT, "hits")
            with gr.Column(min_width=300, visible=False) as self.second_column:
                self.second = card_grid("", "hits-second")
        with gr.Group(visible=False) as self.detail:
            self.slider = gr.ImageSlider(
                label="query | hit",
                format="jpeg",
                interactive=False,
                height=420,
                buttons=["fullscreen"],
                elem_id="slider",
            )
            self.again = gr.Button("Use this hit as the query", size="sm", elem_id="use-hit")
        self.links = gr.HTML(elem_id="downloads")
        self.second_results = gr.State(None)
        self.chosen = gr.State(None)  # (Results, rank)

    @property
    def blank(self) -> dict[Any, Any]:
        """Values that show nothing."""
        hidden = gr.Group(visible=False)
        return {
            self.hits: _HINT,
            self.second: "",
            self.second_column: gr.Column(visible=False),
            self.times: "",
            self.links: "",
            self.detail: hidden,
            self.slider: None,
            self.second_results: None,
            self.chosen: None,
        }

    def _settings(self) -> None:
        service = self.shared.service
        models = [(service.shelf.title(name), name) for name in service.shelf.names]
        rerankers = [(_TITLES.get(name, name), name) for name in BASIC_NAMES]
        with gr.Row():
            self.model = gr.Dropdown(
                models,
                value=service.default,
                label="Model",
                scale=5,
                min_width=190,
                elem_id="model",
            )
            self.other = gr.Dropdown(
                [(_NONE, _NONE), *models],
                value=_NONE,
                label="Compare with",
                scale=5,
                min_width=150,
                visible=len(models) > 1,
                elem_id="compare",
            )
            self.rerank = gr.Dropdown(
                rerankers,
                value="none",
                label="Re-ranking",
                scale=5,
                min_width=150,
                elem_id="rerank",
            )
            self.count = gr.Slider(
                1, limits.MAX_HITS, value=12, step=1, label="Hits", scale=4, min_width=150
            )

    def run(self, trigger: Callable[..., Any]) -> Any:
        """Search when ``trigger`` fires: the method of a listener, such as ``button.click``."""
        shared = self.shared
        return trigger(
            said(self._search),
            [
                shared.query,
                shared.marks,
                shared.place,
                self.model,
                self.other,
                self.rerank,
                self.count,
            ],
            [
                shared.results,
                self.second_results,
                self.hits,
                self.second,
                self.second_column,
                self.times,
                self.links,
                self.detail,
            ],
            trigger_mode="always_last",
            show_progress_on=[self.hits],
            **HEAVY,
        )

    def wire(self) -> None:
        """Connect the tab's own events; the shared components exist by now."""
        shared = self.shared
        for control in (self.model, self.other, self.rerank, self.count):
            self.run(control.input)
        detail = [self.chosen, self.slider, self.detail]
        for grid, results in ((self.hits, shared.results), (self.second, self.second_results)):
            opened = grid.choose(said(self._compare), results, detail, **HEAVY)
            opened.success(None, js=_TO_DETAIL)
        used = self.again.click(
            said(self._use), self.chosen, [shared.query, shared.marks, shared.canvas], **HEAVY
        )
        self.run(used.success)

    def _search(self, *values: Any) -> tuple:
        query, marks, place, model, other, rerank, count = values
        if query is None:
            return (gr.skip(),) * 8
        service, box = self.shared.service, marks["box"]
        asked = {"box": box, "rerank": rerank, "k": count, "gallery": place}
        results = service.search(query, model=model, **asked)
        second = None if other == _NONE else service.search(query, model=other, **asked)
        service.look_ahead(results)
        return (
            results,
            second,
            self._column(results, titled=second is not None),
            "" if second is None else self._column(second, titled=True, before=results),
            gr.Column(visible=second is not None),
            self._times([results] if second is None else [results, second]),
            _links(results),
            gr.Group(visible=False),
        )

    def _column(self, results: Results, *, titled: bool, before: Results | None = None) -> str:
        """The hits under one model; with the ranks won or lost since ``before``."""
        service = self.shared.service
        change = None if before is None else moves(before.hits, results.hits)
        title = html.escape(service.shelf.title(results.model))
        head = f'<h3 class="sr-column">{title}</h3>' if titled else ""
        return head + self._known(results) + hit_cards(service, results, change)

    def _known(self, results: Results) -> str:
        """How many of the right hits are there, when an example's are known."""
        example = self.shared.service.queries[results.query].example
        if example is None or not example.same:
            return ""
        same, twins = (sum(hit.truth == kind for hit in results.hits) for kind in ("same", "twin"))
        return html.note(
            f"{same} of the {len(example.same)} other photographs of this house are among the "
            f"first {len(results.hits)}, and {twins} of the {len(example.twins)} of its twin."
        )

    def _times(self, searches: list[Results]) -> str:
        title = self.shared.service.shelf.title
        return "".join(
            html.timings(found.milliseconds, title(found.model) if len(searches) > 1 else "")
            for found in searches
        )

    def _compare(self, results: Results | None, event: gr.EventData) -> tuple:
        if results is None:
            raise ValueError("search first, then choose a hit")
        count = len(results.hits)
        rank = limits.position(event_value(event, "index"), "the hit", count) + 1
        hit = results.hit(rank)
        pair = self.shared.service.pair(results, rank)
        label = f"query | {hit.rank}: {hit.label}"
        return (results, rank), gr.ImageSlider(pair, label=label), gr.Group(visible=True)

    def _use(self, chosen: tuple[Results, int] | None) -> tuple:
        if chosen is None:
            raise ValueError("choose a hit first")
        return show(self.shared.service.queries.open_hit(*chosen), self.shared.service)


def _links(results: Results) -> str:
    data = json.dumps(results.to_json(), indent=2, ensure_ascii=False)
    return html.downloads(
        [
            ("hits.json", data.encode(), "application/json"),
            ("hits.csv", results.to_csv().encode(), "text/csv"),
        ]
    )
