import numpy as np
import pytest
import torch

from spatial_retrieval.localize.regions import (
    Region,
    box_of,
    components,
    enlarge,
    guided_filter,
    polygons,
    rescale_box,
)


def plain_guided(guide, x, r, eps):
    """He et al.'s equations, a window at a time over a mirrored image."""
    h, w = guide.shape

    def windows(v):
        v = np.pad(v, r, mode="symmetric")
        return [[v[i : i + 2 * r + 1, j : j + 2 * r + 1] for j in range(w)] for i in range(h)]

    gs, xs = windows(guide), windows(x)
    a, b = np.zeros((h, w)), np.zeros((h, w))
    for i in range(h):
        for j in range(w):
            g, p = gs[i][j], xs[i][j]
            a[i, j] = ((g * p).mean() - g.mean() * p.mean()) / (g.var() + eps)
            b[i, j] = p.mean() - a[i, j] * g.mean()
    means = [np.array([[c.mean() for c in row] for row in windows(v)]) for v in (a, b)]
    return means[0] * guide + means[1]


def test_components_are_joined_at_sides_alone():
    mask = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 0, 0]]).bool()
    labels = components(mask)
    assert labels.dtype == torch.int64
    assert (labels == 0).equal(~mask)
    assert labels[0, 2] == labels[1, 1] == labels[1, 2]
    assert len({int(labels[0, 0]), int(labels[1, 1]), int(labels[2, 0])}) == 3


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (6, 2)])
def test_a_box_is_the_tightest(shape):
    assert box_of(torch.zeros(shape).bool()) is None
    assert box_of(torch.ones(shape).bool()) == (0, 0, shape[1], shape[0])
    mask = torch.zeros(9, 8).bool()
    mask[2, 5] = mask[4, 3] = True
    assert box_of(mask) == (3, 2, 6, 5)


def test_polygons_are_outlines_largest_first():
    mask = torch.zeros(8, 10).bool()
    mask[0, 0:2] = mask[3:7, 4:9] = True
    first, _ = polygons(mask)
    assert sorted(map(tuple, first.tolist())) == [(4, 3), (4, 6), (8, 3), (8, 6)]
    assert len(Region(mask, (0, 0, 9, 7), 1.0).polygons()) == 2


def test_a_box_keeps_its_place_in_another_grid():
    assert rescale_box((1, 2, 3, 4), (6, 8), (3, 16)) == (0.5, 4.0, 1.5, 8.0)


@pytest.mark.parametrize(("shape", "radius"), [((7, 9), 1), ((8, 6), 2)])
def test_the_guided_filter_equals_plain_loops(shape, radius):
    rng = np.random.default_rng(0)
    guide, x = rng.random(shape), rng.random(shape)
    found = guided_filter(guide, x, radius=radius, eps=0.01)
    np.testing.assert_allclose(found, plain_guided(guide, x, radius, 0.01), atol=1e-5)


def test_the_guided_filter_in_its_limits():
    rng = np.random.default_rng(1)
    x = rng.random((12, 10)).astype(np.float32)
    np.testing.assert_allclose(guided_filter(x, x, radius=2, eps=1e-9), x, atol=1e-3)
    flat = np.full_like(x, 0.5)  # nothing to follow: twice the mean over windows
    same = guided_filter(rng.random((12, 10)), flat, radius=2, eps=0.1)
    np.testing.assert_allclose(same, flat, atol=1e-5)


def test_the_guided_filter_says_what_is_wrong():
    x = np.zeros((4, 4))
    with pytest.raises(ValueError, match="one shape"):
        guided_filter(x, np.zeros((4, 5)), radius=1, eps=0.1)
    with pytest.raises(ValueError, match="radius >= 1"):
        guided_filter(x, x, radius=0, eps=0.1)
    with pytest.raises(ValueError, match="eps > 0"):
        guided_filter(x, x, radius=1, eps=0.0)


def test_an_enlarged_map_follows_the_edge_of_the_photograph():
    heat = torch.tensor([[1.0, 1.0, -1.0, -1.0]] * 4)
    photograph = np.zeros((64, 64, 3), dtype=np.uint8)
    photograph[:, :36] = 200  # the photograph's edge is 4 pixels off the cells'
    plain = enlarge(heat, (64, 64)) > 0
    refined = enlarge(heat, (64, 64), photograph) > 0
    assert plain.shape == (64, 64) and int(plain[32].sum()) == 32
    assert int(refined[32].sum()) == 36
    photograph[:, :48] = 200  # a whole cell off: not what this heat means
    assert int((enlarge(heat, (64, 64), photograph) > 0)[32].sum()) < 40
    with pytest.raises(ValueError, match="expected a photograph"):
        enlarge(heat, (32, 64), photograph)
