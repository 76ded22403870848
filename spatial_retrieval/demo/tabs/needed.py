"""Was re-ranking needed? Whether the first hits agree, and what verification would change."""

from dataclasses import replace
from typing import Any

import gradio as gr

from spatial_retrieval.demo import html
from spatial_retrieval.demo.components import said
from spatial_retrieval.demo.needed import TRUSTED_NATS, HitAgreement, Verified
from spatial_retrieval.demo.results import Results, moves
from spatial_retrieval.demo.tabs.shared import (
    HEAVY,
    Shared,
    hidden_plot,
    hit_cards,
    intro,
    shown_plot,
)
from spatial_retrieval.plots.reranking import community_graph, matched_inliers, time_breakdown

__all__ = ["NeededTab"]

_HOW = (
    "The first 20 hits are joined where they are neighbours of each other in the gallery. One "
    "community: the search agrees with itself. Many: the first hit may be wrong, and spatial "
    "verification may be worth its time."
)
_FIRST = "Choose a query first."
_SHOWN = 10  # hits after verification


class NeededTab:
    """Builds the tab inside the current blocks.

    Args:
        shared: what all tabs share.
    """

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        intro(_HOW)
        self.verdict = gr.HTML(html.note(_FIRST), elem_id="verdict", min_height=28)
        self.graph = gr.Plot(show_label=False, visible=False, elem_id="communities")
        self.check = gr.Button(
            "Verify the first 20 by point pairs (SIFT, a few seconds)", size="sm", elem_id="verify"
        )
        self.report = gr.HTML(elem_id="verified")
        with gr.Row():
            self.pairs, self.times = hidden_plot(), hidden_plot()
        self.last = gr.State(None)

    @property
    def blank(self) -> dict[Any, Any]:
        """Values that show nothing."""
        plots = self.graph, self.pairs, self.times
        return {
            self.verdict: html.note(_FIRST),
            self.report: "",
            self.last: None,
            **{plot: shown_plot(None) for plot in plots},
        }

    def wire(self) -> None:
        """Connect the tab's own events."""
        shared = self.shared
        for change in (shared.view.change, shared.results.change):
            change(
                said(self._agree),
                [shared.results, shared.view, self.last],
                [self.last, self.verdict, self.graph, self.report, self.pairs, self.times],
                show_progress_on=[self.verdict],
                **HEAVY,
            )
        self.check.click(
            said(self._verify),
            shared.results,
            [self.report, self.pairs, self.times],
            show_progress_on=[self.report],
            **HEAVY,
        )

    def _agree(self, results: Results | None, view: str, last: Any) -> tuple:
        if results is None or view != "needed" or results is last:
            return (gr.skip(),) * 6
        found = self.shared.service.agreement(results)
        graph = community_graph(found.communities, found.neighbours, found.ranks, names=found.names)
        nothing = shown_plot(None)
        return results, _verdict(found), shown_plot(graph), "", nothing, nothing

    def _verify(self, results: Results | None) -> tuple:
        if results is None:
            raise ValueError("search first: choose a query")
        service = self.shared.service
        found = service.verified(results)
        query = service.queries[results.query].image
        pairs = None
        if found.matches is not None:
            pairs = matched_inliers(query, found.best, found.matches, box=results.box, side=240)
        times = time_breakdown(found.milliseconds)
        ranked = replace(results, hits=found.after[:_SHOWN])
        cards = hit_cards(service, ranked, moves(found.before, ranked.hits), found.inliers)
        return _report(found) + cards, shown_plot(pairs), shown_plot(times)


def _verdict(found: HitAgreement) -> str:
    groups, spent = len(found.communities), found.milliseconds["agreement"]
    formed = "1 community" if groups == 1 else f"{groups} communities"
    verdict = "re-ranking is worth a try" if found.needed else "re-ranking is not needed"
    text = (
        f"By this measure {verdict}: the first {len(found.ranks)} hits form {formed}, "
        f"uncertainty {found.uncertainty:.2f} nats (above {TRUSTED_NATS:g}, look closer). It took "
        f"{spent:.1f} ms. It cannot tell when all agree on the wrong thing, such as a twin."
    )
    return html.note(text, "warning" if found.needed else "good")


def _report(found: Verified) -> str:
    first, now = found.before[0], found.after[0]
    spent = found.milliseconds["verification"]
    times = spent / max(found.milliseconds["search"], 0.01)
    change = (
        f"“{now.label}” came first instead of “{first.label}”"
        if found.changed
        else f"“{first.label}” stayed first"
    )
    return html.note(
        f"Verification took {spent / 1000:.1f} s, {times:.0f} times the search: "
        f"{change}, with {found.inliers[now.name]} point pairs that agree on one geometry."
    )
