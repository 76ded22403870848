"""What figures need in a notebook: a still picture next to each of them, and sliders.

A saved notebook is read on pages that run no JavaScript, so each figure is kept twice: as plotly's
data, live where plotly can draw, and as a small PNG, drawn by one Chrome or Chromium that stays
open for as long as the notebook runs.
"""

import base64
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
from plotly.io.base_renderers import MimetypeRenderer

from spatial_retrieval.plots.style import COLORS

__all__ = ["as_jpeg", "explore", "mimebundle", "show_figures", "small_png"]

_LIVE = "application/vnd.plotly.v1+json"
_BRIGHTEST = ("#fde725", "#fee838")  # of the colour scales Viridis and Cividis
_SPACES = ("geo", "mapbox", "polar", "scene", "ternary")  # a template's, which no figure here has


def show_figures(*, width: int = 720) -> None:
    """Let every figure of this notebook be shown live, with a still picture next to it.

    Figures are live only in Google Colab, which keeps its own outputs, and where there is no Chrome
    or Chromium to draw the stills.

    Args:
        width: of the stills, pixels.

    Raises:
        ValueError: if the width is below 100.
    """
    import sys

    if width < 100:
        raise ValueError(f"expected a width of at least 100 pixels, got {width}")
    if "google.colab" in sys.modules:
        pio.renderers.default = "colab"
        return
    import kaleido
    from choreographer.browsers import Chromium

    if Chromium.find_browser(skip_local=False) is None:
        pio.renderers.default = "plotly_mimetype"
        return
    kaleido.start_sync_server(mathjax=False, silence_warnings=True)
    pio.renderers["spatial_retrieval"] = _LiveAndStill(width)
    pio.renderers.default = "spatial_retrieval"


def mimebundle(fig: go.Figure, *, still: bool = True) -> dict[str, Any]:
    """A figure as the notebook would show it, or without its still, which takes a moment to draw.

    A figure that displays itself makes a new output each time; this one can update an old one.
    """
    content = fig._repr_mimebundle_() if still else None
    return content or {_LIVE: json.loads(fig.to_json())}


def explore(
    draw: Callable[..., go.Figure], **controls: tuple[float, float, float] | tuple[int, int, int]
) -> None:
    """Show ``draw(**values)`` above a slider for each control, and draw again when one moves.

    Args:
        draw: a figure of the values, such as a function of this package with the rest filled in.
        controls: name → (smallest, value to begin with, largest); whole numbers stay whole.

    Raises:
        ValueError: if a control's values are out of order.
    """
    import ipywidgets
    from IPython.display import display

    sliders = {name: _slider(ipywidgets, name, *span) for name, span in controls.items()}
    first = draw(**{name: slider.value for name, slider in sliders.items()})
    handle = display(mimebundle(first), raw=True, display_id=True)

    def redraw(_: Mapping[str, Any]) -> None:
        figure = draw(**{name: slider.value for name, slider in sliders.items()})
        handle.update(mimebundle(figure, still=False), raw=True)

    for slider in sliders.values():
        slider.observe(redraw, names="value")
    display(ipywidgets.VBox(list(sliders.values())))


def as_jpeg(image: Any, quality: int = 78) -> object:
    """A PIL image as a notebook's output, small enough to be kept (an IPython display object)."""
    from IPython.display import Image as Picture

    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Picture(data=buffer.getvalue(), format="jpeg")


def small_png(png: bytes, *, colors: int = 128) -> bytes:
    """A PNG on white with few colours: about a quarter of the bytes where it holds photographs.

    The colours of lines and text are always among them, however little of them there is.
    """
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGBA")
    paper = Image.new("RGBA", image.size, "white")
    flat = Image.alpha_composite(paper, image).convert("RGB")
    always = _inks()
    own = flat.quantize(colors - len(always) // 3, method=Image.Quantize.MEDIANCUT)
    mixed = [rgb for rgb in np.reshape(own.getpalette(), (-1, 3)).tolist() if min(rgb) < 246]
    palette = Image.new("P", (1, 1))
    palette.putpalette(sum(mixed, always))
    few = flat.quantize(palette=palette, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _inks() -> list[int]:
    """White, and the figures' colours in three strengths, as their smooth edges have them."""
    inks = [255, 255, 255]
    for color in (*COLORS, "#7f7f7f", *_BRIGHTEST):
        full = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        for strength in (1.0, 0.67, 0.33):
            inks += [round(255 + strength * (value - 255)) for value in full]
    return inks


class _LiveAndStill(MimetypeRenderer):
    """Plotly's data and a small still of ``width`` pixels."""

    def __init__(self, width: int) -> None:
        self.width = width

    def to_mimebundle(self, fig_dict: dict[str, Any]) -> dict[str, Any]:
        import kaleido

        live = pio.renderers["plotly_mimetype"].to_mimebundle(_lighter(fig_dict))
        layout = fig_dict.get("layout", {})
        size = {"width": layout.get("width", self.width), "height": layout.get("height", 400)}
        png = kaleido.calc_fig_sync(fig_dict, opts={"format": "png", "scale": 1, **size})
        photographs = any(trace.get("type") == "image" for trace in fig_dict.get("data", ()))
        still = small_png(png, colors=128 if photographs else 256)
        return {**live, "image/png": base64.b64encode(still).decode("ascii")}


def _lighter(fig_dict: dict[str, Any]) -> dict[str, Any]:
    """The same figure with 32-bit numbers, and of its template only what its traces use."""
    kinds = {trace.get("type", "scatter") for trace in fig_dict.get("data", ())}
    light = _with_single_precision(fig_dict)
    template = light.get("layout", {}).get("template", {})
    for part, used in (("data", kinds.__contains__), ("layout", lambda key: key not in _SPACES)):
        if part in template:
            template[part] = {key: look for key, look in template[part].items() if used(key)}
    return light


def _with_single_precision(value: Any) -> Any:
    """A copy; plotly keeps an array as its bytes in base64."""
    if isinstance(value, dict) and value.get("dtype") == "f8" and "bdata" in value:
        numbers = np.frombuffer(base64.b64decode(value["bdata"]), dtype="<f8").astype("<f4")
        return {**value, "dtype": "f4", "bdata": base64.b64encode(numbers).decode("ascii")}
    if isinstance(value, dict):
        return {key: _with_single_precision(part) for key, part in value.items()}
    return [*map(_with_single_precision, value)] if isinstance(value, list | tuple) else value


def _slider(widgets: Any, name: str, low: float, value: float, high: float) -> Any:
    if not low <= value <= high:
        raise ValueError(f"expected {name} = (smallest, begin, largest), got {low, value, high}")
    whole = all(isinstance(v, int) for v in (low, value, high))
    kind = widgets.IntSlider if whole else widgets.FloatSlider
    steps = {} if whole else {"step": (high - low) / 50}
    return kind(value=value, min=low, max=high, description=name, continuous_update=False, **steps)
