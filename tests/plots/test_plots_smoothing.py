import re

import numpy as np
import pytest
import torch
from PIL import Image

from spatial_retrieval.layers.smoothing import LearnableSmoothing
from spatial_retrieval.plots import smoothing as plots


def _photo(width: int = 60, height: int = 40) -> Image.Image:
    return Image.new("RGB", (width, height), (20, 120, 220))


def _weights(height: int = 4, width: int = 6, size: int = 3) -> np.ndarray:
    return np.zeros((size**2, height, width))


def _redness(image: Image.Image, row: int, column: int) -> float:
    """Of the middle of a cell of the 4×6 grid on the 60×40 photograph."""
    pixel = np.asarray(image, float)[10 * row + 5, 10 * column + 5]
    return float(pixel[0] - pixel[2])


def test_the_overlay_colours_the_neighbours_by_their_weight():
    weights = _weights()
    weights[:, 1, 2] = [0, 0.5, 0, 0, 0.1, 1.0, 0, 0, 0]  # above ½, own 0.1, right 1
    photo = _photo()
    overlay = plots.kernel_overlay(photo, weights, (1, 2))
    assert overlay.size == photo.size and overlay.mode == "RGB"
    shown = {(r, c): _redness(overlay, r, c) for r in range(4) for c in range(6)}
    order = sorted(shown, key=shown.get, reverse=True)
    assert order[:3] == [(1, 3), (0, 2), (1, 2)]
    assert len({round(shown[cell]) for cell in order[3:]}) == 1  # the rest has no colour
    assert np.asarray(overlay)[10, 20].tolist() == [255, 255, 255]  # the frame of the cell
    assert photo.getpixel((0, 0)) == (20, 120, 220)  # the photograph itself is not drawn on


def test_the_overlay_at_a_corner_with_a_dilation():
    weights = _weights()
    weights[:, 0, 0] = 1.0
    overlay = plots.kernel_overlay(_photo(), weights, (0, 0), dilation=2)
    base = _redness(overlay, 3, 5)
    assert all(_redness(overlay, r, c) > base for r in (0, 2) for c in (0, 2))
    assert _redness(overlay, 1, 1) == _redness(overlay, 0, 1) == base


def test_the_overlay_of_a_cell_that_rejects_all_is_uncoloured():
    overlay = plots.kernel_overlay(_photo(), _weights(), (1, 1))
    assert _redness(overlay, 1, 1) == _redness(overlay, 3, 3)


@pytest.mark.parametrize(("margin", "size"), [(None, (60, 40)), (0, (30, 30)), (1, (50, 40))])
def test_the_kernel_figure_shows_crop_and_numbers(margin, size, monkeypatch):
    seen = []
    real = plots.image_trace
    monkeypatch.setattr(plots, "image_trace", lambda rgb: seen.append(rgb.shape) or real(rgb))
    weights = torch.rand(9, 4, 6)
    figure = plots.kernel_figure(
        _photo(), {"one": weights, "two": 0.5 * weights}, (1, 2), margin=margin
    )
    assert [trace.type for trace in figure.data] == ["image", "heatmap"] * 2
    assert seen == [(size[1], size[0], 3)] * 2
    values = np.asarray(figure.data[1].z)
    np.testing.assert_allclose(values, weights[:, 1, 2].view(3, 3))
    assert figure.data[1].text[0][0] == f"{values[0, 0]:.2f}".removeprefix("0")
    assert figure.layout.paper_bgcolor == "rgba(0, 0, 0, 0)"


def test_heatmaps_share_one_scale_only_if_told():
    maps = {"low": np.zeros((3, 4)), "high": torch.full((3, 4), 5.0)}
    alone, shared = plots.heatmaps(maps), plots.heatmaps(maps, limits=(0, 5), title="both")
    assert [t.showscale for t in alone.data] == [True, True]
    assert [t.showscale for t in shared.data] == [False, True]
    assert [(t.zmin, t.zmax) for t in shared.data] == [(0, 5)] * 2
    assert alone.data[0].zmin is None
    assert shared.layout.title.text == "both"


def test_kernel_maps_take_what_the_layer_gives():
    kernel = LearnableSmoothing(3).kernel(torch.rand(1, 3, 4, 5))
    figure = plots.kernel_maps(kernel.a, kernel.c)
    for trace, values in zip(figure.data, (kernel.a, kernel.c), strict=True):
        np.testing.assert_allclose(trace.z, values[0, 0].detach().numpy())


def test_norm_maps_show_lengths_and_the_share_of_the_strongest():
    before, after = torch.ones(4, 2, 5), torch.ones(4, 2, 5)
    before[:, 0, 0] = 3.0  # 9 times the energy of a cell: half of all
    figure = plots.norm_maps(before, after)
    maps = [t for t in figure.data if t.type == "heatmap"]
    lines = {t.name: t for t in figure.data if t.type == "scatter"}
    assert np.asarray(maps[0].z)[0, 0] == pytest.approx(6.0)
    assert maps[0].zmax == maps[1].zmax == pytest.approx(6.0)
    assert lines["‖x‖ before"].y[0] == pytest.approx(0.5)
    np.testing.assert_allclose(lines["‖y‖ after"].y, lines["‖y‖ after"].x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.kernel_values(np.zeros((8, 2, 2)), (0, 0)), "expected weights (K², H, W)"),
        (lambda: plots.kernel_values(np.zeros((4, 2, 2)), (0, 0)), "of an odd K, got (4, 2, 2)"),
        (lambda: plots.kernel_values(np.zeros((9, 2)), (0, 0)), "got (9, 2)"),
        (lambda: plots.kernel_values(_weights(), (0, 6)), "a cell on the 4×6 map, got (0, 6)"),
        (lambda: plots.kernel_values(_weights(), (-1, 0)), "a cell on the 4×6 map, got (-1, 0)"),
        (lambda: plots.kernel_maps(np.zeros((2, 3, 4)), np.zeros((3, 4))), "expected a of one"),
        (lambda: plots.norm_maps(np.zeros((2, 3)), np.zeros((2, 3))), "expected two maps of one"),
    ],
)
def test_refuses_bad_input(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
