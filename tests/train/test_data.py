import numpy as np
import pytest
import torch
from training_toys import toy_maps

from spatial_retrieval.train.augment import Augmented, HideCells
from spatial_retrieval.train.data import ConcatSet, PhotoSet, TensorSet


def test_photographs_are_augmented_by_their_seed(tmp_path):
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)).save(
        tmp_path / "a.png"
    )
    noisy = PhotoSet([tmp_path / "a.png"], np.zeros(1, int), augment=lambda x: x + torch.rand(1))
    assert noisy.repeats and not PhotoSet([tmp_path / "a.png"], np.zeros(1, int)).repeats
    assert torch.equal(noisy[0, 5], noisy[0, 5])
    assert not torch.equal(noisy[0, 5], noisy[0, 6])


def test_sets_join_with_their_labels_moved_up():
    joined = ConcatSet([toy_maps(landmarks=4, views=2), toy_maps(landmarks=3, twins=False)])
    assert len(joined) == 20 and joined.labels.max() == 6
    np.testing.assert_array_equal(joined.twin_of, [1, 0, 3, 2, -1, -1, -1])
    levelled = [
        TensorSet(torch.rand(2, 3, 3, 3), [0, 1], difficulty=["E", level]) for level in "MH"
    ]
    assert ConcatSet(levelled).difficulty.tolist() == ["E", "M", "E", "H"]
    assert joined.difficulty is None
    assert torch.equal(joined[8, 0], joined.parts[1][0, 0])
    assert torch.equal(joined[7, 0], joined.parts[0][7, 0])


def test_hidden_cells():
    maps = toy_maps()
    hidden = Augmented(maps, HideCells(0.9))
    assert torch.equal(hidden[0, 1], hidden[0, 1])
    parts = [float((hidden[0, seed] == 0).all(dim=0).float().mean()) for seed in range(40)]
    assert min(parts) < 0.2 and 0.4 < max(parts) <= 1
    with pytest.raises(ValueError, match=r"part of cells in \[0, 1\), got 1"):
        HideCells(1)
