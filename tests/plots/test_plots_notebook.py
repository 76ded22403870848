import base64
import io
import json
import sys
import types

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
import pytest
from pictures import draw
from PIL import Image

from spatial_retrieval.plots.notebook import (
    as_jpeg,
    explore,
    mimebundle,
    show_figures,
    small_png,
)

LIVE = "application/vnd.plotly.v1+json"


@pytest.fixture
def renderer():
    before = pio.renderers.default
    yield
    pio.renderers.default = before


def figure(value=1.0):
    return go.Figure(go.Scatter(x=[0, 1], y=[0, value]), layout={"height": 150})


def test_a_picture_is_kept_as_jpeg():
    assert as_jpeg(draw(0)).data[:2] == b"\xff\xd8"


def test_a_small_png_shows_the_same_on_white():
    buffer = io.BytesIO()
    photograph = draw(0).resize((200, 150)).convert("RGBA")
    photograph.paste((0, 0, 0, 0), (0, 0, 200, 40))
    photograph.putpixel((5, 5), (0, 158, 115, 255))  # a line's colour, hardly there
    photograph.save(buffer, "PNG")
    small = small_png(buffer.getvalue())
    assert len(small) < len(buffer.getvalue())
    shown = Image.open(io.BytesIO(small))
    assert shown.mode == "P" and shown.size == (200, 150)
    assert shown.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert shown.convert("RGB").getpixel((5, 5)) == (0, 158, 115)


def test_a_figure_is_live_and_still(renderer):
    show_figures(width=300)
    content = figure()._repr_mimebundle_()
    still = Image.open(io.BytesIO(base64.b64decode(content["image/png"])))
    assert LIVE in content and still.size == (300, 150)
    assert set(mimebundle(figure(), still=False)) == {LIVE}


def test_what_is_kept_is_light_and_shows_the_same_numbers(renderer):
    show_figures()
    values = np.random.default_rng(0).random((40, 40))
    content = go.Figure(go.Heatmap(z=values, x=np.arange(40)))._repr_mimebundle_()
    (trace,) = content[LIVE]["data"]
    assert trace["z"]["dtype"] == "f4" and trace["z"]["shape"] == "40, 40"
    kept = np.frombuffer(base64.b64decode(trace["z"]["bdata"]), np.float32)
    assert np.allclose(kept, values.ravel(), atol=1e-7)
    assert set(content[LIVE]["layout"]["template"]["data"]) == {"heatmap"}
    assert len(json.dumps(content[LIVE])) < 4 * 1600 * 4 / 3 + 6000


def test_figures_are_live_only_without_a_browser_and_in_colab(renderer, monkeypatch):
    from choreographer.browsers import Chromium

    monkeypatch.setattr(Chromium, "find_browser", lambda skip_local: None)
    show_figures()
    assert pio.renderers.default == "plotly_mimetype"
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    show_figures()
    assert pio.renderers.default == "colab"
    with pytest.raises(ValueError, match="at least 100"):
        show_figures(width=1)


def test_a_slider_draws_again_in_place(renderer, monkeypatch):
    import IPython.display
    import ipywidgets

    shown, updated, drawn = [], [], []

    class Handle:
        def update(self, content, raw):
            updated.append(content)

    monkeypatch.setattr(
        IPython.display, "display", lambda content, **_: shown.append(content) or Handle()
    )
    pio.renderers.default = "plotly_mimetype"
    explore(lambda a, k: drawn.append((a, k)) or figure(a), a=(0.0, 0.5, 2.0), k=(1, 3, 9))
    content, box = shown
    assert drawn == [(0.5, 3)] and LIVE in content
    a, k = box.children
    assert isinstance(a, ipywidgets.FloatSlider) and isinstance(k, ipywidgets.IntSlider)
    a.value = 1.5
    k.value = 4
    assert drawn[1:] == [(1.5, 3), (1.5, 4)] and len(updated) == 2
    with pytest.raises(ValueError, match="smallest, begin, largest"):
        explore(figure, value=(2, 1, 3))
