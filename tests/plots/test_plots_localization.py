import numpy as np
import pytest
import torch
from pictures import draw

from spatial_retrieval.localize import Localization, Region, lost, prepare_query
from spatial_retrieval.plots.localization import (
    degree_map,
    found_in,
    heat_map,
    lost_steps,
    overlay,
    query_cells,
    score_histogram,
)


@pytest.fixture
def found():
    mask = torch.zeros(64, 96).bool()
    mask[20:40, 30:70] = True
    return Localization((Region(mask, (30, 20, 70, 40), 0.6),), mask.float() - 0.5, 0.6)


def test_an_overlay_marks_the_region_and_leaves_the_size(found):
    image = overlay(draw(0), found)
    assert image.size == (96, 64)
    plain = overlay(draw(0), Localization((), found.heat, 0.1))
    assert np.any(np.asarray(image)[25:35, 35:65] != np.asarray(plain)[25:35, 35:65])
    assert np.array_equal(np.asarray(image)[:10], np.asarray(plain)[:10])
    with pytest.raises(ValueError, match=r"masks of \(60, 90\)"):
        overlay(draw(0, 90, 60), found)


def test_a_row_shows_query_scores_and_what_is_absent(found):
    nothing = Localization((), found.heat, 0.1)
    fig = found_in([draw(0), draw(1)], [found, nothing], query=draw(2), box=(3, 4, 50, 60))
    assert [a.text for a in fig.layout.annotations] == ["query", "0.60", "0.10, none"]
    assert len(fig.data) == 3
    unscored = Localization(found.regions, found.heat, 0.0)
    plain = found_in([draw(0), draw(1)], [unscored, nothing], captions=["a", "b"])
    assert [note.text for note in plain.layout.annotations] == ["a", "b · 0.10, none"]
    captioned = found_in([draw(0)], [found], captions=["twin"], title="t")
    assert captioned.layout.annotations[0].text == "twin · 0.60"
    with pytest.raises(ValueError, match="each of 2 images"):
        found_in([draw(0), draw(1)], [found])


def test_maps_over_photographs(found):
    x = torch.randn(8, 4, 6, generator=torch.Generator().manual_seed(0))
    query = query_cells(draw(0), prepare_query(x, box=(1, 1, 4, 3)))
    cells = query.data[1]
    assert np.array_equal(np.asarray(cells.z) == 1, prepare_query(x, box=(1, 1, 4, 3)).positive)
    assert len(heat_map(draw(0), found, title="t").data) == 3
    result = lost(x, k_patches=5)
    degrees = degree_map(draw(0), [result, lost(x, center=False)], ["centred", "not"])
    assert np.array_equal(np.asarray(degrees.data[1].z), result.degree)
    assert degrees.data[2].x[0] == result.seed % 6
    with pytest.raises(ValueError, match="expected 1 titles"):
        degree_map(draw(0), [result], [])
    steps = lost_steps(draw(0), x, result)
    assert sum(trace.type == "scatter" for trace in steps.data) == 3
    constant = torch.ones(3, 4, 6)
    assert not any(t.type == "scatter" for t in lost_steps(draw(0), constant, lost(constant)).data)


def test_the_histogram_counts_shares_and_shows_the_threshold():
    fig = score_histogram({"there": [0.5, 0.9], "absent": [0.1]}, 0.3)
    assert sum(fig.data[0].y) == pytest.approx(1) and sum(fig.data[1].y) == pytest.approx(1)
    assert fig.layout.shapes[0].x0 == 0.3
