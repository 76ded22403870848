import numpy as np
import pytest
from pictures import draw

from spatial_retrieval.plots.retrieval import hit_strip, similarity_heatmap, stage_times


def test_a_strip_shows_query_and_hits_with_ranks_and_marks():
    fig = hit_strip(draw(0), [draw(1), draw(2)], [0.9, 0.5], correct=[True, False], title="t")
    assert len(fig.data) == 3
    assert [a.text for a in fig.layout.annotations] == ["query", "1 · 0.90 ✓", "2 · 0.50 ✗"]
    assert fig.layout.annotations[1].font.color != fig.layout.annotations[2].font.color
    assert fig.data[0].source.startswith("data:image/jpeg;base64,")
    with pytest.raises(ValueError, match="each of 2 hits"):
        hit_strip(draw(0), [draw(1), draw(2)], [0.9])


def test_a_strip_may_have_captions_of_its_own_or_ranks_alone():
    fig = hit_strip(draw(0), [draw(1), draw(2)], captions=["easy", "junk"])
    assert [a.text for a in fig.layout.annotations] == ["query", "easy", "junk"]
    fig = hit_strip(draw(0), [draw(1), draw(2)])
    assert [a.text for a in fig.layout.annotations] == ["query", "1", "2"]
    with pytest.raises(ValueError, match="each of 2 hits"):
        hit_strip(draw(0), [draw(1), draw(2)], captions=["easy"])


def test_stage_times_are_bars_in_order():
    bars = stage_times({"decode": 2.0, "search": 0.5}).data[0]
    assert list(bars.y) == ["decode", "search"] and list(bars.x) == [2.0, 0.5]


def test_the_heatmap_is_sorted_by_label():
    heat = similarity_heatmap(np.eye(3), ["b", "a", "b"]).data[0]
    assert list(heat.x) == ["a · 1", "b · 0", "b · 2"]
    assert np.array_equal(np.asarray(heat.z), np.eye(3))
