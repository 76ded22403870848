import numpy as np
import pytest

from spatial_retrieval.metrics.average_precision import average_precision
from spatial_retrieval.plots.evaluation import (
    box_overlap,
    paired_differences,
    precision_recall,
    ranked_kinds,
    score_bars,
    threshold_curves,
)


@pytest.mark.parametrize(("ranks", "total"), [([0, 2, 5], 3), ([1], 2), ([], 2), ([0, 1, 2], 3)])
def test_the_area_that_is_drawn_is_the_average_precision(ranks, total):
    (curve,) = precision_recall(ranks, total).data
    x, y = np.array(curve.x), np.array(curve.y)
    area = ((y[1:] + y[:-1]) / 2 * np.diff(x)).sum()
    positive = np.isin(np.arange(6), ranks)
    assert area == pytest.approx(average_precision(positive[None], [total])[0])


def test_each_hit_is_one_cell_of_its_kind():
    fig = ranked_kinds({"all": ["easy", "junk", "wrong", "hard"], "left": ["easy", "wrong"]})
    cells = {trace.name: list(zip(trace.x, trace.y, strict=True)) for trace in fig.data}
    assert cells["wrong"] == [(3, "all"), (2, "left")]
    assert cells["junk"] == [(2, "all")]
    with pytest.raises(ValueError, match="got other"):
        ranked_kinds({"all": ["other"]})


def test_bars_are_percent_with_the_distance_to_both_ends():
    fig = score_bars({"a": {"M": 0.5}}, intervals={"a": {"M": (0.4, 0.7)}})
    (bar,) = fig.data
    assert bar.y == (50,)
    assert bar.error_y.array[0] == pytest.approx(20)
    assert bar.error_y.arrayminus[0] == pytest.approx(10)
    assert score_bars({"a": {"M": 0.5}}).data[0].error_y.array is None


def test_differences_are_sorted_and_leave_queries_without_a_hit_out():
    fig = paired_differences([0.5, np.nan, 0.2], [0.1, 0.3, 0.3], interval=(-0.1, 0.2))
    assert fig.data[0].y == pytest.approx([-10, 40])
    assert fig.data[0].text == ("query 2", "query 0")
    assert fig.data[1].y == pytest.approx((-10, -10, 20, 20))
    assert len(paired_differences([1], [0]).data) == 1


def test_thresholds_and_boxes():
    fig = threshold_curves({"official": [1, 0.5], "recall": [0.3, 0.1]}, [0.5, 0.55])
    assert [trace.name for trace in fig.data] == ["official", "recall"]
    assert fig.data[1].y == pytest.approx((30, 10))
    fig = box_overlap([0, 0, 4, 4], [[0, 0, 4, 2], [2, 2, 6, 6]], ["half", "corner"])
    assert len(fig.data) == 4
    with pytest.raises(ValueError, match="a caption for each of 1"):
        box_overlap([0, 0, 4, 4], [[0, 0, 4, 2]], [])
