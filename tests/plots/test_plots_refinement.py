import numpy as np
import pytest
import torch
from refinement_variants import SimilarityEdgesOnly, SpatialEdgesOnly

from spatial_retrieval.layers.controls import MLPControl
from spatial_retrieval.layers.refinement import SpatialContextRefinement
from spatial_retrieval.plots.refinement import (
    block_changes_figure,
    graph_figure,
    messages_figure,
    relation_names,
    relations_figure,
)

RGB = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def x():
    return torch.rand(1, 5, 6, 8, generator=torch.Generator().manual_seed(0))


def layer(kind=SpatialContextRefinement, **arguments):
    torch.manual_seed(0)
    return kind(5, **{"nodes": 20, "width": 8, **arguments})


def test_nodes_lie_on_the_centres_of_their_cells(x):
    fig = graph_figure(RGB, layer(nodes=None), x)
    nodes = fig.data[-1]
    assert len(nodes.x) == 48
    assert (nodes.x[0], nodes.y[0]) == (5.0, 5.0)
    assert (nodes.x[-1], nodes.y[-1]) == (75.0, 55.0)


@pytest.mark.parametrize("edges", ["spatial", "similarity"])
def test_drawn_edges_are_the_layers_edges(x, edges):
    refine = layer()
    lines, nodes = graph_figure(RGB, refine, x, edges=edges, reach=99).data[1:]
    place = {(a, b): k for k, (a, b) in enumerate(zip(nodes.x, nodes.y, strict=True))}
    ends = np.stack([lines.x, lines.y], axis=-1).reshape(-1, 3, 2)[:, :2]
    drawn = {frozenset(place[tuple(p)] for p in pair) for pair in ends}
    weights = refine.trace(x)[2][0][edges == "similarity"][0]
    expected = {frozenset(p) for p in (weights > 0).any(dim=0).nonzero().tolist()}
    assert drawn == expected


def test_reach_leaves_out_long_edges(x):
    short, long = (graph_figure(RGB, layer(), x, reach=r).data[1] for r in (1.5, 99.0))
    assert 0 < len(short.x) < len(long.x)


@pytest.mark.parametrize("kind", [SpatialContextRefinement, SpatialEdgesOnly, SimilarityEdgesOnly])
def test_messages_come_from_neighbours_of_the_clicked_node(x, kind):
    refine = layer(kind)
    fig = messages_figure(RGB, refine, x, node=7, block=1)
    weights = torch.cat([w[0, :, 7] > 0 for w in refine.trace(x)[2][1]])
    assert sum(len(trace.x) for trace in fig.data[1:-1]) == int(weights.sum())
    assert set(trace.name for trace in fig.data[1:-1]) <= set(relation_names(refine))
    assert max(max(trace.marker.size) for trace in fig.data[1:-1]) == pytest.approx(21)


def test_a_node_without_edges_hears_nothing(x):
    assert len(messages_figure(RGB, layer(MLPControl), x, node=0).data) == 2


@pytest.mark.parametrize("sectors", [1, 4, 8])
def test_every_relation_has_a_name_of_its_own(sectors):
    refine = layer(sectors=sectors)
    names = relation_names(refine)
    assert len(set(names)) == len(names) == sum(refine.relations)


def test_relations_are_named_by_the_side_they_lie_on():
    names = relations_figure(layer(), reach=5).data[0].text
    assert names[5][8] == "right, to 4 cells"
    assert names[8][5] == "below, to 4 cells"
    assert names[5][5] == "no edge"
    assert names[5][4] == "within 1.5 cells"


def test_changes_are_drawn_for_each_block(x):
    refine = layer(blocks=3)
    fig = block_changes_figure(RGB, refine, x)
    assert len(fig.data) == 4
    index, states, _ = refine.trace(x)
    shown = np.asarray(fig.data[1].z, dtype=float).ravel()
    expected = ((states[1] - states[0]).norm(dim=-1) / states[0].norm(dim=-1))[0].detach()
    np.testing.assert_allclose(shown[index[0]], expected, rtol=1e-5)
    assert np.isnan(shown).sum() == 48 - 20


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: graph_figure(RGB, layer(), x, edges="both"), "spatial or similarity"),
        (lambda x: graph_figure(RGB, layer(), x.expand(2, -1, -1, -1)), "one photograph"),
        (lambda x: messages_figure(RGB, layer(), x, node=20), "node below 20"),
        (lambda x: messages_figure(RGB, layer(), x, node=0, block=2), "block below 2"),
        (lambda x: block_changes_figure(RGB, layer(blocks=0), x), "at least one block"),
    ],
)
def test_says_what_is_wrong(x, call, message):
    with pytest.raises(ValueError, match=message):
        call(x)
