from math import comb, log10, pi

import numpy as np
import pytest
import torch

from spatial_retrieval.localize.agreement import agree, false_alarms, tolerance, warp

GRID = (14, 20)  # rows, columns; not square, so that x and y cannot stand for each other


def cell(x, y):
    return y * GRID[1] + x


def matched(pairs):
    """Rows that are similar to one gallery cell each: (query x, y) → (gallery x, y)."""
    rows = torch.tensor([cell(*query) for query, _ in pairs])
    similarity = torch.zeros(len(pairs), GRID[0] * GRID[1])
    for row, (_, gallery) in enumerate(pairs):
        similarity[row, cell(*gallery)] = 1
    return similarity, rows


def agreed(similarity, rows):
    return agree(similarity, rows, torch.full((GRID[0] * GRID[1],), -1.0), GRID, GRID)


def block(columns, rows):
    return [(x, y) for y in range(rows) for x in range(columns)]


def stretched(by):
    """Cells that are ``by`` as far from each other in the gallery."""
    return [((x, y), (x * by, y * by)) for x, y in block(20 // by, 14 // by)]


def test_the_transform_is_the_one_that_the_matches_tell():
    similarity, rows = matched([((x, y), (x + 3, y + 1)) for x, y in block(6, 5)])
    found = agreed(similarity, rows)
    np.testing.assert_allclose(found.transform, [[1, 0, 3], [0, 1, 1]], atol=1e-6)
    assert found.score == 1 and torch.equal(found.query, rows)
    assert torch.equal(found.gallery, rows + cell(3, 1))


def test_the_score_is_the_share_of_the_matches_that_agree():
    together = [((x, y), (x + 3, y + 1)) for x, y in block(6, 5)]
    astray = [((10 + k, 12), (19 - 2 * k, 7 * (k % 2))) for k in range(10)]
    assert agreed(*matched(together + astray)).score == 30 / 40


def test_only_what_is_each_others_nearest_is_a_match():
    together = [((x, y), (x + 3, y + 1)) for x, y in block(6, 5)]
    similarity, rows = matched([((0, 9), (0, 0)), *together, *together])
    similarity[0] = 0  # resembles nothing, not even the first cell
    similarity[31:] *= 0.9  # resembles most what another resembles more
    found = agreed(similarity, rows)
    assert found.score == 1 and len(found.query) == 30


def test_a_rival_that_is_nearer_takes_the_match():
    similarity, rows = matched([((x, y), (x + 3, y + 1)) for x, y in block(6, 5)])
    rival = torch.full((GRID[0] * GRID[1],), -1.0)
    rival[cell(3, 1)] = 1.1
    assert len(agree(similarity, rows, rival, GRID, GRID).query) == 29


def test_four_matches_are_the_fewest_that_can_agree():
    four = [((x, y), (x + 3, y + 1)) for x, y in [(0, 0), (9, 0), (0, 8), (9, 8)]]
    assert agreed(*matched(four)).score == 1
    assert agreed(*matched(four[:3])) is None


@pytest.mark.parametrize(("by", "plausible"), [(1, True), (4, True), (6, False)])
def test_an_object_is_neither_stretched_nor_shrunk_beyond_reason(by, plausible):
    larger = stretched(by)
    smaller = [(b, a) for a, b in larger]
    for pairs in (larger, smaller):
        assert (agreed(*matched(pairs)) is not None) == plausible


def test_what_chance_can_do_scores_nothing():
    together = [((x, y), (x + 3, y + 1)) for x, y in block(4, 2)]
    rng = np.random.default_rng(0)
    some, others = (rng.permutation(np.arange(120, 280))[:22] for _ in range(2))
    astray = [((a % 20, a // 20), (b % 20, b // 20)) for a, b in zip(some, others, strict=True)]
    found = agreed(*matched(together + astray))
    assert len(found.query) >= 8 and found.score == 0  # a quarter of the matches agrees


def test_no_agreement_without_matches_or_by_mirroring():
    noise = torch.randn(24, 280, generator=torch.Generator().manual_seed(0))
    cells = torch.nn.functional.normalize(noise, dim=0)
    mirrored = cells.unflatten(1, GRID).flip(-1).flatten(1)
    everything = torch.arange(280)
    assert agreed(cells.T @ cells, everything).score == 1
    assert agreed(cells.T @ mirrored, everything) is None
    assert agreed(cells.T[:0] @ cells, everything[:0]) is None
    assert agree(cells.T @ cells, everything, torch.full((280,), 2.0), GRID, GRID) is None


@pytest.mark.parametrize(("n", "k", "p"), [(100, 20, 0.01), (30, 12, 0.05), (6, 6, 0.02)])
def test_false_alarms_equal_the_formula(n, k, p):
    expected = -log10((n - 3) * comb(n, k) * comb(k, 3) * p ** (k - 3))
    assert false_alarms(n, k, p) == pytest.approx(max(0, expected))
    assert false_alarms(n, 3, p) == 0


def test_tolerance_and_warp():
    assert tolerance((3, 3)) == 1 and tolerance((30, 30)) == pytest.approx(2.4)
    assert pi * tolerance((20, 30)) ** 2 < 0.05 * 600
    cells = torch.rand(4, 6)
    assert torch.equal(warp(cells, np.float64([[1, 0, 0], [0, 1, 0]]), (4, 6)), cells)
    moved = warp(cells, np.float64([[1, 0, 2], [0, 1, 1]]), (5, 8))
    assert torch.equal(moved[1:, 2:], cells) and not moved[0].any() and not moved[:, :2].any()
