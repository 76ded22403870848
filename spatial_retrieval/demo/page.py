"""The page: one query beside several views of its answers. It draws; the service computes."""

import os
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr

from spatial_retrieval.demo.components import MAX_FILE, asset
from spatial_retrieval.demo.panel import QueryPanel
from spatial_retrieval.demo.service import Service
from spatial_retrieval.demo.tabs.own import OwnTab
from spatial_retrieval.demo.tabs.search import SearchTab

__all__ = ["build_page", "launch_options"]

_HEAD = (
    '<div class="sr-head"><h1>Ask by picture</h1><p>Choose a photograph: the gallery is ranked by '
    "what it shows. Drag a box on the query to ask for that part alone.</p></div>"
)


def build_page(service: Service) -> gr.Blocks:
    """The demo as gradio blocks; ``launch(**launch_options())`` them."""
    with gr.Blocks(title="Ask by picture", delete_cache=(600, 3600)) as page:
        gr.HTML(_HEAD)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                panel = QueryPanel(service)
            with gr.Column(scale=5, min_width=320), gr.Tabs():
                with gr.Tab("Search", id="search"):
                    search = SearchTab(panel.shared)
                with gr.Tab("Your photographs", id="own"):
                    own = OwnTab(panel.shared)
        search.wire()
        own.wire()
        panel.wire(search)
    page.queue(max_size=20, default_concurrency_limit=1)
    return page


def launch_options() -> dict[str, Any]:
    """What the page needs from ``launch``: its looks and its limits."""
    return {
        "theme": gr.themes.Default(primary_hue="blue", neutral_hue="slate"),
        "css": asset("page.css"),
        "max_file_size": MAX_FILE,
        "footer_links": ["api", "settings"],
        "run_history": False,
    }
