"""The page's own HTML: strings from plain values, every text escaped, pictures inside."""

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

__all__ = [
    "Card",
    "canvas",
    "cards",
    "data_url",
    "downloads",
    "escape",
    "heat_overlay",
    "note",
    "outline_overlay",
    "timings",
]

_TRUTH = {"same": "✓ same", "twin": "≠ twin"}


@dataclass(frozen=True, slots=True)
class Card:
    """One picture of a grid.

    Attributes:
        jpeg: the picture.
        alt: what it shows, for those who don't see it.
        title: the line below it.
        badge: the text on its corner, e.g. a rank.
        score: drawn as a bar from 0 to 1; None: no bar.
        hint: a second, smaller line.
        mark: "up", "down" or "new" colours the hint.
        faded: drawn pale.
        overlay: SVG or picture laid over it, as HTML.
        truth: "same" or "twin": said in a corner.
        size: width and height in pixels, so that nothing jumps while it loads.
    """

    jpeg: bytes
    alt: str
    title: str = ""
    badge: str = ""
    score: float | None = None
    hint: str = ""
    mark: str = ""
    truth: str = ""
    overlay: str = ""
    faded: bool = False
    size: tuple[int, int] | None = None


def cards(items: Sequence[Card], *, chosen: int | None = None, kind: str = "hits") -> str:
    """A grid of pictures; each is a button with its position in ``data-index``."""
    inside = "".join(_card(card, i, i == chosen) for i, card in enumerate(items))
    return f'<div class="sr-grid sr-{kind}">{inside}</div>'


def canvas(
    jpeg: bytes,
    size: tuple[int, int],
    *,
    label: str,
    points: Sequence[tuple[float, float, bool]] = (),
    box: Sequence[float] | None = None,
) -> str:
    """A query to click and drag on; the script next to it draws the marks.

    Args:
        jpeg: the picture as shown.
        size: width and height that clicks are measured in.
        label: what the picture shows.
        points, box: marks to begin with.
    """
    width, height = size
    marks = ";".join(f"{x:.0f},{y:.0f},{int(wanted)}" for x, y, wanted in points)
    widest = max(200, round(440 * width / height))
    corners = "" if box is None else ",".join(f"{v:.0f}" for v in box)
    return (
        f'<div class="sr-canvas" tabindex="0" role="application" data-id="{secrets.token_hex(4)}"'
        f' data-w="{width}" data-h="{height}" data-points="{marks}" data-box="{corners}"'
        ' aria-label="Query. Drag a box to search for that part. Click to mark the thing you mean,'
        ' Shift-click for what you do not mean, Backspace to undo."'
        f' style="aspect-ratio:{width}/{height};--widest:{widest}px;--ratio:{width / height:.3f}">'
        f'<img src="{data_url(jpeg)}" alt="Query: {escape(label)}" draggable="false">'
        f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none"></svg></div>'
    )


def outline_overlay(
    size: tuple[int, int], outlines: Sequence[Sequence[Any]], boxes: Sequence[Sequence[float]]
) -> str:
    """Outlines (each (n, 2) points) and boxes over a picture of ``size``, as SVG."""
    width, height = size
    paths = "".join("M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in line) + "Z" for line in outlines)
    frames = "".join(
        f'<rect x="{x0:.0f}" y="{y0:.0f}" width="{x1 - x0:.0f}" height="{y1 - y0:.0f}"/>'
        for x0, y0, x1, y1 in boxes
    )
    drawn = f'<path fill-rule="evenodd" d="{paths}"/>' if paths else ""
    return (
        f'<svg class="sr-found" viewBox="0 0 {width} {height}" aria-hidden="true">'
        f"{drawn}{frames}</svg>"
    )


def heat_overlay(png: bytes) -> str:
    """A small picture stretched over a card's picture."""
    return f'<img class="sr-heat" src="{data_url(png, "image/png")}" alt="">'


def timings(milliseconds: Mapping[str, float], of: str = "") -> str:
    """Stages and their times in one line, behind the name of what took them."""
    named = f"<span>{escape(of)}:</span>" if of else ""
    parts = named + "".join(
        f"<span>{escape(stage)} <b>{_ms(ms)}</b></span>" for stage, ms in milliseconds.items()
    )
    return f'<div class="sr-times" aria-label="time of each stage">{parts}</div>'


def note(text: str, kind: str = "hint") -> str:
    """A sentence."""
    return f'<div class="sr-note sr-{kind}">{escape(text)}</div>'


def data_url(jpeg: bytes, mime: str = "image/jpeg") -> str:
    """Bytes inside the page itself: nothing to serve, nothing to delete."""
    return f"data:{mime};base64,{base64.b64encode(jpeg).decode()}"


def downloads(files: Sequence[tuple[str, bytes, str]]) -> str:
    """Links that save files which the page itself holds: (name, content, media type)."""
    links = " ".join(
        f'<a download="{escape(name)}" href="{data_url(content, mime)}">{escape(name)}</a>'
        for name, content, mime in files
    )
    return f'<div class="sr-downloads">Download: {links}</div>'


def _card(card: Card, index: int, chosen: bool) -> str:
    sides = "" if card.size is None else f' width="{card.size[0]}" height="{card.size[1]}"'
    style = "sr-card" + " sr-chosen" * chosen + " sr-nothing" * card.faded
    parts: list[Any] = [
        f'<button type="button" class="{style}"'
        f' data-index="{index}" aria-pressed="{str(chosen).lower()}" title="{escape(card.title)}">',
        f'<span class="sr-picture"><img src="{data_url(card.jpeg)}" alt="{escape(card.alt)}"'
        f'{sides} decoding="async">',
        card.overlay,
        f'<span class="sr-badge">{escape(card.badge)}</span>' if card.badge else "",
        f'<span class="sr-truth sr-{card.truth}">{_TRUTH[card.truth]}</span>' if card.truth else "",
        "</span>",
    ]
    if card.score is not None:
        width = round(100 * min(max(card.score, 0), 1))
        parts.append(f'<span class="sr-bar"><i style="width:{width}%"></i></span>')
    if card.title:
        parts.append(f'<span class="sr-title">{escape(card.title)}</span>')
    if card.hint:
        parts.append(f'<span class="sr-small sr-{escape(card.mark)}">{escape(card.hint)}</span>')
    return "".join(parts) + "</button>"


def _ms(ms: float) -> str:
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"
