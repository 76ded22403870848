"""The page: one query next to several views of its hits. It draws; the service computes."""

import os
from html import escape
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# of its own statistics, which nobody can see here and which it sums up after every event
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))

import gradio as gr

from spatial_retrieval.demo.api import add_endpoints
from spatial_retrieval.demo.components import MAX_FILE, asset
from spatial_retrieval.demo.panel import QueryPanel
from spatial_retrieval.demo.service import Service
from spatial_retrieval.demo.tabs.inside import InsideTab
from spatial_retrieval.demo.tabs.localize import LocalizeTab
from spatial_retrieval.demo.tabs.needed import NeededTab
from spatial_retrieval.demo.tabs.own import OwnTab
from spatial_retrieval.demo.tabs.search import SearchTab

__all__ = ["build_page", "page_options"]

_HOW = (
    "Image retrieval with spatial context in the descriptor. Choose a query and the gallery is "
    "ranked by similarity; drag a box on it to search for that part alone; click a part to see it "
    "outlined in every hit."
)


def build_page(service: Service) -> gr.Blocks:
    """The demo as gradio blocks; see ``server.build_app``."""
    with gr.Blocks(title="Ask by picture", fill_width=True, delete_cache=(600, 3600)) as page:
        gr.HTML(_head(service))
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300, elem_id="panel"):
                panel = QueryPanel(service)
            with gr.Column(scale=5, min_width=320), gr.Tabs() as tabs:
                panel.shared.tabs = tabs
                with gr.Tab("Search", id="search") as first:
                    search = SearchTab(panel.shared)
                with gr.Tab("Localise", id="localize") as second:
                    localize = LocalizeTab(panel.shared)
                with gr.Tab("Look inside", id="inside") as third:
                    inside = InsideTab(panel.shared)
                with gr.Tab("Was re-ranking needed?", id="needed") as fourth:
                    needed = NeededTab(panel.shared)
                with gr.Tab("Your photographs", id="own") as last:
                    own = OwnTab(panel.shared)
        for tab in (first, second, third, fourth, last):
            panel.opens(tab)
        for part in (search, localize, inside, needed):
            part.wire()
        own.wire(
            {
                c: v
                for part in (panel, search, localize, inside, needed)
                for c, v in part.blank.items()
            }
        )
        panel.wire(search, localize, inside)
        add_endpoints(service)
    page.queue(max_size=200, default_concurrency_limit=None, api_open=False)
    return page


def page_options() -> dict[str, Any]:
    """What the page needs from ``gradio.mount_gradio_app``: its looks and its limits."""
    return {
        "theme": _theme(),
        "head": f"<style>{asset('page.css')}</style>",  # as css= gradio would prefix each rule
        "max_file_size": MAX_FILE,
        "footer_links": ["api", "settings"],
        "run_history": False,
        "show_error": False,
        "enable_monitoring": False,
        "ssr_mode": False,
    }


def _head(service: Service) -> str:
    gallery = service.gallery
    about = "" if gallery is None else f"<p>Gallery: {escape(gallery.note)}</p>"
    return f'<div class="sr-head"><h1>Ask by picture</h1><p>{_HOW}</p>{about}</div>'


def _theme() -> gr.themes.Base:
    """Quiet, with the system's own fonts: nothing to fetch, nothing that jumps when it comes."""
    theme = gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return theme.set(
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300"
    )
