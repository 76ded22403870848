import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d

from spatial_retrieval.localize import (
    Localization,
    Region,
    find,
    find_in_photographs,
    localize,
    on_photograph,
    prepare_photograph,
    prepare_query,
)
from spatial_retrieval.localize.agreement import Agreement
from spatial_retrieval.localize.baselines import (
    center_box,
    flat_threshold,
    lost_region,
    responses,
    sift_box,
    whole_image,
)
from spatial_retrieval.localize.regions import box_of
from spatial_retrieval.localize.seeded import _region
from spatial_retrieval.localize.whitener import Whitener

BOX = (2, 3, 11, 11)


def texture(seed, size=(14, 20), channels=24):
    """A map whose neighbouring cells resemble each other, as in a photograph."""
    noise = torch.randn(
        channels, size[0] + 2, size[1] + 2, generator=torch.Generator().manual_seed(seed)
    )
    return avg_pool2d(noise[None], 3, stride=1)[0]


def planted(*corners, seed=9, size=(14, 20)):
    """Another texture with the query's box copied to each corner (x, y)."""
    x0, y0, x1, y1 = BOX
    x = texture(seed, size)
    for u, v in corners:
        x[:, v : v + y1 - y0, u : u + x1 - x0] = texture(0)[:, y0:y1, x0:x1]
    return x


def iou(mask, box):
    truth = torch.zeros_like(mask)
    truth[box[1] : box[3], box[0] : box[2]] = True
    return float((mask & truth).sum() / (mask | truth).sum())


@pytest.mark.parametrize("box", [BOX, (0, 0, 20, 14), (5, 0, 14, 14), (3, 3, 9, 8)])
def test_the_same_image_answers_the_box_itself(box):
    found = localize(texture(0), texture(0), box=box, limit=1)
    assert found.box == box and found.score > 0.99
    assert iou(found.mask, box) == 1


@pytest.mark.parametrize("corner", [(0, 0), (9, 5), (11, 6)])
def test_finds_what_has_moved(corner):
    found = localize(texture(0), planted(corner), box=BOX)
    truth = (corner[0], corner[1], corner[0] + 9, corner[1] + 8)
    assert len(found) == 1 and iou(found.mask, truth) > 0.7
    x, y = found.point
    assert truth[0] <= x < truth[2] and truth[1] <= y < truth[3]


def test_finds_several_instances_best_first():
    twice = planted((0, 0), (22, 8), size=(18, 32))
    found = localize(texture(0), twice + 0.05 * texture(1, (18, 32)), box=BOX)
    assert len(found) == 2
    corners = sorted(region.box[:2] for region in found)
    assert np.abs(np.array(corners) - [(0, 0), (22, 8)]).max() <= 1
    # At first the matches are split between the two; without the first, all are the second's.
    assert found.regions[0].score > found.regions[1].score and found.score == found.regions[0].score
    assert int(found.mask.sum()) == sum(int(region.mask.sum()) for region in found)
    assert (found.heat[found.mask] > 0).all()
    assert len(localize(texture(0), planted((0, 0), (11, 6)), box=BOX, limit=1)) == 1


@pytest.mark.parametrize("box", [BOX, (6, 6, 8, 8), (0, 0, 20, 14)])
def test_the_heat_is_the_evidence_and_where_the_transform_takes_the_object(box):
    query = prepare_query(texture(0), box=box)  # a part, so little that more is matched, all of it
    z, inside = query.cells, query.positive.flatten()
    likeness, rival = z @ z[inside].T, z @ z[~inside].T
    other = rival.amax(dim=1) if rival.numel() else 0.5
    expected = (likeness.amax(dim=1) - other).view(14, 20) + 0.25 * (2 * query.positive - 1.0)
    torch.testing.assert_close(find(query, texture(0), limit=1).heat, expected)


@pytest.mark.parametrize("seed", [1, 9])  # some of what is left agrees by chance; nothing does
def test_a_second_object_that_is_not_there_leaves_no_trace(seed):
    query = prepare_query(texture(0), box=BOX)
    one, more = (find(query, planted((9, 5), seed=seed), limit=limit) for limit in (1, 3))
    assert len(more) == 1 and torch.equal(one.heat, more.heat) and one.score == more.score


def test_a_region_is_made_of_the_components_that_hold_anchors():
    heat = torch.full((12, 16), -1.0)
    heat[2:6, 2:8] = heat[9:11, 10:12] = heat[0, 15] = 1
    in_block = [y * 16 + x for y in range(2, 6) for x in range(2, 8)]
    outside, speck, second = [100] * 6, [15], [9 * 16 + 10] * 6
    held = Agreement(np.eye(2, 3), None, torch.tensor(in_block + outside + speck), 0.5)
    assert _region(heat, held).box == (2, 2, 8, 6)
    held = Agreement(np.eye(2, 3), None, torch.tensor(in_block + second), 0.5)
    assert torch.equal(_region(heat, held).mask, (heat > 0) & (torch.arange(12) > 0)[:, None])
    assert _region(-heat.abs(), held) is None


@pytest.mark.parametrize("seed", range(3, 9))
def test_an_image_without_the_object_answers_nothing(seed):
    found = localize(texture(0), texture(seed), box=BOX)
    assert len(found) == 0 and found.box is None and not found.mask.any()


def test_the_threshold_decides_and_the_score_stays():
    sure = localize(texture(0), planted((9, 5)), box=BOX)
    refused = localize(texture(0), planted((9, 5)), box=BOX, threshold=1.01)
    assert len(sure) == 1 and len(refused) == 0
    assert refused.score == sure.score


def test_a_constant_map_answers_no_region():
    flat = torch.ones(24, 14, 20)
    assert len(localize(flat, flat, box=BOX)) == 0
    assert len(localize(flat, flat)) == 0
    assert len(localize(texture(0), flat, box=BOX)) == 0


def test_points_grow_over_what_is_alike_and_connected():
    x = 0.05 * texture(0)
    x[2] += 0.3
    for columns in (slice(1, 7), slice(13, 19)):
        x[0, 2:12, columns] += 2
    left = torch.zeros(14, 20).bool()
    left[2:12, 1:7] = True
    right = left.roll(12, dims=1)
    query = prepare_query(x, seeds=[(3.5, 5.5)])
    assert torch.equal(query.positive, left)
    assert query.negative.any() and not (query.negative & right).any()  # it is alike, too
    both = prepare_query(x, seeds=[(3.5, 5.5), (15.5, 5.5)]).positive
    assert torch.equal(both, left | right)
    boxed = prepare_query(x, seeds=[(3.5, 5.5)], box=(3, 0, 20, 14)).positive
    assert boxed[2:12, 3:7].all() and not boxed[:, :3].any() and not boxed[:, 7:].any()
    astray = prepare_query(x, seeds=[(3.5, 5.5), (15.5, 5.5)], box=(0, 0, 10, 14))
    assert torch.equal(astray.positive & ~left, torch.eye(280)[5 * 20 + 15].view(14, 20) > 0)
    assert not (astray.negative & astray.positive).any()  # what was clicked is the object
    less = prepare_query(x, box=(1, 2, 19, 12), negatives=[(9.5, 5.5)])
    assert torch.equal(less.positive, left | right) and less.negative[5, 9]


def test_a_negative_point_takes_its_likeness_away():
    x = 0.05 * texture(0)
    x[0, :, :7] += 2
    x[0, :, 7:13] += 1.6
    x[1, :, 7:13] += 1.2
    x[2, :, 13:] += 0.3
    whole = prepare_query(x, seeds=[(3.5, 5.5)]).positive
    part = prepare_query(x, seeds=[(3.5, 5.5)], negatives=[(10.5, 5.5)])
    assert part.positive[:, :7].float().mean() > 0.9 and not part.positive[4:7, 9:12].any()
    assert whole[:, 7:13].float().mean() > part.positive[:, 7:13].float().mean()
    assert part.negative[5, 10]


def test_chooses_the_object_by_itself_in_two_ways():
    x = 0.1 * texture(0).abs()
    x[3, 4:10, 6:15] += 3
    truth = torch.zeros(14, 20).bool()
    truth[4:10, 6:15] = True
    for auto in ("prototypes", "degree"):
        positive = prepare_query(x, auto=auto).positive
        assert (positive & truth).sum() / (positive | truth).sum() > 0.9, auto
    with pytest.raises(ValueError, match="prototypes or degree"):
        prepare_query(x, auto="magic")


def test_a_small_object_is_found_with_its_surroundings():
    found = localize(texture(0), texture(0), seeds=[(6.5, 6.5)], limit=1)
    assert len(found) == 1 and found.mask[6, 6]
    tiny = prepare_query(texture(0), box=(6.1, 6.1, 6.2, 6.3)).positive
    assert tiny.sum() == 1 and tiny[6, 6]


def test_a_box_holds_the_cells_whose_centre_it_holds():
    assert box_of(prepare_query(texture(0), box=(2.5, 3.5, 10.5, 9.5)).positive) == (2, 3, 10, 9)


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ({"seeds": [(21, 3)]}, "points on the map of 20×14"),
        ({"seeds": [(-1, 3)]}, "points on the map"),
        ({"seeds": [(float("nan"), 3)]}, "finite"),
        ({"seeds": [(1, 2, 3)]}, "a point x, y"),
        ({"negatives": [(1, 2)]}, "along with the negative"),
        ({"seeds": [(1, 2)], "negatives": [(3, 15)]}, "points on the map"),
        ({"box": (3, 3, 3, 9)}, "x0 < x1"),
        ({"box": (30, 3, 33, 9)}, "on the 20×14 cells"),
        ({"box": (1, 2, 3)}, "a box x0, y0, x1, y1"),
        ({"box": (1, 2, float("inf"), 4)}, "finite"),
    ],
)
def test_marks_that_cannot_be_meant(marks, message):
    with pytest.raises(ValueError, match=message):
        prepare_query(texture(0), **marks)


def test_nothing_left_is_said():
    x = 0.01 * texture(0)
    x[0, :, :10] += 2
    with pytest.raises(ValueError, match="fewer negative points"):
        prepare_query(x, box=(2, 2, 8, 8), negatives=[(4, 4)])


def test_maps_that_cannot_be_used():
    query = prepare_query(texture(0), box=BOX)
    with pytest.raises(ValueError, match="query map of at least two cells"):
        prepare_query(torch.ones(4, 1, 1))
    with pytest.raises(ValueError, match="gallery map of at least two cells"):
        find(query, torch.ones(24, 1, 1))
    with pytest.raises(ValueError, match="24 channels, got 5"):
        find(query, torch.ones(5, 4, 4))
    with pytest.raises(ValueError, match="finite gallery map"):
        find(query, torch.full((24, 4, 4), torch.inf))
    with pytest.raises(ValueError, match="float query map"):
        prepare_query(torch.ones(4, 4))
    with pytest.raises(ValueError, match="limit >= 1"):
        find(query, texture(0), limit=0)


def test_works_in_half_precision_and_leaves_inputs_alone():
    query, gallery = texture(0).half(), planted((9, 5)).half()
    before = gallery.clone()
    found = localize(query, gallery, box=BOX)
    assert len(found) == 1 and torch.equal(gallery, before)
    again = find(prepare_query(query, box=BOX), gallery)
    assert torch.equal(found.heat, again.heat)


def test_maps_of_another_size():
    found = localize(texture(0), planted((1, 1), size=(11, 13)), box=BOX)
    assert len(found) == 1 and found.heat.shape == (11, 13)


def test_whitening_in_its_limits():
    x = texture(0)
    full = Whitener.fit(x, power=1.0, ridge=0.0)
    z = full.matrix @ (x.flatten(1) - full.mean)
    torch.testing.assert_close(z @ z.T / z.shape[1], torch.eye(24), atol=1e-3, rtol=0)
    ridged = Whitener.fit(x, power=1.0, ridge=0.1).matrix
    covariance = torch.cov(x.flatten(1), correction=0)
    expected = torch.linalg.inv(covariance + 0.1 * covariance.diagonal().mean() * torch.eye(24))
    torch.testing.assert_close(ridged.T @ ridged, expected, atol=1e-3, rtol=1e-4)
    none = Whitener.fit(x, power=0.0)
    centred = torch.nn.functional.normalize(x.flatten(1) - none.mean, dim=0)
    cells = none(x)
    torch.testing.assert_close(cells @ cells.T, centred.T @ centred, atol=1e-5, rtol=0)
    wide = torch.randn(300, 4, 5)  # more channels than cells
    assert Whitener.fit(wide).matrix.shape == (20, 300)


def test_a_query_is_whitened_half_way():
    """z of the module: the variance λ of each direction becomes λ / (λ + ρ λ̄)^p, with p = ½."""
    x = torch.randn(6, 12, 15, generator=torch.Generator().manual_seed(0))
    x = x * torch.tensor([9.0, 5, 3, 2, 1, 0.5])[:, None, None]
    cells = x.flatten(1).double()
    variance = torch.linalg.eigvalsh(torch.cov(cells, correction=0))
    expected = variance / (variance + 0.1 * variance.mean()) ** 0.5
    matrix = prepare_query(x, box=(0, 0, 5, 5)).whitener.matrix.double()
    spread = (matrix @ torch.cov(cells, correction=0) @ matrix.T).diagonal()
    torch.testing.assert_close(spread.sort().values, expected.sort().values, rtol=1e-4, atol=1e-6)


def photograph(box, size=(320, 224)):
    """Dark, with a bright rectangle."""
    pixels = np.full((size[1], size[0], 3), 40, dtype=np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 220
    return Image.fromarray(pixels)


def test_marks_and_masks_in_pixels():
    box = (32, 48, 176, 176)  # BOX in cells of 16 pixels
    image = photograph(box)
    query = prepare_photograph(texture(0), image.size, box=box)
    assert torch.equal(query.positive, prepare_query(texture(0), box=BOX).positive)
    (found,) = find_in_photographs(query, [texture(0)], [image], limit=1)
    assert found.mask.shape == found.heat.shape == (224, 320)
    assert iou(found.mask, box) > 0.9
    assert all(abs(a - b) <= 8 for a, b in zip(found.box, box, strict=True))
    plain = on_photograph(find(query, texture(0), limit=1), image, refine=False)
    assert iou(plain.mask, box) > 0.85
    point = prepare_photograph(texture(0), image.size, points=[(100, 100)])
    assert torch.equal(point.positive, prepare_query(texture(0), seeds=[(6.25, 6.25)]).positive)


def test_each_region_in_pixels_keeps_to_itself_and_loses_its_specks():
    cells = torch.zeros(2, 14, 20, dtype=torch.bool)
    cells[0, 2:8, 2:8] = cells[0, 12, 10] = cells[1, 2:8, 12:18] = True
    heat = 2 * cells.any(dim=0).float() - 1
    marked = Localization(tuple(Region(c, box_of(c), 1.0) for c in cells), heat, 1.0)
    found = on_photograph(marked, photograph((0, 0, 9, 9)), refine=False)
    assert [region.box for region in found] == [(32, 32, 128, 128), (192, 32, 288, 128)]


def test_the_ring_of_cells_around_a_region_bounds_it_by_its_own_heat():
    """A cell next to a region is not as surely outside as one farther away."""
    heat = torch.full((5, 5), -1.0)
    heat[1:4, 1:4] = 0.0
    heat[2, 2] = 0.1
    found = Localization((Region(heat > 0, (2, 2, 3, 3), 1.0),), heat, 1.0)
    shown = on_photograph(found, Image.new("RGB", (50, 50)), refine=False)
    x0, y0, x1, y1 = shown.regions[0].box
    assert x1 - x0 >= 18 and y1 - y0 >= 18  # to where the ring's centres are
    heat[0, :] = heat[:, 0] = 0.5  # what is farther away is another region's
    other = on_photograph(found, Image.new("RGB", (50, 50)), refine=False)
    assert other.regions[0].box == (x0, y0, x1, y1)


def test_a_faint_region_is_shown_by_whole_cells():
    cell = torch.eye(280)[6 * 20 + 6].view(14, 20) > 0
    heat = torch.where(cell, 1e-3, -1.0)
    faint = Localization((Region(cell, (6, 6, 7, 7), 1.0),), heat, 1.0)
    (region,) = on_photograph(faint, photograph((0, 0, 9, 9)))
    assert region.box == (96, 96, 112, 112) and int(region.mask.sum()) == 256


def test_pixels_that_cannot_be_meant():
    with pytest.raises(ValueError, match="320×224 photograph"):
        prepare_photograph(texture(0), (320, 224), points=[(321, 3)])
    with pytest.raises(ValueError, match="inside the 320×224 image"):
        prepare_photograph(texture(0), (320, 224), box=(5, 5, 5, 9))
    with pytest.raises(ValueError, match="expected 1 maps"):
        find_in_photographs(prepare_query(texture(0), box=BOX), [], [photograph((0, 0, 9, 9))])


def test_peers_answer_in_the_same_form():
    gallery = planted((9, 5)).abs()
    query = prepare_query(texture(0), box=BOX)
    assert whole_image((14, 20)).box == (0, 0, 20, 14)
    assert center_box((14, 20)).mask.float().mean() == pytest.approx(0.5, abs=0.1)
    with pytest.raises(ValueError, match="share"):
        center_box((14, 20), share=0)
    for found in (
        lost_region(gallery),
        flat_threshold(query, planted((9, 5))),
        responses(gallery),
    ):
        assert len(found) == 1 and found.mask.shape == (14, 20)
        assert found.heat.flatten()[int(found.heat.argmax())] > 0
    assert len(lost_region(torch.ones(3, 4, 4))) == 0


def test_responses_are_what_cells_add_to_the_descriptor():
    x = texture(0).abs()
    strength = x.double().pow(6).sum(dim=0) ** (1 / 6)  # √(Σ_c x_c²ᵖ), its p-th root; p = 3
    heat = strength / strength.max() - 0.5
    torch.testing.assert_close(responses(x).heat.double(), heat, atol=1e-5, rtol=0)


def test_sift_finds_a_moved_drawing_and_nothing_in_a_blank_one():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    drawing = Image.fromarray(small).resize((240, 160), Image.Resampling.BICUBIC)
    scene = Image.new("RGB", (400, 300), "gray")
    scene.paste(drawing, (100, 80))
    found = sift_box(drawing, (0, 0, 240, 160), scene)
    assert len(found) == 1 and found.score >= 10  # inliers
    assert np.abs(np.array(found.box) - [100, 80, 340, 240]).max() <= 4
    assert len(sift_box(drawing, (0, 0, 240, 160), Image.new("RGB", (99, 99)))) == 0
