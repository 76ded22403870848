"""Your photographs: a visitor's own gallery, searched at once, private, deleted after an hour."""

from typing import Any

import gradio as gr

from spatial_retrieval.demo import html, limits
from spatial_retrieval.demo.components import said
from spatial_retrieval.demo.tabs.shared import HEAVY, MAIN, OWN, Shared, example_cards, intro

__all__ = ["OwnTab"]

_PROGRESS = gr.Progress(track_tqdm=True)


class OwnTab:
    """Builds the tab inside the current blocks.

    Args:
        shared: what all tabs share.
    """

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        intro(
            f"Add up to {limits.MAX_PHOTOGRAPHS} photographs (JPEG, PNG or WebP, at most "
            f"{limits.MAX_UPLOAD_BYTES // 1_000_000} MB each), then search among "
            "them; adding again replaces them. Only this visit can see them. They are deleted an "
            "hour after their last use, or now by the button below."
        )
        self.files = gr.File(
            file_count="multiple",
            file_types=[".jpg", ".jpeg", ".png", ".webp"],
            label="Drop photographs here",
            height=180,
            elem_id="own-files",
        )
        with gr.Row():
            self.add = gr.Button("Make them searchable", variant="primary", elem_id="own-add")
            self.remove = gr.Button("Delete them now", elem_id="own-delete")
        self.report = gr.HTML(elem_id="own-report", min_height=24)

    def wire(self, blank: dict[Any, Any]) -> None:
        """Connect the tab's own events.

        Args:
            blank: component → value, for a page that shows nothing of anybody's photographs.
        """
        shared = self.shared
        changed = [shared.place, shared.own, shared.where, shared.examples, self.report]
        self.add.click(
            said(self._add),
            [self.files, shared.own],
            [*changed, self.files],
            preprocess=False,
            show_progress_on=[self.report],
            **HEAVY,
        )
        self.remove.click(
            said(lambda own: (*self._delete(own), *blank.values())),
            shared.own,
            [*changed, self.files, *blank],
            queue=False,
            api_visibility="private",
        )

    def _add(self, files: Any, own: str | None, progress: gr.Progress = _PROGRESS) -> tuple:
        service = self.shared.service
        uploads = [service.uploads.find(file) for file in files or []]
        if not uploads:
            raise ValueError("add some photographs first")
        gallery, failed = service.add_photographs(uploads)
        service.uploads.discard(files)
        service.forget(own)
        count = len(gallery.names)
        ready = "1 photograph is" if count == 1 else f"{count} photographs are"
        report = html.note(
            f"{ready} searchable now: choose one of them as the query, or drop another one.", "good"
        )
        for name, reason in failed.items():
            report += html.note(f"Set aside {name}: {reason}", "warning")
        where = gr.Radio(visible=True, value=OWN)
        cards = example_cards(service, gallery.key)
        return gallery.key, gallery.key, where, cards, report, None

    def _delete(self, own: str | None) -> tuple:
        self.shared.service.forget(own)
        where = gr.Radio(visible=False, value=MAIN)
        examples = example_cards(self.shared.service, None)
        return None, None, where, examples, html.note("Your photographs are deleted."), None
