"""The query panel: examples, an upload, and the query itself to click and drag on."""

from typing import Any

import gradio as gr

from spatial_retrieval.demo import limits
from spatial_retrieval.demo.components import (
    card_grid,
    event_value,
    photograph_upload,
    query_canvas,
    said,
    said_gently,
)
from spatial_retrieval.demo.queries import KeptQuery
from spatial_retrieval.demo.service import Service
from spatial_retrieval.demo.tabs.inside import InsideTab
from spatial_retrieval.demo.tabs.localize import LocalizeTab
from spatial_retrieval.demo.tabs.search import SearchTab
from spatial_retrieval.demo.tabs.shared import (
    HEAVY,
    MAIN,
    NO_MARKS,
    OWN,
    Shared,
    example_cards,
    show,
)

__all__ = ["QueryPanel"]

_EMPTY = (
    '<div class="sr-empty"><div>Choose an example query, or drop a photograph of yours.</div></div>'
)
_SEND = (
    "() => document.querySelector('#query .sr-canvas')"
    "?.dispatchEvent(new CustomEvent('{}', {{bubbles: true}}))"
)

_TO_HITS = """() => {
  if (innerWidth <= 760) document.querySelector('.tabs')?.scrollIntoView({behavior: 'smooth'});
}"""


class QueryPanel:
    """Builds the panel inside the current blocks, and what all tabs share.

    Args:
        service: hits.
    """

    def __init__(self, service: Service) -> None:
        canvas = query_canvas(_EMPTY, "query")
        with gr.Row():
            self.undo = gr.Button("Undo mark", size="sm", min_width=80)
            self.clear = gr.Button("Clear marks", size="sm", min_width=80)
        choices = [("Gallery" if service.gallery is None else service.gallery.title, MAIN)]
        where = gr.Radio(
            [*choices, ("Your photographs", OWN)],
            value=MAIN,
            label="Search in",
            visible=False,
            elem_id="where",
        )
        examples = card_grid(example_cards(service, None), "examples")
        self.drop = photograph_upload("Your own query", "drop")
        self.shared = Shared(
            service=service,
            query=gr.State(None),
            marks=gr.State(NO_MARKS),
            place=gr.State(None),
            own=gr.State(None, time_to_live=3600, delete_callback=service.forget),
            results=gr.State(None),
            canvas=canvas,
            examples=examples,
            where=where,
            view=gr.State("search"),
        )

    @property
    def blank(self) -> dict[Any, Any]:
        """Values that show nothing."""
        shared = self.shared
        return {
            shared.query: None,
            shared.marks: NO_MARKS,
            shared.canvas: _EMPTY,
            shared.results: None,
        }

    def wire(self, search: SearchTab, localize: LocalizeTab, inside: InsideTab) -> None:
        """Connect the panel's events; a new query or box is searched for at once.

        Marks are kept at once and outside the queue, so that no rapid click is lost; what they lead
        to runs one at a time, with the latest marks.
        """
        shared = self.shared
        shown = [shared.query, shared.marks, shared.canvas]
        chosen = shared.examples.choose(said(self._example), shared.place, shown, **HEAVY)
        search.run(chosen.success).success(None, js=_TO_HITS)
        dropped = self.drop.upload(
            said_gently(len(shown))(self._upload),
            self.drop,
            [*shown, self.drop],
            preprocess=False,
            **HEAVY,
        )
        search.run(dropped.success).success(None, js=_TO_HITS)
        quick = {"queue": False, "show_progress": "hidden", "trigger_mode": "multiple"}
        marked = shared.canvas.box(
            self._marks,
            [shared.query, shared.marks],
            shared.marks,
            api_visibility="private",
            **quick,
        )
        search.run(marked.success)
        seeded = shared.canvas.seed(
            self._marks,
            [shared.query, shared.marks],
            shared.marks,
            api_visibility="private",
            **quick,
        )
        localize.run(seeded.success, open_tab=True)
        inside.run(seeded.success)
        shared.where.input(
            self._move,
            [shared.where, shared.own],
            [shared.place, shared.examples],
            queue=False,
            api_visibility="private",
        )
        self.undo.click(None, js=_SEND.format("sr-undo"))
        self.clear.click(None, js=_SEND.format("sr-clear"))

    def opens(self, tab: gr.Tab) -> Any:
        """Note which tab is open, in the queue: only there does a change of state call others."""
        return tab.select(
            lambda: tab.id,
            None,
            self.shared.view,
            show_progress="hidden",
            concurrency_limit=None,
            api_visibility="private",
        )

    def _example(self, place: str | None, event: gr.EventData) -> tuple:
        service = self.shared.service
        return show(service.queries.open_example(event_value(event, "index"), place), service)

    def _upload(self, payload: Any) -> tuple:
        service = self.shared.service
        return (*show(self._opened(payload), service), None)

    def _opened(self, payload: Any) -> KeptQuery:
        uploads = self.shared.service.uploads
        query = self.shared.service.queries.open(uploads.find(payload))
        uploads.discard([payload])
        return query

    def _move(self, where: str, own: str | None) -> tuple:
        place = own if where == OWN else None
        return place, example_cards(self.shared.service, place)

    def _marks(self, query: Any, known: dict[str, Any], event: gr.EventData) -> dict[str, Any]:
        """The marks as the browser has them.

        Nothing changes for an older message that comes late, or for one that no canvas would send:
        outside the queue an error would be a failure of the server, not a sentence.
        """
        try:
            stamp = limits.whole(event_value(event, "stamp"), "the stamp", 0, 2**53)
            points, box = (event_value(event, name) for name in ("points", "box"))
            size = self.shared.service.queries[query].image.size
            marks = {
                "points": limits.marked_points(points, size),
                "box": limits.marked_box(box, size),
            }
        except ValueError:
            return gr.skip()
        return gr.skip() if stamp < known["stamp"] else {**marks, "stamp": stamp}
