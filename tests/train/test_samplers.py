import numpy as np
import pytest
import torch

from spatial_retrieval.train import samplers
from spatial_retrieval.train.data import TensorSet
from spatial_retrieval.train.samplers import MixedBatches, item_seed, mine_groups

PAIRS = np.repeat(np.arange(12), 3)  # six pairs (0, 1), (2, 3) …, three views each
TWINS = np.arange(12) ^ 1


def Batches(labels, *, twin_of=None, repeats=False, names=(), **options):
    items = torch.zeros(len(labels), 1, 1, 1)
    data = TensorSet(items, labels, twin_of, repeats=repeats, names=names)
    return samplers.Batches(data, **options)


def test_a_batch_holds_groups_with_their_twins_and_distinct_views():
    batch = Batches(PAIRS, twin_of=TWINS, groups=4, views=2).batch(0)
    labels = PAIRS[batch]
    assert len(batch) == 4 * 2 * 2 == len(set(batch.tolist()))
    assert all((labels == TWINS[label]).sum() == 2 for label in labels)


def test_a_batch_is_a_function_of_step_and_seed():
    one, same = (Batches(PAIRS, twin_of=TWINS, groups=3, seed=5) for _ in range(2))
    for step in (7, 0, 3):
        np.testing.assert_array_equal(one.batch(step), same.batch(step))
    other = Batches(PAIRS, twin_of=TWINS, groups=3, seed=6)
    assert any((one.batch(s) != other.batch(s)).any() for s in range(3))


def test_an_epoch_visits_every_landmark_once():
    batches = Batches(PAIRS, twin_of=TWINS, groups=3)
    assert batches.steps_per_epoch == 2
    for epoch in (0, 1):
        seen = [PAIRS[batches.batch(2 * epoch + turn)] // 2 for turn in range(2)]
        assert sorted(set(np.concatenate(seen))) == list(range(6))
        assert not set(seen[0]) & set(seen[1])


def test_labels_without_twins_stand_alone():
    labels = np.repeat(np.arange(5), 2)
    batch = Batches(labels, groups=5, views=2).batch(0)
    assert sorted(labels[batch]) == sorted(labels)


def test_hard_neighbours_fill_half_of_the_batch():
    labels = np.repeat(np.arange(20), 2)
    circle = np.exp(2j * np.pi * labels / 20)
    rows = np.stack([circle.real, circle.imag], axis=1).astype(np.float32)
    batches = Batches(labels, groups=6, views=2)
    mine_groups(rows, labels, batches, n=2)
    for i, row in enumerate(batches.harder):
        assert set(row) == {(i - 1) % 20, (i + 1) % 20}
    assert batches.steps_per_epoch == 6
    for step in range(6):
        drawn = labels[batches.batch(step)][::2]
        assert len(set(drawn)) == 6
        for first, hard in zip(drawn[:3], drawn[3:], strict=True):
            assert (first - hard) % 20 in (1, 19) or len(set(drawn)) == 6
    near = sum(
        min((a - b) % 20 for a in drawn[:3]) in (1, 19) or min((b - a) % 20 for a in drawn[:3]) == 1
        for b in drawn[3:]
    )
    assert near == 3


def test_mixed_batches_lie_one_after_the_other():
    a, b = Batches(PAIRS, twin_of=TWINS, groups=2), Batches(np.repeat(np.arange(3), 2), groups=2)
    mixed = MixedBatches([a, b], [0, len(PAIRS)]).batch(4)
    np.testing.assert_array_equal(mixed[:8], a.batch(4))
    np.testing.assert_array_equal(mixed[8:], b.batch(4) + len(PAIRS))


def test_a_photograph_that_is_augmented_may_come_twice():
    batch = Batches(np.arange(4), groups=2, views=3, repeats=True).batch(0)
    assert len(batch) == 6 and len(set(batch.tolist())) == 2


def test_seeds_of_items_differ_by_step_and_position():
    seeds = {item_seed(0, step, position) for step in range(20) for position in range(20)}
    assert len(seeds) == 400


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (np.zeros(4, int), {}, "at least two labels, got 1"),
        (np.array([0, 0, 1, 2, 2]), {"groups": 2}, r"one of label 1 \(c.jpg\)"),
        (PAIRS, {"groups": 13}, r"1 … 12 groups .* got 13"),
        (PAIRS, {"views": 1}, "at least 2 views"),
        (np.repeat([0, 1, 2], 2), {"twin_of": np.array([1, 0, -1])}, "twins for all .* 2 of 3"),
    ],
)
def test_bad_sets_are_refused(labels, options, message):
    names = [f"{'abcdefgh'[i % 8]}.jpg" for i in range(len(labels))]
    with pytest.raises(ValueError, match=message):
        Batches(labels, names=names, **options)


def test_mining_needs_other_groups():
    batches = Batches(np.repeat([0, 1], 2), groups=2)
    with pytest.raises(ValueError, match="hard groups, got 2"):
        mine_groups(np.eye(4, dtype=np.float32), np.repeat([0, 1], 2), batches, n=2)
