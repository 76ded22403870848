import numpy as np
import pytest

from spatial_retrieval.facades.data import twin_facades
from spatial_retrieval.metrics.bootstrap import Interval
from spatial_retrieval.plots.twins import (
    channel_scatter,
    contact_sheet,
    interval_bars,
    map_pair,
    twin_fronts,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return twin_facades("test", 2, 3, size=96, root=tmp_path_factory.mktemp("twins"))


def test_the_contact_sheet_shows_drawing_photographs_and_outlines(data):
    sheet = contact_sheet(data, [0, 1], side=96)
    assert sheet.size == (6 * 96 + 5 * 4, 2 * 96 + 4)
    pixels = np.asarray(sheet)
    photograph = np.asarray(data.image(0))
    np.testing.assert_array_equal(pixels[:96, 100:196], photograph)
    outlined = pixels[:96, 400:496].astype(int)  # view 1 again
    changed = np.abs(outlined - np.asarray(data.image(1)).astype(int)).sum(axis=2) > 60
    mask = data.mask(1)
    edge = mask ^ np.roll(mask, 1, axis=1)
    assert changed[edge].mean() > 0.8 and changed.mean() < 0.5


def test_the_fronts_are_those_of_a_house_and_its_twin(data):
    pair = twin_fronts(data, 0, height=100)
    assert pair.size == (204, 100)
    back = np.asarray(twin_fronts(data, 1, height=100))
    np.testing.assert_array_equal(np.asarray(pair)[:, :100], back[:, 104:])


def test_channels_are_drawn_against_the_query_with_their_cosine():
    query, other = np.array([0.6, 0.8]), np.array([0.8, 0.6])
    fig = channel_scatter(query, {"twin": other})
    assert [t.name for t in fig.data] == ["equal", "twin, cosine 0.960"]
    assert list(fig.data[1].x) == [0.6, 0.8] and list(fig.data[1].y) == [0.8, 0.6]


def test_maps_share_one_scale_and_stand_upright():
    fig = map_pair({"a": np.zeros((2, 3)), "b": np.full((2, 3), 4.0)})
    assert {(t.zmin, t.zmax) for t in fig.data} == {(0.0, 4.0)}
    assert fig.layout.yaxis.autorange == "reversed" and fig.layout.yaxis2.scaleanchor == "x2"
    assert map_pair({"a": np.zeros((2, 3))}, span=(-1, 1)).data[0].zmin == -1


def test_bars_carry_their_intervals_in_percent():
    fig = interval_bars({"GeM": {"all": Interval(0.5, 0.4, 0.7)}})
    bar = fig.data[0]
    assert list(bar.y) == [50.0]
    assert bar.error_y.array[0] == pytest.approx(20)
    assert bar.error_y.arrayminus[0] == pytest.approx(10)
    assert fig.layout.shapes[0].y0 == 50
