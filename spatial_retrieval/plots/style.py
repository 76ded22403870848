"""The look that all figures share: transparent, quiet, readable on light and dark pages."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

__all__ = ["COLORS", "base_layout", "hide_axes", "image_trace"]

# Okabe and Ito's colour-blind safe palette, strongest contrasts first.
COLORS: Sequence[str] = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#999999",
)


def base_layout(fig: go.Figure, *, height: int, title: str | None = None) -> go.Figure:
    """Give a figure the shared look; ``height`` in pixels. Returns the same figure."""
    grey = "rgba(128, 128, 128, 0.25)"
    fig.update_layout(
        height=height,
        title={"text": title, "x": 0.01, "font": {"size": 15}} if title else None,
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font={"color": "#7f7f7f", "size": 13},
        colorway=list(COLORS),
        margin={"l": 48, "r": 16, "t": 48 if title else 16, "b": 40},
    )
    fig.update_xaxes(gridcolor=grey, zerolinecolor=grey)
    fig.update_yaxes(gridcolor=grey, zerolinecolor=grey)
    return fig


def hide_axes(fig: go.Figure, **where: int) -> go.Figure:
    """Hide ticks and grid (of one subplot with ``row=, col=``) and keep pixels square."""
    fig.update_xaxes(visible=False, constrain="domain", **where)
    fig.update_yaxes(visible=False, scaleanchor="x", autorange="reversed", **where)
    return fig


def image_trace(rgb: np.ndarray, **options: object) -> go.Image:
    """A photograph as a trace; ``rgb`` is (h, w, 3) uint8, sent as JPEG to stay small."""
    import base64
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.asarray(rgb, dtype=np.uint8)).save(buffer, "JPEG", quality=78, optimize=True)
    source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return go.Image(source=source, **options)
