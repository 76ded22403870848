import json

import numpy as np
import pytest
import torch

from spatial_retrieval.localize.lost import lost, lost_objects, similarities


def blocks(*corners, size=(14, 18), channels=8, seed=0):
    """A noisy background, and at each corner (x, y) a 4×5 block of a kind of its own."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.05 * torch.randn(channels, *size, generator=generator)
    x[0] += 1
    for k, (cx, cy) in enumerate(corners, start=1):
        x[:, cy : cy + 4, cx : cx + 5] += 3 * torch.eye(channels)[k][:, None, None]
        x[0, cy : cy + 4, cx : cx + 5] -= 1
    return x


def plain_lost(features, k):
    """LOST by loops: degrees, seed, expansion and a flood fill."""
    c, height, width = features.shape
    f = features.reshape(c, -1).T.double().numpy()
    f = f - f.mean(axis=0)
    n = len(f)
    a = [[float(f[i] @ f[j]) for j in range(n)] for i in range(n)]
    degree = [sum(a[i][j] > 0 for j in range(n) if j != i) for i in range(n)]
    order = sorted(range(n), key=lambda i: degree[i])
    similar = [p for p in order[:k] if a[order[0]][p] > 0]
    mask = [sum(a[p][i] for p in similar) > 0 for i in range(n)]
    todo, found = [order[0]], set()
    while todo:
        i = todo.pop()
        if i in found or not mask[i]:
            continue
        found.add(i)
        y, x = divmod(i, width)
        near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        todo += [v * width + u for v, u in near if 0 <= v < height and 0 <= u < width]
    return order[0], degree, found


@pytest.mark.parametrize("i", range(4))
@pytest.mark.parametrize("center", [True, False])
def test_equals_the_reference(shared, i, center):
    truth = json.loads((shared / "golden" / "lost.json").read_text())[i]
    features = torch.from_numpy(np.load(shared / "golden" / "lost.npz")[f"features_{i}"])
    found = lost(features, k_patches=truth["k_patches"], center=center)
    assert found.seed == truth["seed_index"]
    assert found.degree.flatten().tolist() == truth["degree"]
    assert [v * truth["stride"] for v in found.box] == truth["box_xyxy"]


@pytest.mark.parametrize(("size", "k"), [((4, 6), 5), ((6, 5), 4), ((1, 12), 2)])
def test_equals_plain_loops(size, k):
    compared = 0
    for seed in range(30):
        features = torch.randn(5, *size, generator=torch.Generator().manual_seed(seed))
        first, degree, cells = plain_lost(features, k)
        found = lost(features, k_patches=k)
        assert found.degree.flatten().tolist() == degree
        ranked = sorted(degree)
        if ranked[0] < ranked[1] and ranked[k - 1] < ranked[k]:  # else the order is not told
            compared += 1
            assert found.seed == first
            assert set(torch.nonzero(found.mask.flatten()).flatten().tolist()) == cells
    assert compared >= 3


def test_finds_the_block():
    found = lost(blocks((6, 4)), k_patches=20)
    assert found.box == (6, 4, 11, 8)
    assert found.mask.sum() == 20 and found.mask.flatten()[found.seed]


def test_without_centring_a_map_after_a_relu_has_no_seed_of_its_own():
    features = blocks((6, 4)).clamp(min=0) + 0.01
    cells = features[0].numel()
    plain = lost(features, k_patches=20, center=False)
    assert (plain.degree == cells - 1).all()
    assert lost(features, k_patches=20).box == (6, 4, 11, 8)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e4])
def test_a_constant_map_has_no_region(value):
    found = lost(torch.full((3, 5, 6), value))
    assert found.seed is None and found.box is None and not found.mask.any()
    assert not found.degree.any()
    assert lost_objects(torch.full((3, 5, 6), value)) == []


def test_peels_off_several_objects():
    found = lost_objects(blocks((1, 1), (11, 8)), k_patches=20)
    assert sorted(f.box for f in found) == [(1, 1, 6, 5), (11, 8, 16, 12)]
    assert not (found[0].mask & found[1].mask).any()
    assert len(lost_objects(blocks((1, 1), (11, 8)), k_patches=20, limit=1)) == 1
    assert lost_objects(blocks((1, 1), (11, 8)), k_patches=20, stand_out=0.0) == []


def test_no_cell_belongs_to_two_objects():
    for seed in range(10):
        features = torch.randn(3, 8, 9, generator=torch.Generator().manual_seed(seed))
        found = lost_objects(features, k_patches=10, stand_out=2.0)
        assert len(found) > 1
        assert torch.stack([f.mask for f in found]).sum(dim=0).max() == 1


def test_leaves_its_input_alone_and_follows_its_type():
    features = blocks((6, 4)).double()
    before = features.clone()
    assert lost(features).box == lost(features.float()).box
    assert torch.equal(features, before)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.ones(4, 4), r"map \(C, H, W\)"),
        (torch.ones(2, 4, 4, dtype=torch.int64), r"float map"),
        (torch.ones(2, 1, 1), "at least two cells"),
        (torch.full((2, 4, 4), float("nan")), "finite"),
    ],
)
def test_refuses_what_is_no_map(features, message):
    with pytest.raises(ValueError, match=message):
        similarities(features)


def test_refuses_to_expand_over_nothing():
    with pytest.raises(ValueError, match="k_patches >= 1"):
        lost(blocks((6, 4)), k_patches=0)
