import math

import pytest
import torch
from refinement_variants import (
    AttentionEdges,
    BiasEdges,
    EdgesBuiltOnce,
    LearnedNodes,
    RandomEdges,
    SimilarityEdgesOnly,
    SpatialEdgesOnly,
    messages_of_heads,
    softmax_weights,
)

from spatial_retrieval.layers.controls import MLPControl
from spatial_retrieval.layers.graph import (
    displacement_bins,
    edge_weights,
    pass_messages,
    relation_count,
    select_nodes,
    similarity_edges,
    spatial_edges,
)
from spatial_retrieval.layers.refinement import SpatialContextRefinement

RINGS = (1.5, 4.0, 9.0)


class TwoHeads(AttentionEdges):
    heads = 2


class TwoBiases(BiasEdges):
    heads = 2


class AttentionAndBias(BiasEdges):
    attention, heads = True, 1


VARIANTS = [
    {},
    {"kind": SpatialEdgesOnly},
    {"kind": SimilarityEdgesOnly},
    {"kind": RandomEdges},
    {"kind": MLPControl},
    {"rings": (9.0,), "sectors": 1},
    {"kind": TwoBiases},
    {"kind": TwoHeads},
    {"kind": AttentionAndBias},
    {"sectors": 8},
    {"kind": LearnedNodes},
    {"kind": EdgesBuiltOnce},
]


def refinement(channels=6, *, kind=SpatialContextRefinement, start=0.5, **arguments):
    """A layer whose read-out, and biases where it has any, are far from 0; three neighbours."""
    torch.manual_seed(0)
    layer = kind(channels, **{"nodes": None, "width": 8, **arguments})
    layer.neighbours = 3
    torch.nn.init.normal_(layer.read_out.weight, std=start)
    for block in layer.blocks:
        if getattr(block, "bias", None) is not None:
            torch.nn.init.normal_(block.bias)
    return layer


def grid(height, width):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns], dim=-1).reshape(1, -1, 2).float()


def direction(down, right, sectors):
    """The sector by its angle: the oracle of the vectorised rule."""
    angle = math.degrees(math.atan2(down, right)) % 360
    if sectors == 1:
        return 0
    if sectors == 8:  # boundaries at atan(1 / 2.5) around each axis
        edge = math.degrees(math.atan(1 / 2.5))
        spans = [(90 * k - edge, 90 * k + edge) for k in range(4)]
        for k, (low, high) in enumerate(spans):
            if low - 1e-6 <= angle <= high + 1e-6 or low - 1e-6 <= angle - 360 <= high + 1e-6:
                return 2 * k
        return 2 * int(angle // 90) + 1
    if abs(down) <= abs(right):
        return 0 if right > 0 else 2
    return 1 if down > 0 else 3


# --- the pure functions -------------------------------------------------------------------------


@pytest.mark.parametrize("sectors", [1, 4, 8])
def test_displacement_bins_equal_plain_loops(sectors):
    place = grid(5, 7)
    bins = displacement_bins(place, rings=RINGS, sectors=sectors)[0]
    for i, (row, column) in enumerate(place[0].tolist()):
        for j, (other_row, other_column) in enumerate(place[0].tolist()):
            down, right = other_row - row, other_column - column
            distance = math.hypot(down, right)
            ring = sum(distance > r for r in RINGS)
            expected = -1
            if i != j and ring == 0:
                expected = 0
            elif i != j and ring < len(RINGS):
                expected = 1 + (ring - 1) * sectors + direction(down, right, sectors)
            assert bins[i, j] == expected, (down, right)
    assert bins.max() < relation_count(RINGS, sectors)


def test_the_nearest_cells_are_neighbours_of_a_relation_of_their_own():
    layer = refinement()
    _, _, weights = layer.trace(torch.rand(1, 6, 5, 5))
    near = weights[0][0][0, 0]  # relation 0 of the spatial edges
    assert (near[12] > 0).nonzero().flatten().tolist() == [6, 7, 8, 11, 13, 16, 17, 18]
    x = torch.rand(1, 6, 5, 5)
    before = layer(x)
    for block in layer.blocks:
        block.messages.weight.data[:, :8] = 0  # what relation 0 says
    assert not torch.allclose(layer(x), before, atol=1e-3)


def test_select_nodes_takes_the_strongest_in_reading_order_and_padding_last():
    score = torch.tensor([[3.0, 9.0, 9.0, 1.0], [5.0, 6.0, 7.0, 8.0]])
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    assert select_nodes(score, 2).tolist() == [[1, 2], [2, 3]]
    assert select_nodes(score, 2, mask).tolist() == [[1, 2], [0, 1]]
    assert select_nodes(score, 1).tolist() == [[1], [3]]  # a tie goes to the earlier cell
    assert select_nodes(score, None).tolist() == select_nodes(score, 9).tolist()


def test_similarity_edges_equal_plain_loops_and_take_ties():
    y = torch.randn(2, 9, 5)
    edges = similarity_edges(y, 3)
    for b in range(2):
        for i in range(9):
            cosine = torch.cosine_similarity(y[b, i][None], y[b])
            cosine[i] = -2
            assert set(edges[b, i].nonzero().flatten().tolist()) == set(
                cosine.topk(3).indices.tolist()
            )
    assert similarity_edges(torch.ones(1, 4, 2), 1).sum() == 12
    assert similarity_edges(torch.ones(1, 1, 2), 5).sum() == 0


def test_nobody_hears_an_invalid_node():
    valid = torch.tensor([[True, False, True, True]])
    assert not similarity_edges(torch.randn(1, 4, 3), 2, valid)[..., 1].any()
    bins = displacement_bins(grid(2, 2), rings=RINGS)
    assert not spatial_edges(bins, 9, valid)[..., 1].any()


@pytest.mark.parametrize("heads", [None, 1, 2])
def test_messages_equal_plain_loops(heads):
    y, edges = torch.randn(2, 5, 4), torch.rand(2, 3, 5, 5) < 0.4
    logits = None if heads is None else torch.randn(2, heads, 5, 5)
    if heads is None:
        messages = pass_messages(y, edge_weights(edges))
    else:
        messages = messages_of_heads(y, softmax_weights(edges, logits))
    for b in range(2):
        for i in range(5):
            expected = []
            for r in range(3):
                near = edges[b, r, i].nonzero().flatten()
                if not len(near):
                    expected.append(torch.zeros(4))
                    continue
                for t in range(heads or 1):
                    part = slice(t * 4 // (heads or 1), (t + 1) * 4 // (heads or 1))
                    score = torch.zeros(len(near)) if heads is None else logits[b, t, i, near]
                    weight = score.exp() / score.exp().sum()
                    expected.append((weight[:, None] * (y[b, near] - y[b, i])[:, part]).sum(dim=0))
            torch.testing.assert_close(messages[b, i], torch.cat(expected))


def test_messages_gradcheck():
    y = torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    edges = torch.rand(1, 2, 4, 4) < 0.6
    by_head = lambda y, s: messages_of_heads(y, softmax_weights(edges, s))  # noqa: E731
    assert torch.autograd.gradcheck(by_head, (y, logits))
    assert torch.autograd.gradcheck(lambda y: pass_messages(y, edge_weights(edges)), (y,))


# --- identities of the layer --------------------------------------------------------------------


@pytest.mark.parametrize("arguments", VARIANTS)
@pytest.mark.parametrize("shape", [(1, 6, 1, 1), (2, 6, 5, 3)])
def test_every_variant_refines_and_learns(arguments, shape):
    layer, x = refinement(**arguments), torch.rand(shape)
    y = layer(x)
    assert y.shape == x.shape
    y.square().sum().backward()
    heard = shape[-1] > 1
    silent = {n for n, p in layer.named_parameters() if p.grad is None or not p.grad.any()}
    assert not (heard and silent), silent
    assert not torch.equal(y, x)


@pytest.mark.parametrize("arguments", [{"blocks": 0}, {"start": 0.0}])
def test_no_block_or_a_zero_read_out_is_the_input(arguments):
    x = torch.rand(2, 6, 4, 5)
    assert torch.equal(refinement(**arguments)(x), x)


def test_only_the_strongest_cells_change():
    layer, x = refinement(nodes=4), torch.rand(2, 6, 5, 5)
    changed = (layer(x) != x).any(dim=1).flatten(1)
    strongest = torch.zeros(2, 25, dtype=torch.bool)
    strongest.scatter_(1, x.norm(dim=1).flatten(1).topk(4).indices, True)
    assert torch.equal(changed, strongest)


@pytest.mark.parametrize("nodes", [25, 26, 1000])
def test_as_many_nodes_as_cells_is_all_cells(nodes):
    x = torch.rand(2, 6, 5, 5)
    torch.testing.assert_close(refinement(nodes=nodes)(x), refinement(nodes=None)(x))


def test_one_node_is_an_mlp_on_it():
    layer, x = refinement(nodes=1), torch.rand(1, 6, 4, 4)
    cell = x.norm(dim=1).argmax()
    alone = layer(x.flatten(2)[..., cell, None, None])  # the same node on a map of one cell
    torch.testing.assert_close(layer(x).flatten(2)[..., cell], alone[..., 0, 0])


def test_without_edges_each_cell_is_by_itself():
    layer, x = refinement(kind=MLPControl), torch.rand(2, 6, 4, 3)
    shuffle = torch.randperm(12)
    shuffled = layer(x.flatten(2)[..., shuffle].reshape(x.shape))
    expected = layer(x).flatten(2)[..., shuffle].reshape(x.shape)
    torch.testing.assert_close(shuffled, expected)
    layer = refinement()  # and with edges it is not
    shuffled = layer(x.flatten(2)[..., shuffle].reshape(x.shape))
    assert not torch.allclose(
        shuffled, layer(x).flatten(2)[..., shuffle].reshape(x.shape), atol=1e-3
    )


def test_the_control_without_edges_is_as_large():
    def size(kind):
        return sum(p.numel() for p in kind(320).parameters())

    assert size(MLPControl) == pytest.approx(size(SpatialContextRefinement), rel=0.01)


@pytest.mark.parametrize("arguments", VARIANTS)
def test_permuted_nodes_permute_what_a_block_makes_of_them(arguments):
    layer, x = refinement(**arguments), torch.rand(1, 6, 4, 4)
    _, states, weights = layer.trace(x)
    order = torch.randperm(16)
    permuted = [w[..., order, :][..., order] for w in weights[0]]
    out = layer.blocks[0](states[0][:, order], permuted)
    torch.testing.assert_close(out, states[1][:, order])


@pytest.mark.parametrize("arguments", VARIANTS)
def test_a_constant_map_stays_constant(arguments):
    y = refinement(**arguments)(torch.rand(1, 6, 1, 1).expand(1, 6, 4, 7))
    torch.testing.assert_close(y, y[..., :1, :1].expand_as(y))


def mirrored(relations, sectors):
    """Number of each relation's mirror image; the similarity sectors follow the spatial ones."""
    order = list(range(relations))
    for first in range(1, relations, sectors):
        order[first], order[first + 2] = first + 2, first  # right ↔ left
    return order


@pytest.mark.parametrize("kind", [SpatialContextRefinement, TwoBiases])
def test_mirrored_map_and_mirrored_displacements_give_the_mirrored_result(kind):
    layer, x = refinement(kind=kind, nodes=9), torch.randn(2, 6, 5, 6)
    y = layer(x)
    assert not torch.allclose(layer(x.flip(-1)), y.flip(-1), atol=1e-3)
    order = torch.tensor(mirrored(13, 4))  # nine spatial relations, then four of similarity
    for block in layer.blocks:
        if kind is TwoBiases:
            block.bias.data = block.bias.data[:, order]
        else:
            weight = block.messages.weight.data.unflatten(1, (13, -1))
            block.messages.weight.data = weight[:, order].flatten(1)
    torch.testing.assert_close(layer(x.flip(-1)), y.flip(-1))


def test_undirected_edges_cannot_tell_a_map_from_its_mirror_image():
    layer, x = refinement(rings=(9.0,), sectors=1), torch.randn(1, 6, 5, 6)
    torch.testing.assert_close(layer(x.flip(-1)), layer(x).flip(-1))


def test_random_edges_depend_on_the_seed_alone():
    x = torch.rand(1, 6, 4, 4)
    first = refinement(kind=RandomEdges)(x)
    torch.testing.assert_close(first, refinement(kind=RandomEdges)(x))
    other = refinement(kind=RandomEdges)
    other.seed = 2
    assert not torch.allclose(first, other(x))


def test_padding_changes_nothing():
    layer, x = refinement(nodes=8), torch.rand(1, 6, 4, 4)
    padded = torch.nn.functional.pad(x, (0, 2, 0, 1), value=7.0)
    mask = torch.nn.functional.pad(torch.ones(1, 4, 4, dtype=torch.bool), (0, 2, 0, 1))
    torch.testing.assert_close(layer(padded, mask)[..., :4, :4], layer(x))
    everywhere = refinement(nodes=None)
    out = everywhere(padded, mask)
    torch.testing.assert_close(out[..., :4, :4], everywhere(x))
    assert torch.equal(out[..., 4:], padded[..., 4:])


def test_similar_nodes_are_found_anew_or_kept():
    x = torch.randn(1, 6, 6, 6)
    for kind, kept in ((SpatialContextRefinement, False), (EdgesBuiltOnce, True)):
        layer = refinement(kind=kind)
        _, _, weights = layer.trace(x)
        assert torch.equal(weights[0][1], weights[1][1]) is kept
        _, _, others = layer.trace(x.flip(-1))  # another map has edges of its own
        assert not torch.equal(weights[0][1], others[0][1])


def test_works_under_autocast():
    layer, x = refinement(), torch.rand(1, 6, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    torch.testing.assert_close(y, layer(x), atol=0.2, rtol=0.1)


@pytest.mark.parametrize("kind", [SpatialContextRefinement, AttentionAndBias])
def test_gradcheck(kind):
    layer = refinement(2, kind=kind, width=4, blocks=1).double()
    x = torch.rand(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BiasEdges(4, width=6), "heads divide"),
        (lambda: SpatialContextRefinement(4, width=0), "width ≥ 1"),
        (lambda: SpatialContextRefinement(4, blocks=-1), "blocks ≥ 0"),
        (lambda: SpatialContextRefinement(4, rings=(4, 2))(torch.rand(1, 4, 3, 3)), "rising"),
        (lambda: SpatialContextRefinement(4, sectors=3)(torch.rand(1, 4, 3, 3)), "sectors 1, 4"),
        (lambda: SpatialContextRefinement(4)(torch.rand(4, 3, 3)), r"\(B, C, H, W\)"),
        (
            lambda: SpatialContextRefinement(4)(torch.rand(1, 4, 3, 3), torch.ones(1, 3, 2) > 0),
            "mask",
        ),
        (lambda: select_nodes(torch.rand(3), 1), r"score \(B, N\)"),
        (lambda: similarity_edges(torch.rand(1, 3, 2), 0), "neighbours ≥ 1"),
    ],
)
def test_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("kind", [SpatialContextRefinement, MLPControl])
def test_contributions_of_the_neighbours_come_from_neighbours_alone(kind):
    layer, x = refinement(kind=kind), torch.randn(1, 6, 4, 4)
    _, states, weights = layer.trace(x)
    block, held = layer.blocks[0], [w for w in weights[0] if w.shape[1]]
    strength = block.contributions(states[0], weights[0], node=5)
    if not held:
        assert strength.shape == (1, 0, 16)
        return
    edges = torch.cat([w[:, :, 5] > 0 for w in held], dim=1)
    assert torch.equal(strength > 0, edges)
    one = edges.sum(dim=-1) == 1  # where a single neighbour speaks, it is the whole message
    y = block.norm(states[0])
    for r in one[0].nonzero().flatten().tolist():
        j = int(edges[0, r].nonzero())
        matrix = block.messages.weight.unflatten(1, (edges.shape[1], -1))[:, r]
        expected = (matrix @ (y[0, j] - y[0, 5])).norm()
        torch.testing.assert_close(strength[0, r, j], expected)
