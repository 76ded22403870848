import numpy as np
import pytest
import torch

from spatial_retrieval.layers.smoothing import smooth
from spatial_retrieval.plots.signals import one_cell_signal, signals


def test_signals_draw_points_and_lines():
    figure = signals({"x": torch.zeros(1, 1, 1, 5), "y": np.ones(5)}, points=["x"])
    assert [(t.mode, len(t.y)) for t in figure.data] == [("markers", 5), ("lines", 5)]


def test_one_cell_has_a_bandwidth_and_confidence_of_its_own():
    x = torch.linspace(0, 1, 7).view(1, 1, 1, 7)
    one = torch.ones_like(x)
    plain = smooth(x, x, one, one, kernel_size=3).flatten()
    alone = one_cell_signal(x, x, cell=3, a=100.0, c=1.0, kernel_size=3).data
    assert np.delete(alone[1].y, 3) == pytest.approx(np.delete(plain.numpy(), 3))
    assert alone[1].y[3] == pytest.approx(0.5, abs=1e-3) and list(alone[2].x) == [3]
    heard = one_cell_signal(x, x.square(), cell=2, a=0.0, c=0.0, kernel_size=3).data
    assert heard[1].y[2] == pytest.approx((1 / 6 + 3 / 6) / 2, abs=1e-5)
