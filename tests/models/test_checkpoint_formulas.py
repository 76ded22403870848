import pytest
import torch
from official_toys import regional, sinkhorn
from torchvision.transforms.functional import resize

from spatial_retrieval.models.checkpoints.adopted import describe_adopted, join, rescale
from spatial_retrieval.models.checkpoints.dinov2 import DINOv2, stretch
from spatial_retrieval.models.checkpoints.salad import OptimalTransportAggregation, assign
from spatial_retrieval.models.checkpoints.superglobal import WindowedGeM, windowed_gem
from spatial_retrieval.models.checkpoints.vgg import VGGMap


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 3, 3), (2, 4, 7), (3, 6, 3)])
def test_windowed_gem_equals_plain_loops(batch, height, width):
    x = torch.rand(batch, 2, height, width)
    torch.testing.assert_close(windowed_gem(x), regional(x))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 5), (5, 4)])
def test_windowed_gem_leaves_a_constant_map_alone(height, width):
    x = torch.full((2, 3, height, width), 0.7)
    torch.testing.assert_close(windowed_gem(x), x)
    assert WindowedGeM()(x).shape == (2, 3)


def test_windowed_gem_gradient_and_bad_input():
    x = 0.1 + torch.rand(1, 2, 4, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(windowed_gem, x.requires_grad_())
    with pytest.raises(ValueError, match=r"odd size and p > 0, got \(1, 2, 4, 3\), 4"):
        windowed_gem(x, size=4)


@pytest.mark.parametrize(("batch", "clusters", "cells"), [(1, 1, 2), (2, 3, 4), (3, 4, 15)])
def test_assignment_equals_plain_loops(batch, clusters, cells):
    scores, dustbin = torch.randn(batch, clusters, cells), torch.tensor(0.4)
    for row, expected in zip(assign(scores, dustbin), scores, strict=True):
        torch.testing.assert_close(row, sinkhorn(expected, dustbin))


def test_assignment_ends_with_shares_of_one():
    scores = torch.randn(2, 3, 8, dtype=torch.float64)
    share = assign(scores, torch.tensor(0.1, dtype=torch.float64), rounds=200)
    torch.testing.assert_close(share.sum(dim=2), torch.ones(2, 3, dtype=torch.float64))
    assert (share.sum(dim=1) <= 1).all()


def test_assignment_gradient_and_too_few_cells():
    scores = torch.randn(1, 2, 4, dtype=torch.float64, requires_grad=True)
    dustbin = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(assign, (scores, dustbin))
    with pytest.raises(ValueError, match=r"more cells than clusters.*\(1, 4, 4\).*larger image"):
        assign(torch.zeros(1, 4, 4), torch.zeros(()))


def test_aggregation_is_of_unit_length_and_independent_of_the_order_of_cells():
    pooling = OptimalTransportAggregation(
        channels=6, clusters=3, cluster_dim=4, token_dim=5, hidden=7
    ).eval()
    x, token = torch.randn(2, 6, 4, 5), torch.randn(2, 6, 1, 1)
    rows = pooling(x, token)
    assert rows.shape == (2, 5 + 3 * 4)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(2))
    shuffled = x.flatten(2)[:, :, torch.randperm(20)].unflatten(2, (5, 4))
    torch.testing.assert_close(pooling(shuffled, token), rows)


def test_positions_of_the_learned_grid_are_kept():
    positions = torch.randn(1, 9, 4)
    assert stretch(positions, 3, 3) is positions
    assert stretch(positions, 5, 2).shape == (1, 10, 4)
    flat = torch.ones(1, 9, 4)
    torch.testing.assert_close(stretch(flat, 5, 2), torch.ones(1, 10, 4))


def test_an_image_smaller_than_a_patch_is_one_cell():
    x, token = DINOv2(channels=64, depth=1, grid=2).eval()(torch.rand(1, 3, 5, 30))
    assert x.shape == (1, 64, 1, 2) and token.shape == (1, 64, 1, 1)


@pytest.mark.parametrize("scale", [0.7071, 1.4142, 2**-0.5, 0.5])
@pytest.mark.parametrize(("height", "width"), [(97, 64), (33, 128)])
def test_scales_are_made_as_the_published_code_makes_them(scale, height, width):
    x = torch.rand(2, 3, height, width)
    smooth = resize(x, [int(height * scale), int(width * scale)], antialias=True)
    torch.testing.assert_close(rescale(x, scale, antialias=True), smooth)
    # cell i of a scale looks at (i + ½) / scale − ½, whatever the number of cells
    stripes = x[:, :, :1].expand_as(x)
    sharp = rescale(stripes, scale, antialias=False)
    assert sharp.shape[-2:] == (int(height * scale), int(width * scale))
    for i in (0, 7, sharp.shape[-1] - 2):
        place = max(0.0, (i + 0.5) / scale - 0.5)
        low, share = int(place), place % 1
        expected = stripes[..., 0, low] * (1 - share) + stripes[..., 0, low + 1] * share
        torch.testing.assert_close(sharp[..., 3, i], expected, atol=1e-5, rtol=0)
    assert rescale(x, 1.0, antialias=False) is x


def test_bad_scales_and_joins():
    with pytest.raises(ValueError, match="expected a scale > 0, got -1"):
        rescale(torch.rand(1, 3, 8, 8), -1, antialias=True)
    with pytest.raises(ValueError, match=r"scale 0.1 leaves nothing of an image \(8, 8\)"):
        rescale(torch.rand(1, 3, 8, 8), 0.1, antialias=True)
    with pytest.raises(ValueError, match="joined by mean or max, got 'sum'"):
        join(torch.rand(2, 1, 3), "sum")
    with pytest.raises(ValueError, match=r"expected images \(B, 3, h, w\) and a scale"):
        describe_adopted(None, torch.rand(3, 8, 8))


def test_joining_one_scale_is_its_own_row_and_power_leads_from_mean_to_maximum():
    rows = torch.nn.functional.normalize(torch.rand(3, 2, 5), dim=-1)
    for how, power in (("mean", 1.0), ("mean", 3.0), ("max", 1.0)):
        torch.testing.assert_close(join(rows[:1], how, power), rows[0])
    torch.testing.assert_close(join(rows, "mean", 200.0), join(rows, "max"), atol=0.02, rtol=0)


def test_vgg_of_another_depth_is_refused():
    with pytest.raises(ValueError, match="8, 10, 13 or 16 convolutions, got 5"):
        VGGMap(convolutions=5)
