"""Figures of re-ranking: what they show is what they were given."""

import numpy as np
import pytest
from reranking_toys import TURN, textured, warped

from spatial_retrieval.plots import reranking
from spatial_retrieval.plots.reranking import (
    community_graph,
    gain_by_uncertainty,
    matched_inliers,
    quality_and_price,
    time_breakdown,
)
from spatial_retrieval.rerank import match, sift


def test_time_breakdown_draws_a_bar_for_each_stage():
    fig = time_breakdown({"initial retrieval": 0.5, "verify": 900.0}, published={"verify": 41120.0})
    assert list(fig.data[0].x) == [0.5, 900.0]
    assert list(fig.data[1].y) == ["verify"]
    assert fig.layout.xaxis.type == "log"
    assert len(time_breakdown({"a": 1.0}).data) == 1


def test_matched_inliers_ends_on_the_points_of_both_photographs(monkeypatch):
    monkeypatch.setattr(reranking, "_LINES", 10)
    a, b = textured(0), warped(textured(0), TURN)
    method = sift()
    found = match(method.features(a), method.features(b), method)
    fig = matched_inliers(a, b, found)
    assert len(fig.data) == 12 and fig.data[1].x0 == 240 + 12  # two pictures, then the lines
    first, last = fig.data[2], fig.data[-1]
    assert (first.x[0], first.y[0]) == pytest.approx(tuple(found.a[0]))
    assert (first.x[1], first.y[1]) == pytest.approx((found.b[0, 0] + 240 + 12, found.b[0, 1]))
    assert last.x[0] == pytest.approx(found.a[-1, 0])
    assert fig.layout.title.text == f"{len(found)} inliers"
    small = matched_inliers(a, b, found, side=120)
    assert (small.data[2].x[0], small.data[2].y[0]) == pytest.approx(tuple(found.a[0] / 2))
    assert small.data[2].x[1] == pytest.approx(found.b[0, 0] / 2 + 120 + 12)


def test_matched_inliers_without_a_match_and_with_a_box():
    a, b = textured(0), textured(1)
    method = sift()
    box = (0, 0, 100, 90)
    found = match(method.features(a, box), method.features(b), method)
    fig = matched_inliers(a, b, found, box=box)
    assert len(fig.data) == 2
    assert fig.layout.xaxis.range[1] == 100 + 12 + 240


def test_community_graph_draws_each_hit_once_and_only_links_among_hits():
    fig = community_graph(
        [[4, 2, 8], [7]], {4: [2, 99], 2: [4, 8], 7: []}, {4: 1, 7: 2, 2: 3, 8: 4}
    )
    edges, first, second = fig.data
    assert len(edges.x) == 2 * 3
    assert list(first.text) == ["1", "3", "4"]
    assert list(second.text) == ["2"]
    points = np.array([*zip(first.x, first.y, strict=True), (second.x[0], second.y[0])])
    apart = np.linalg.norm(points[:, None] - points, axis=-1)[np.triu_indices(4, 1)]
    assert apart.min() > 0.5
    named = community_graph([[0]], {}, {0: 1}, names=["tower.jpg"])
    assert named.data[1].hovertext == ("tower.jpg",)


def test_gain_and_price_show_points_in_percent():
    fig = gain_by_uncertainty([0.2, 1.4], [0.5, 0.5], [0.5, 0.75])
    np.testing.assert_allclose(fig.data[0].y, [0, 25])
    fig = quality_and_price(["none", "verify"], [0.4, 0.6], [0.3, 0.5], [0.5, 0.8], [0.0, 900.0])
    assert fig.data[0].x[0] > 0
    assert fig.data[1].error_y.array[0] == pytest.approx(20)
    assert fig.data[1].error_y.arrayminus[0] == pytest.approx(10)
