"""The page's components: an upload, pictures to choose from, a query to draw on; and errors."""

import functools
import re
from collections.abc import Callable
from html import escape
from importlib.resources import files
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from spatial_retrieval.demo import limits
from spatial_retrieval.demo.visitor import visiting

__all__ = [
    "MAX_FILE",
    "asset",
    "card_grid",
    "event_value",
    "photograph_upload",
    "query_canvas",
    "said",
    "said_gently",
]

_PATH = re.compile(r"(?<![\w/<])(?:[A-Za-z]:\\|/)[\w.~+-]+(?:[/\\][\w.~+ -]*)+")
MAX_FILE = f"{limits.MAX_UPLOAD_BYTES // 1_000_000}mb"


def asset(name: str) -> str:
    """Text of one of the page's own files."""
    return (files("spatial_retrieval") / "assets" / "demo" / name).read_text(encoding="utf-8")


def photograph_upload(label: str, elem_id: str) -> gr.Image:
    """Takes one photograph. Listen with ``preprocess=False`` and read it with
    :meth:`~spatial_retrieval.demo.uploads.Uploads.find`.

    Gradio's own decoding ignores EXIF orientation, clips 16 bits and fails on damaged files before
    the handler runs; the service decodes the file itself.
    """
    return gr.Image(
        type="filepath",
        label=label,
        sources=["upload", "clipboard"],
        image_mode=None,
        buttons=[],
        height=120,
        elem_id=elem_id,
    )


def query_canvas(value: str, elem_id: str) -> gr.HTML:
    """The query; events ``seed`` and ``box`` bring all marks, see ``canvas.js``."""
    return gr.HTML(value, elem_id=elem_id, js_on_load=asset("canvas.js"))


def card_grid(value: str, elem_id: str) -> gr.HTML:
    """A grid of pictures; event ``choose`` brings the position of the chosen one."""
    return gr.HTML(value, elem_id=elem_id, js_on_load=asset("cards.js"))


def event_value(event: gr.EventData, name: str) -> Any:
    """A value that the browser sent with an event; whatever it is, the service checks it."""
    data = event._data
    return data.get(name) if isinstance(data, dict) else None


def said(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a ValueError into a sentence on the page; whoever asks is the current visitor."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with visiting(_address()):
                return function(*args, **kwargs)
        except ValueError as error:
            raise gr.Error(sentence(error), title="", print_exception=False) from error

    return wrapped


def said_gently(outputs: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Turn a ValueError into a warning and leave the first ``outputs`` as they are."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            try:
                with visiting(_address()):
                    return function(*args, **kwargs)
            except ValueError as error:
                gr.Warning(sentence(error), title="")
                return (gr.skip(),) * outputs + (None,)

        return wrapped

    return decorate


def sentence(error: Exception) -> str:
    """An error's message as a sentence, escaped: the page shows messages as HTML."""
    text = _PATH.sub("a file", str(error).strip()) or type(error).__name__
    text = text[0].upper() + text[1:]
    return escape(text if text.endswith((".", "!", "?")) else text + ".")


def _address() -> str:
    """Of the browser or program whose event this is."""
    request = LocalContext.request.get(None)
    client = getattr(request, "client", None)
    return client.host if client else ""
