"""What all tabs share: the service, the query with its marks, and the last hits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import gradio as gr
from PIL import Image

from spatial_retrieval.demo import html
from spatial_retrieval.demo.gallery import Gallery
from spatial_retrieval.demo.queries import KeptQuery
from spatial_retrieval.demo.results import Hit, Results
from spatial_retrieval.demo.service import Service

__all__ = [
    "HEAVY",
    "MAIN",
    "NO_MARKS",
    "OWN",
    "Shared",
    "hit_cards",
    "example_cards",
    "hidden_plot",
    "intro",
    "query_html",
    "show",
    "shown_plot",
]

MAIN, OWN = "main", "own"

NO_MARKS: dict[str, Any] = {"points": [], "box": None, "stamp": 0}
# How many heavy steps there are at a time is decided in the service, whichever way they are asked.
HEAVY: dict[str, Any] = {"concurrency_limit": None, "api_visibility": "private"}
_SIDE = 320


@dataclass
class Shared:
    """Components that more than one tab reads or writes."""

    service: Service
    query: gr.State  # key of the query
    marks: gr.State  # points, box and stamp, as the browser sent them
    place: gr.State  # key of the gallery that is searched; None: the main one
    own: gr.State  # key of the visitor's own gallery, if there is one
    results: gr.State  # Results of the last search
    canvas: gr.HTML
    examples: gr.HTML
    where: gr.Radio
    view: gr.State  # id of the open tab
    tabs: gr.Tabs | None = None


def intro(text: str) -> gr.HTML:
    """What a tab is for, at its top."""
    return gr.HTML(html.note(text))


def hidden_plot() -> gr.Plot:
    """A place for a figure that some hits have and others don't."""
    return gr.Plot(show_label=False, visible=False, min_width=300)


def shown_plot(figure: Any) -> gr.Plot:
    """A value for :func:`hidden_plot`: a figure, or None to hide it."""
    return gr.Plot(visible=False) if figure is None else gr.Plot(figure, visible=True)


def query_html(query: KeptQuery, service: Service, **marks: Any) -> str:
    """The query to draw on."""
    return html.canvas(service.pictures.query(query), query.image.size, label=query.label, **marks)


def show(query: KeptQuery, service: Service) -> tuple[str, dict[str, Any], str]:
    """Values for ``query``, ``marks`` and ``canvas``."""
    return query.key, NO_MARKS, query_html(query, service)


def hit_cards(
    service: Service,
    results: Results,
    moves: Sequence[int | None] | None = None,
    inliers: Mapping[str, int] | None = None,
) -> str:
    """The hits as a grid, with ranks won or lost against another list.

    Args:
        service: has the pictures.
        results: the hits.
        moves: see :func:`~spatial_retrieval.demo.results.moves`.
        inliers: name → point pairs, said in place of the score.
    """
    items = []
    for position, hit in enumerate(results.hits):
        hint, mark = (f"{hit.score:.3f}", "")
        if inliers is not None:
            hint = f"{inliers[hit.name]} pairs"
        if moves is not None:
            change, mark = _move(moves[position])
            hint = f"{hint} {change}"
        items.append(_card(service, results, hit, hint, mark))
    return html.cards(items)


def example_cards(service: Service, place: str | None) -> str:
    """A gallery's examples as a strip."""
    try:
        gallery = service.gallery_of(place)
    except ValueError as error:
        return html.note(str(error))
    items = []
    for example in gallery.examples:
        picture = service.pictures.example(gallery, example)
        items.append(html.Card(picture, f"Example query: {example.label}", title=example.label))
    return f'<div class="sr-label">{_strip_title(gallery, place)}</div>' + html.cards(
        items, kind="examples"
    )


def _strip_title(gallery: Gallery, place: str | None) -> str:
    if place is None:
        return "Example queries"
    more = len(gallery.names) > len(gallery.examples)
    return f"The first {len(gallery.examples)} of your photographs" if more else "Your photographs"


def _card(service: Service, results: Results, hit: Hit, hint: str, mark: str) -> html.Card:
    picture = service.pictures.photograph(service.gallery_of(results.gallery), hit.name, _SIDE)
    return html.Card(
        picture,
        f"Hit {hit.rank}: {hit.label}, score {hit.score:.3f}",
        title=hit.label,
        badge=str(hit.rank),
        score=hit.score / max(1.0, results.hits[0].score),
        hint=hint,
        mark=mark,
        truth=hit.truth,
        size=Image.open(BytesIO(picture)).size,
    )


def _move(change: int | None) -> tuple[str, str]:
    if change is None:
        return "· new", "new"
    if change == 0:
        return "· same rank", ""
    return (f"▲ {change}", "up") if change > 0 else (f"▼ {-change}", "down")
